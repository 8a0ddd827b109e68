//! Messages of any length over a carrier of small packets, without ever blocking in the kernel.
//!
//! ipc-channel's `send` blocks once the peer's socket buffer is full, two peers that both send much then wait for each other for
//! ever, and packets above about 200 KB take a path with hazards of its own. So a message is split into frames of at most 64 KiB,
//! and few are ever under way.
//!
//! # The frame
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0 | kind | 1 *Part*: more of this message follows; 2 *Last*: the message is complete; 3 *Credit*: no payload |
//! | 1..5 | sequence, u32 LE | data frames (Part, Last) sent before this one in this direction |
//! | 5..9 | ack, u32 LE | data frames received so far in the other direction |
//! | 9..13 | checksum, u32 LE | CRC-32 (IEEE) of all other bytes, in their order |
//! | 13.. | payload | of a message; only a Last may have none |
//!
//! Both counters wrap. Every frame acknowledges, so that a round of one message each way is one packet each way.
//! Numbers find frames that were lost, repeated or overtaken; the checksum finds those that are not what was sent.
//!
//! # The rule of credits
//!
//! 1. A sender keeps at most [`WINDOW`] = 2 data frames unacknowledged. With two under way it receives until one is acknowledged;
//!    data frames that arrive meanwhile are kept for `recv` and acknowledged like all others.
//! 2. A receiver answers a data frame with a Credit at once if it is a Part, or if [`WINDOW`] received frames are now
//!    unacknowledged. Otherwise the acknowledgement travels in its next data frame.
//!
//! **No deadlock.** A sender waits only with two frames unacknowledged. When the peer has received both, either a frame it sent
//! since or rule 2 has acknowledged at least one of them, and the acknowledgement is on its way. The peer does receive
//! them, because it receives in `recv` and while it waits in `send`; so a sender waits only while its peer does neither: while it
//! computes. This holds for many messages in one direction without an answer, and for long messages in both directions at once.
//!
//! **No send blocks in the kernel.** Unread in one direction are at most two data frames (rule 1) and two Credits: each
//! acknowledges something new, and the peer can have only two frames that it has not seen acknowledged. Linux
//! takes four packets of 64 KiB before it blocks.
//!
//! **Nothing malformed is believed.** Every frame that no peer of this version sends is refused with a numbered
//! [`FrameFault`], and the link is closed to further use.

use std::collections::VecDeque;
use std::hint;
use std::mem;

use crate::error::link::{FrameFault, LinkError};
use crate::links::transport::{Draft, DraftBuffer, Transport, Wait, now};

/// Data frames that may be under way, unacknowledged, in one direction.
const WINDOW: u32 = 2;

/// Where in a frame its checksum is, behind the numbers.
const CHECKSUM: usize = 9;

/// Bytes of a frame's header.
const HEADER: usize = CHECKSUM + 4;

/// Bytes of the longest frame, header included.
pub(crate) const FRAME_LIMIT: usize = 64 * 1024;

/// Bytes of the longest message a link carries, so that a corrupt peer ends in an error and not in an exhausted memory.
pub(crate) const MESSAGE_LIMIT: usize = 1024 * 1024 * 1024;

/// Bytes of a malformed frame that its error shows.
const SHOWN: usize = 16;

/// Carries packets of up to [`FRAME_LIMIT`] bytes, whole and in order.
pub(crate) trait Packets: Send {
    /// Hands one packet over. Does not block as long as few packets are unread.
    fn send(&mut self, packet: &[u8]) -> Result<(), LinkError>;

    /// Waits for the next packet and puts it into `into`, replacing what was there.
    fn recv(&mut self, into: &mut Vec<u8>) -> Result<(), LinkError>;

    /// As `recv`, but returns false at once if no packet is there.
    fn try_recv(&mut self, into: &mut Vec<u8>) -> Result<bool, LinkError>;
}

