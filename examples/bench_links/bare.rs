//! The bare side: processes of this same program that pass frames over ipc-channel and do nothing
//! else.
//!
//! They are peers of main, as clusters are, and main is in every hop. What they are told to do is in
//! their arguments, so that none is ever taken for a cluster.

use std::env;
use std::error::Error;
use std::process::{Child, Command};
use std::time::Duration;

use ipc_channel::TryRecvError;
use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender};
use maslite_mp::clock::wall;
use serde::{Deserialize, Serialize};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The first argument of a bare peer.
const MARKER: &str = "bare-peer";

/// Bytes of a frame that is passed around: about what a grant or a report takes with one mail.
pub(crate) const FRAME: usize = 64;

/// Bytes after which a batch goes on in another frame.
const FULL: usize = 60_000;

/// The two channels of a peer, and how it waits.
struct Link {
    sender: IpcBytesSender,
    receiver: IpcBytesReceiver,
    /// How long it looks for a frame before it blocks.
    spin: Duration,
}

impl Link {
    fn send(&self, frame: &[u8]) -> Outcome<()> {
        Ok(self.sender.send(frame)?)
    }

    fn receive(&self) -> Outcome<Vec<u8>> {
        if !self.spin.is_zero() {
            let begin = wall();
            while begin.elapsed() < self.spin {
                match self.receiver.try_recv() {
                    Ok(frame) => return Ok(frame),
                    Err(TryRecvError::Empty) => std::hint::spin_loop(),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(self.receiver.recv()?)
    }
}

/// What a child brings to main's door: main's ends of its channels.
type Knock = (IpcBytesSender, IpcBytesReceiver);

/// What a bare peer does.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// Answers every frame.
    Echo,
    /// Makes batches of mail.
    Source,
    /// Reads batches of mail.
    Sink,
}

impl Part {
    const ALL: [Self; 3] = [Self::Echo, Self::Source, Self::Sink];

    fn name(self) -> String {
        format!("{self:?}")
    }
}

/// In a bare peer: plays its part until main closes the channel, and says that it did.
pub(crate) fn was_peer() -> Outcome<bool> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [marker, door, part, spin] = &arguments[..] else {
        return Ok(false);
    };
    if marker != MARKER {
        return Ok(false);
    }
    let (to_peer, receiver) = ipc::bytes_channel()?;
    let (sender, to_main) = ipc::bytes_channel()?;
    IpcSender::<Knock>::connect(door.clone())?.send((to_peer, to_main))?;
    let spin = Duration::from_nanos(spin.parse()?);
    let link = Link {
        sender,
        receiver,
        spin,
    };
    let part = Part::ALL.into_iter().find(|known| known.name() == *part);
    // A closed channel is how each of them ends.
    let _ = match part.ok_or("no such part")? {
        Part::Echo => echo(&link),
        Part::Source => source(&link),
        Part::Sink => sink(&link),
    };
    Ok(true)
}

/// A peer as main sees it. It ends when this is dropped.
struct Peer {
    link: Option<Link>,
    child: Child,
}

impl Peer {
    /// Starts peers for some parts, all of them before the first is let in.
    fn start<const N: usize>(parts: [Part; N], spin: Duration) -> Outcome<[Self; N]> {
        let mut started = Vec::new();
        for part in parts {
            let (server, door) = IpcOneShotServer::<Knock>::new()?;
            let spin = spin.as_nanos().to_string();
            let mut command = Command::new(env::current_exe()?);
            let command = command.args([MARKER, &door, &part.name(), &spin]);
            started.push((server, command.spawn()?));
        }
        let mut peers = Vec::new();
        for (server, child) in started {
            let (_, (sender, receiver)) = server.accept()?;
            let link = Some(Link {
                sender,
                receiver,
                spin,
            });
            peers.push(Self { link, child });
        }
        Ok(peers.try_into().unwrap_or_else(|_| unreachable!()))
    }

    fn link(&self) -> &Link {
        self.link.as_ref().expect("only dropping takes it")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.link = None;
        let _ = self.child.wait();
    }
}

/// What an echo makes of the number in a frame, so that nobody can guess it without having read it.
fn answer_to(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17)
}

fn echo(link: &Link) -> Outcome<()> {
    loop {
        let mut frame = link.receive()?;
        let number = number_at(&frame, 0)?;
        frame[8..16].copy_from_slice(&answer_to(number).to_le_bytes());
        link.send(&frame)?;
    }
}

fn number_at(frame: &[u8], place: usize) -> Outcome<u64> {
    let bytes = frame
        .get(place..place + 8)
        .ok_or("a frame that is too short")?;
    Ok(u64::from_le_bytes(bytes.try_into()?))
}

/// Two echoes, and main between them.
pub(crate) struct Echoes {
    peers: [Peer; 2],
    /// The number in the next frame.
    next: u64,
}

