use std::sync::mpsc::{Receiver, RecvError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use super::*;

/// Packets in memory. Refuses to hold more than may be unread by the module's argument: two data
/// frames and two credits.
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
            // Both sides send some, then receive some; the other side's numbers are known from its
            // seed.
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

/// An end that has sent 5 frames, of which 4 are acknowledged, and received 7, of which all are
/// acknowledged.
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
        "malformed frame after 0 correct frames (reason 3: unknown kind), first bytes 09000000000000000003a7cea3727562; \
         the memory of the peer is corrupt, or it runs another version",
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

/// Every truncation and every flip of one bit of good frames, and random packets: an answer each
/// time, never a panic.
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