/// A [`Transport`] over packets: splits, assembles and counts. The module's documentation has the protocol.
#[derive(Debug)]
pub(crate) struct Framed<P> {
    packets: P,
    window: Window,
    wait: Wait,
    /// Bytes of payload in the frames we send.
    payload_limit: usize,
    message_limit: usize,
    /// The message that is being written.
    draft: DraftBuffer,
    /// The frame being sent; kept for its memory.
    outgoing: Vec<u8>,
    /// The message last received.
    message: Vec<u8>,
    /// The packet last received; kept for its memory.
    incoming: Vec<u8>,
    /// Whole messages that arrived while we waited in `send`.
    early: VecDeque<Vec<u8>>,
    /// The beginning of the message after those.
    begun: Vec<u8>,
    /// Set by a malformed frame: what would follow cannot be trusted.
    refused: bool,
}

impl<P: Packets> Framed<P> {
    /// Starts a link over fresh `packets`. Frames are `frame_limit` bytes at most; the peer may use another limit.
    pub(crate) fn new(packets: P, frame_limit: usize, wait: Wait) -> Self {
        Self {
            packets,
            window: Window::default(),
            wait,
            payload_limit: frame_limit.clamp(HEADER + 1, FRAME_LIMIT) - HEADER,
            message_limit: MESSAGE_LIMIT,
            draft: DraftBuffer::default(),
            outgoing: Vec::new(),
            message: Vec::new(),
            incoming: Vec::new(),
            early: VecDeque::new(),
            begun: Vec::new(),
            refused: false,
        }
    }