impl Echoes {
    pub(crate) fn start(spin: Duration) -> Outcome<Self> {
        Ok(Self {
            peers: Peer::start([Part::Echo, Part::Echo], spin)?,
            next: 0,
        })
    }

    fn ask(&mut self, peer: usize) -> Outcome<u64> {
        let mut frame = [0; FRAME];
        frame[..8].copy_from_slice(&self.next.to_le_bytes());
        self.peers[peer].link().send(&frame)?;
        self.next += 1;
        Ok(self.next - 1)
    }

    fn hear(&mut self, peer: usize, number: u64) -> Outcome<()> {
        let frame = self.peers[peer].link().receive()?;
        if frame.len() == FRAME && number_at(&frame, 8)? == answer_to(number) {
            return Ok(());
        }
        Err(format!("peer {peer} gave a wrong answer to frame {number}").into())
    }

    /// So many barriers: main sends a frame to both, and both answer.
    pub(crate) fn barriers(&mut self, count: u64) -> Outcome<u64> {
        for _ in 0..count {
            let numbers = [self.ask(0)?, self.ask(1)?];
            self.hear(0, numbers[0])?;
            self.hear(1, numbers[1])?;
        }
        Ok(count)
    }

    /// So many times around: main to the first and back, main to the second and back.
    pub(crate) fn relays(&mut self, count: u64) -> Outcome<u64> {
        for _ in 0..count {
            for peer in [0, 1] {
                let number = self.ask(peer)?;
                self.hear(peer, number)?;
            }
        }
        Ok(count)
    }
}

/// A mail as a cluster encodes it: whom it is from and for, its place in the order, its message.
#[derive(Serialize, Deserialize)]
struct Mail {
    sent_at: u64,
    rank: u64,
    sequence: u64,
    sender: u64,
    receiver: (u8, u64),
    arrives: u64,
    left: u64,
    body: (u8, u64),
}

/// The sum of the numbers from `first` on.
pub(crate) fn sum_from(first: u64, count: u64) -> u64 {
    (first..first + count).fold(0, u64::wrapping_add)
}

/// Makes a batch of mail on each demand, in as many frames as it takes.
fn source(link: &Link) -> Outcome<()> {
    loop {
        let demand = link.receive()?;
        let (first, count) = (number_at(&demand, 0)?, number_at(&demand, 8)?);
        let mut frame = vec![0; 8];
        let mut mails = 0_u64;
        for body in first..first + count {
            let mail = Mail {
                sent_at: 1_000_000 * (first / count),
                rank: 1,
                sequence: body,
                sender: 1,
                receiver: (0, 2 + body % 100),
                arrives: 0,
                left: 0,
                body: (1, body),
            };
            frame = postcard::to_extend(&mail, frame)?;
            mails += 1;
            if frame.len() >= FULL || body + 1 == first + count {
                frame[..8].copy_from_slice(&mails.to_le_bytes());
                link.send(&frame)?;
                frame.truncate(8);
                mails = 0;
            }
        }
    }
}

/// Reads frames of mail. Tells the sum of all bodies when it gets an empty frame.
fn sink(link: &Link) -> Outcome<()> {
    let mut sum = 0_u64;
    loop {
        let frame = link.receive()?;
        let (head, mut mails) = frame.split_at(8);
        for _ in 0..number_at(head, 0)? {
            let (mail, rest) = postcard::take_from_bytes::<Mail>(mails)?;
            sum = sum.wrapping_add(mail.body.1);
            mails = rest;
        }
        if !mails.is_empty() {
            return Err("bytes behind the last mail".into());
        }
        if frame.len() == 8 {
            link.send(&sum.to_le_bytes())?;
            sum = 0;
        }
    }
}

/// A source and a sink of mail, and main between them.
pub(crate) struct Pipe {
    peers: [Peer; 2],
    /// The number in the next mail.
    next: u64,
}

impl Pipe {
    pub(crate) fn start(spin: Duration) -> Outcome<Self> {
        Ok(Self {
            peers: Peer::start([Part::Source, Part::Sink], spin)?,
            next: 0,
        })
    }

    /// So many batches, one after the other: each is demanded, relayed, read and confirmed.
    pub(crate) fn batches(&mut self, count: u64, mails: u64) -> Outcome<u64> {
        let [source, sink] = self.peers.each_ref().map(Peer::link);
        for _ in 0..count {
            let demand = [self.next.to_le_bytes(), mails.to_le_bytes()].concat();
            source.send(&demand)?;
            let mut missing = mails;
            while missing > 0 {
                let frame = source.receive()?;
                missing -= number_at(&frame, 0)?.min(missing);
                sink.send(&frame)?;
            }
            sink.send(&0_u64.to_le_bytes())?;
            if number_at(&sink.receive()?, 0)? != sum_from(self.next, mails) {
                return Err("mail was lost between the bare peers".into());
            }
            self.next += mails;
        }
        Ok(count * mails)
    }
}