    /// Receives one frame. Appends the payload of a data frame to `message` and returns true if that completes it.
    fn take(&mut self, message: &mut Vec<u8>) -> Result<bool, LinkError> {
        if self.refused {
            return Err(LinkError::Disconnected);
        }
        self.receive()?;
        let received = self.window.received;
        let frame = self.window.accept(&self.incoming).and_then(|frame| {
            if message.len() + frame.payload.len() > self.message_limit {
                return Err(FrameFault::MessageTooLarge);
            }
            Ok(frame)
        });
        let frame = match frame {
            Ok(frame) => frame,
            Err(reason) => {
                self.refused = true;
                let head = self.incoming[..self.incoming.len().min(SHOWN)].to_vec();
                return Err(LinkError::BadFrame {
                    reason,
                    received,
                    head,
                });
            }
        };
        message.extend_from_slice(frame.payload);
        let kind = frame.kind;
        if self.window.owes_credit(kind) {
            self.write_frame(PacketKind::Credit, &[]);
            match self.packets.send(&self.outgoing) {
                // The peer left after its last words. They are good, and the next `recv` finds it gone.
                Ok(()) | Err(LinkError::Disconnected) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(kind == PacketKind::Last)
    }

    /// Puts the next packet into `self.incoming`.
    fn receive(&mut self) -> Result<(), LinkError> {
        if !self.wait.spin.is_zero() {
            let begin = now();
            while begin.elapsed() < self.wait.spin {
                if self.packets.try_recv(&mut self.incoming)? {
                    return Ok(());
                }
                hint::spin_loop();
            }
        }
        self.packets.recv(&mut self.incoming)
    }

    /// Waits in `send` until the window has room, keeping what arrives for `recv`.
    fn make_room(&mut self) -> Result<(), LinkError> {
        while self.window.is_full() {
            let mut begun = mem::take(&mut self.begun);
            let taken = self.take(&mut begun);
            match taken {
                Ok(true) => self.early.push_back(begun),
                Ok(false) | Err(_) => self.begun = begun,
            }
            taken?;
        }
        Ok(())
    }

    /// Puts a frame into `self.outgoing`. It counts as sent from here on.
    fn write_frame(&mut self, kind: PacketKind, payload: &[u8]) {
        let numbers = self.window.numbers(kind);
        self.outgoing.clear();
        self.outgoing.extend_from_slice(&numbers);
        let checksum = checksum(&numbers, payload);
        self.outgoing.extend_from_slice(&checksum.to_le_bytes());
        self.outgoing.extend_from_slice(payload);
    }

    fn send_all(&mut self, message: &[u8]) -> Result<(), LinkError> {
        if self.refused {
            return Err(LinkError::Disconnected);
        }
        if message.len() > self.message_limit {
            return Err(LinkError::TooLarge {
                length: message.len(),
                limit: self.message_limit,
            });
        }
        let mut rest = message;
        loop {
            self.make_room()?;
            let (payload, after) = rest.split_at(rest.len().min(self.payload_limit));
            let kind = if after.is_empty() {
                PacketKind::Last
            } else {
                PacketKind::Part
            };
            self.write_frame(kind, payload);
            self.packets.send(&self.outgoing)?;
            if kind == PacketKind::Last {
                return Ok(());
            }
            rest = after;
        }
    }
}

impl<P: Packets> Transport for Framed<P> {
    fn wait_as(&mut self, wait: Wait) {
        self.wait = wait;
    }

    fn draft(&mut self) -> Result<Draft<'_>, LinkError> {
        Ok(Draft::in_buffer(&mut self.draft))
    }

    fn send(&mut self) -> Result<(), LinkError> {
        let draft = mem::take(&mut self.draft);
        let sent = self.send_all(draft.spilled().unwrap_or_default());
        self.draft = draft;
        self.draft.clear();
        sent
    }

    fn recv(&mut self) -> Result<&[u8], LinkError> {
        let mut message = mem::take(&mut self.message);
        if let Some(early) = self.early.pop_front() {
            message = early;
        } else {
            message.clear();
            mem::swap(&mut message, &mut self.begun);
            while !self.take(&mut message)? {}
        }
        self.message = message;
        Ok(&self.message)
    }

    fn recv_to_answer(&mut self) -> Result<(&[u8], Draft<'_>), LinkError> {
        self.recv()?;
        Ok((&self.message, Draft::in_buffer(&mut self.draft)))
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum PacketKind {
    Part = 1,
    Last = 2,
    Credit = 3,
}

/// A frame that was found to be well formed.
#[derive(Debug, PartialEq, Eq)]
struct Frame<'a> {
    kind: PacketKind,
    payload: &'a [u8],
}

/// What is in a frame so that its receiver can tell whether it is what was sent.
fn checksum(numbers: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(numbers);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(any(test, feature = "dev"))]
/// Puts the right checksum into a packet that is long enough for one, as a peer that lies well does it.
pub(crate) fn sign(packet: &mut [u8]) {
    if let Some((header, payload)) = packet.split_first_chunk_mut::<HEADER>() {
        let sum = checksum(&header[..CHECKSUM], payload);
        header[CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
    }
}

/// The counters of one end: writes the numbers of frames, judges frames. Pure; all counts are of data frames and wrap.
#[derive(Clone, Debug, Default)]
struct Window {
    /// Sent by us.
    sent: u32,
    /// Of those, acknowledged by the peer.
    acknowledged: u32,
    /// Received by us.
    received: u32,
    /// Of those, acknowledged by us.
    credited: u32,
}

impl Window {
    /// Whether a data frame must wait for an acknowledgement.
    fn is_full(&self) -> bool {
        self.under_way() >= WINDOW
    }

    /// Our frames that the peer has not acknowledged.
    fn under_way(&self) -> u32 {
        self.sent.wrapping_sub(self.acknowledged)
    }

    /// The peer's frames that we have not acknowledged.
    fn unacknowledged(&self) -> u32 {
        self.received.wrapping_sub(self.credited)
    }

    /// Whether rule 2 asks for a Credit after a frame of this kind.
    fn owes_credit(&self, received: PacketKind) -> bool {
        match received {
            PacketKind::Part => true,
            PacketKind::Last => self.unacknowledged() >= WINDOW,
            PacketKind::Credit => false,
        }
    }

    /// The numbers at the beginning of the next frame, which counts as sent from here on.
    fn numbers(&mut self, kind: PacketKind) -> [u8; CHECKSUM] {
        let mut numbers = [0; CHECKSUM];
        numbers[0] = kind as u8;
        numbers[1..5].copy_from_slice(&self.sent.to_le_bytes());
        numbers[5..9].copy_from_slice(&self.received.to_le_bytes());
        self.credited = self.received;
        if kind != PacketKind::Credit {
            self.sent = self.sent.wrapping_add(1);
        }
        numbers
    }

    /// Judges a packet and counts it. After a fault the counters are as before.
    fn accept<'a>(&mut self, packet: &'a [u8]) -> Result<Frame<'a>, FrameFault> {
        let Some((header, payload)) = packet.split_first_chunk::<HEADER>() else {
            return Err(FrameFault::TooShort);
        };
        if packet.len() > FRAME_LIMIT {
            return Err(FrameFault::TooLong);
        }
        let (numbers @ &[kind, s0, s1, s2, s3, a0, a1, a2, a3], sum) = header
            .split_first_chunk::<CHECKSUM>()
            .ok_or(FrameFault::TooShort)?;
        if checksum(numbers, payload).to_le_bytes() != *sum {
            return Err(FrameFault::Checksum);
        }
        let kind = match kind {
            1 => PacketKind::Part,
            2 => PacketKind::Last,
            3 => PacketKind::Credit,
            _ => return Err(FrameFault::UnknownKind),
        };
        if u32::from_le_bytes([s0, s1, s2, s3]) != self.received {
            return Err(FrameFault::OutOfOrder);
        }
        let ack = u32::from_le_bytes([a0, a1, a2, a3]);
        let newly_acknowledged = ack.wrapping_sub(self.acknowledged);
        if newly_acknowledged > self.under_way() {
            return Err(FrameFault::FalseAck);
        }
        match kind {
            PacketKind::Credit if !payload.is_empty() => return Err(FrameFault::CreditWithPayload),
            PacketKind::Credit if newly_acknowledged == 0 => return Err(FrameFault::EmptyCredit),
            PacketKind::Part if payload.is_empty() => return Err(FrameFault::EmptyPart),
            PacketKind::Part | PacketKind::Last if self.unacknowledged() >= WINDOW => {
                return Err(FrameFault::WindowOverrun);
            }
            PacketKind::Part | PacketKind::Last => self.received = self.received.wrapping_add(1),
            PacketKind::Credit => {}
        }
        self.acknowledged = ack;
        Ok(Frame { kind, payload })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{
        Receiver, RecvError, SyncSender, TryRecvError, TrySendError, sync_channel,
    };
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Packets in memory. Refuses to hold more than may be unread by the module's argument: two data frames and two credits.
    struct Memory {
        tx: SyncSender<Vec<u8>>,
        rx: Receiver<Vec<u8>>,
        sent: usize,
    }

    fn pair() -> (Memory, Memory) {
        let (to_right, from_left) = sync_channel(4);
        let (to_left, from_right) = sync_channel(4);
        (
            Memory {
                tx: to_right,
                rx: from_right,
                sent: 0,
            },
            Memory {
                tx: to_left,
                rx: from_left,
                sent: 0,
            },
        )
    }

    impl Packets for Memory {
        fn send(&mut self, packet: &[u8]) -> Result<(), LinkError> {
            assert!(packet.len() <= FRAME_LIMIT, "over-long frame");
            self.sent += 1;
            self.tx
                .try_send(packet.to_vec())
                .map_err(|error| match error {
                    TrySendError::Full(_) => panic!("this send would have blocked in the kernel"),
                    TrySendError::Disconnected(_) => LinkError::Disconnected,
                })
        }

        fn recv(&mut self, into: &mut Vec<u8>) -> Result<(), LinkError> {
            *into = self
                .rx
                .recv()
                .map_err(|RecvError| LinkError::Disconnected)?;
            Ok(())
        }

        fn try_recv(&mut self, into: &mut Vec<u8>) -> Result<bool, LinkError> {
            match self.rx.try_recv() {
                Ok(packet) => {
                    *into = packet;
                    Ok(true)
                }
                Err(TryRecvError::Empty) => Ok(false),
                Err(TryRecvError::Disconnected) => Err(LinkError::Disconnected),
            }
        }
    }

    fn linked() -> (Framed<Memory>, Framed<Memory>) {
        let (left, right) = pair();
        let framed = |packets| Framed::new(packets, FRAME_LIMIT, Wait::default());
        (framed(left), framed(right))
    }

    fn received(link: &mut impl Transport) -> Vec<u8> {
        let mut message = vec![0xEE; 3];
        link.hear(&mut message).expect("the peer has sent it");
        message
    }

    /// A message that shows every loss and swap of its bytes.
    fn message(length: usize, seed: u64) -> Vec<u8> {
        let mut random = Random(seed);
        (0..length)
            .map(|_| random.next().to_le_bytes()[0])
            .collect()
    }

    /// xorshift64*: small, and the same numbers everywhere.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8
        }
    }

    const FULL: usize = FRAME_LIMIT - HEADER;

    /// Around every boundary of the split.
    const LENGTHS: [usize; 12] = [
        0,
        1,
        100,
        FULL - 1,
        FULL,
        FULL + 1,
        FRAME_LIMIT - 1,
        FRAME_LIMIT,
        2 * FULL,
        2 * FULL + 1,
        5 * FULL + 17,
        3_000_000,
    ];

    #[test]
    fn an_exchange_of_small_messages_is_one_packet_each_way() {
        let (mut main, mut child) = linked();
        for round in 0..100 {
            main.say(b"grant").expect("the child is there");
            assert_eq!(received(&mut child), b"grant");
            child.say(b"report").expect("main is there");
            assert_eq!(received(&mut main), b"report");
            assert_eq!(
                (main.packets.sent, child.packets.sent),
                (round + 1, round + 1)
            );
        }
    }

    #[test]
    fn messages_of_every_length_go_both_ways_at_once() {
        let (mut left, mut right) = linked();
        let run = |link: &mut Framed<Memory>, mine: u64, theirs: u64| {
            for length in LENGTHS {
                link.say(&message(length, mine)).expect("the peer is there");
            }
            for length in LENGTHS {
                assert!(received(link) == message(length, theirs), "length {length}");
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| run(&mut left, 1, 2));
            scope.spawn(|| run(&mut right, 2, 1));
        });
    }

    #[test]
    fn many_messages_in_one_direction_need_no_answer() {
        let (mut main, mut child) = linked();
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..10_000_u32 {
                    main.say(&number.to_le_bytes()).expect("the child is there");
                }
                assert_eq!(received(&mut main), b"done");
            });
            scope.spawn(|| {
                for number in 0..10_000_u32 {
                    assert_eq!(received(&mut child), number.to_le_bytes());
                }
                child.say(b"done").expect("main is there");
            });
        });
        assert_eq!(
            child.packets.sent,
            10_000 / 2 + 1,
            "a credit for every second message"
        );
    }

    #[test]
    fn random_conversations_arrive_in_order() {
        for seed in 1..40 {
            let (mut left, mut right) = linked();
            let talk = |link: &mut Framed<Memory>, mine: u64, theirs: u64| {
                // Both sides send some, then receive some; the other side's numbers are known from its seed.
                let (mut out, mut inward) = (Random(mine), Random(theirs));
                for _ in 0..8 {
                    for _ in 0..out.next() % 5 {
                        let length = usize::try_from(out.next() % 200_000).expect("small");
                        let seed = out.next() | 1;
                        link.say(&message(length, seed)).expect("the peer is there");
                    }
                    for _ in 0..inward.next() % 5 {
                        let length = usize::try_from(inward.next() % 200_000).expect("small");
                        let seed = inward.next() | 1;
                        assert!(received(link) == message(length, seed), "length {length}");
                    }
                }
            };
            thread::scope(|scope| {
                scope.spawn(|| talk(&mut left, seed, seed + 1000));
                scope.spawn(|| talk(&mut right, seed + 1000, seed));
            });
        }
    }

    #[test]
    fn the_counters_wrap() {
        let (mut main, mut child) = linked();
        for window in [&mut main.window, &mut child.window] {
            let near_end = u32::MAX - 2;
            *window = Window {
                sent: near_end,
                acknowledged: near_end,
                received: near_end,
                credited: near_end,
            };
        }
        for _ in 0..10 {
            main.say(b"a").expect("the child is there");
            main.say(b"b").expect("the child is there");
            assert_eq!(received(&mut child), b"a");
            assert_eq!(received(&mut child), b"b");
            child.say(b"c").expect("main is there");
            assert_eq!(received(&mut main), b"c");
        }
    }

    #[test]
    fn what_was_sent_before_the_peer_left_still_arrives() {
        let (mut main, mut child) = linked();
        child.say(b"last").expect("main is there");
        child.say(b"words").expect("main is there");
        drop(child);
        assert_eq!(received(&mut main), b"last");
        assert_eq!(received(&mut main), b"words");
        let mut message = Vec::new();
        assert!(matches!(
            main.hear(&mut message),
            Err(LinkError::Disconnected)
        ));
        assert!(matches!(main.say(b"x"), Err(LinkError::Disconnected)));
    }

    #[test]
    fn a_send_that_waits_for_a_peer_that_leaves_ends() {
        let (mut main, child) = linked();
        main.say(b"1").expect("the child is there");
        main.say(b"2").expect("the child is there");
        thread::scope(|scope| {
            let stalled = scope.spawn(|| main.say(b"3"));
            drop(child);
            let outcome = stalled.join().expect("no panic");
            assert!(matches!(outcome, Err(LinkError::Disconnected)));
        });
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_anything_is_sent() {
        let (mut main, mut child) = linked();
        main.message_limit = 1000;
        let refused = main.say(&[0; 1001]);
        assert!(matches!(
            refused,
            Err(LinkError::TooLarge {
                length: 1001,
                limit: 1000
            })
        ));
        main.say(&[7; 1000]).expect("the child is there");
        assert_eq!(received(&mut child), [7; 1000]);
    }

    #[test]
    fn spinning_changes_nothing() {
        let (mut main, mut child) = linked();
        main.wait.spin = Duration::from_micros(50);
        main.say(b"a").expect("the child is there");
        assert_eq!(received(&mut child), b"a");
        child.say(b"b").expect("main is there");
        assert_eq!(received(&mut main), b"b");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| received(&mut main));
            child.say(b"c").expect("main is there");
            assert_eq!(waiting.join().expect("no panic"), b"c");
        });
    }

    /// A packet as a peer that lies would write it.
    fn packet(kind: u8, sequence: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![kind];
        packet.extend_from_slice(&sequence.to_le_bytes());
        packet.extend_from_slice(&ack.to_le_bytes());
        packet.extend_from_slice(&[0; HEADER - CHECKSUM]);
        packet.extend_from_slice(payload);
        sign(&mut packet);
        packet
    }

    /// An end that has sent 5 frames, of which 4 are acknowledged, and received 7, of which all are acknowledged.
    fn in_the_middle() -> Window {
        Window {
            sent: 5,
            acknowledged: 4,
            received: 7,
            credited: 7,
        }
    }

    #[test]
    fn well_formed_frames_are_accepted() {
        for (packet, kind) in [
            (packet(1, 7, 4, b"x"), PacketKind::Part),
            (packet(2, 7, 5, b""), PacketKind::Last),
            (packet(2, 7, 5, &[0; FULL]), PacketKind::Last),
            (packet(3, 7, 5, b""), PacketKind::Credit),
        ] {
            let frame = in_the_middle().accept(&packet).map(|frame| frame.kind);
            assert_eq!(frame, Ok(kind));
        }
    }

    #[test]
    fn every_malformed_frame_is_refused_with_its_reason() {
        let cases = [
            (packet(2, 7, 4, &[0; FULL + 1]), FrameFault::TooLong),
            (packet(0, 7, 4, b"x"), FrameFault::UnknownKind),
            (packet(4, 7, 4, b"x"), FrameFault::UnknownKind),
            (packet(2, 8, 4, b"a gap"), FrameFault::OutOfOrder),
            (packet(2, 6, 4, b"a repetition"), FrameFault::OutOfOrder),
            (packet(3, 6, 5, b""), FrameFault::OutOfOrder),
            (packet(2, 7, 6, b"never sent"), FrameFault::FalseAck),
            (packet(2, 7, 3, b"taken back"), FrameFault::FalseAck),
            (packet(1, 7, 4, b""), FrameFault::EmptyPart),
            (packet(3, 7, 5, b"x"), FrameFault::CreditWithPayload),
            (packet(3, 7, 4, b""), FrameFault::EmptyCredit),
        ];
        for (packet, fault) in cases {
            let mut window = in_the_middle();
            assert_eq!(window.accept(&packet), Err(fault));
            assert_eq!(format!("{window:?}"), format!("{:?}", in_the_middle()));
        }
        let good = packet(2, 7, 4, b"");
        for length in 0..HEADER {
            let cut = in_the_middle()
                .accept(&good[..length])
                .map(|frame| frame.kind);
            assert_eq!(cut, Err(FrameFault::TooShort), "length {length}");
        }
        let mut greedy = in_the_middle();
        assert!(greedy.accept(&packet(2, 7, 4, b"")).is_ok());
        assert!(greedy.accept(&packet(2, 8, 4, b"")).is_ok());
        assert_eq!(
            greedy.accept(&packet(2, 9, 4, b"")),
            Err(FrameFault::WindowOverrun)
        );
    }

    #[test]
    fn a_malformed_frame_ends_the_link() {
        let (mut liar, right) = pair();
        let mut link = Framed::new(right, FRAME_LIMIT, Wait::default());
        liar.send(&packet(9, 0, 0, b"rubbish and more"))
            .expect("in memory");
        liar.send(&packet(2, 0, 0, b"good")).expect("in memory");
        let mut message = Vec::new();
        let error = link.hear(&mut message).expect_err("no such kind");
        assert_eq!(
            error.to_string(),
            "malformed frame after 0 good ones (reason 3: unknown kind), it begins 09000000000000000003a7cea3727562; \
             the peer's memory is corrupt or it runs another version",
        );
        assert!(matches!(
            link.hear(&mut message),
            Err(LinkError::Disconnected)
        ));
        assert!(matches!(link.say(b"x"), Err(LinkError::Disconnected)));
    }

    #[test]
    fn an_endless_message_is_refused() {
        let (mut liar, right) = pair();
        let mut link = Framed::new(right, FRAME_LIMIT, Wait::default());
        link.message_limit = 250;
        let mut message = Vec::new();
        let outcome = thread::scope(|scope| {
            let receiving = scope.spawn(|| link.hear(&mut message));
            let mut credit = Vec::new();
            for sequence in 0..3 {
                liar.send(&packet(1, sequence, 0, &[0; 100]))
                    .expect("in memory");
                if sequence < 2 {
                    liar.recv(&mut credit).expect("a credit for each part");
                }
            }
            receiving.join().expect("no panic")
        });
        let Err(LinkError::BadFrame {
            reason, received, ..
        }) = outcome
        else {
            panic!("not refused: {outcome:?}");
        };
        assert_eq!((reason, received), (FrameFault::MessageTooLarge, 2));
    }

    /// Every truncation and every flip of one bit of good frames, and random packets: an answer each time, never a panic.
    #[test]
    fn no_packet_makes_the_decoder_panic() {
        let good = [
            packet(1, 7, 4, b"part of a message"),
            packet(2, 7, 5, b"the last of it"),
            packet(3, 7, 5, b""),
        ];
        for good in &good {
            for length in 0..good.len() {
                let _ = in_the_middle().accept(&good[..length]);
            }
            for bit in 0..good.len() * 8 {
                let mut flipped = good.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let refused = in_the_middle().accept(&flipped).map(|frame| frame.kind);
                assert_eq!(refused, Err(FrameFault::Checksum), "bit {bit}");
                // And if the sender itself was wrong about it.
                sign(&mut flipped);
                let accepted = in_the_middle().accept(&flipped).is_ok();
                let in_numbers = bit / 8 < CHECKSUM;
                // Of the numbers, only an acknowledgement can turn into another good one.
                assert!(accepted || in_numbers, "a payload may hold anything");
                assert!(
                    !accepted || !(1..5).contains(&(bit / 8)),
                    "a wrong sequence number was accepted"
                );
            }
        }
        let mut random = Random(0x5EED);
        let mut window = in_the_middle();
        for _ in 0..200_000 {
            let length = usize::try_from(random.next() % 24).expect("small");
            let mut packet = message(length, random.next() | 1);
            // Mostly near the truth, so that the later checks are reached too.
            if length >= HEADER && !random.next().is_multiple_of(4) {
                packet[0] = random.next().to_le_bytes()[0] % 5;
                packet[1..5].copy_from_slice(&window.received.to_le_bytes());
                let ack = window
                    .acknowledged
                    .wrapping_add(u32::from(random.next().to_le_bytes()[0] % 3));
                packet[5..9].copy_from_slice(&ack.to_le_bytes());
                sign(&mut packet);
            }
            let _ = window.accept(&packet);
            match random.next() % 3 {
                0 if !window.is_full() => {
                    window.numbers(PacketKind::Last);
                }
                1 if window.unacknowledged() > 0 => {
                    window.numbers(PacketKind::Credit);
                }
                _ => {}
            }
            assert!(window.under_way() <= WINDOW);
            assert!(window.unacknowledged() <= WINDOW);
        }
    }
}
