//! Decoders of bytes that another process has written, for the fuzz targets in `fuzz/` and the test
//! that replays their corpus.
//!
//! No part of what this crate promises: it may change or go at any time.
//!
//! Each function tells how much it has understood, so that a corpus can be seen to reach what it
//! was made for.
//!
//! **Invariant:** whatever the bytes are, none of these functions panics, waits, or keeps more than
//! a small multiple of them.

mod snapshot;

use std::cell::Cell;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use maslite_core::{Run, SimDuration, SimTime};
use serde::{Deserialize, Serialize};

use crate::coordination::clusters::Clusters;
use crate::coordination::rounds::Rounds;
use crate::coordination::routing::Routing;
use crate::coordination::state::{Standing, UnderWay};
use crate::error::link::LinkError;
use crate::links::frame::{self, Framed, Packets};
use crate::links::ring;
use crate::links::transport::{Transport, Wait};
use crate::processes::spawn::handshake::{Invitation, NextOffer, Word as Said};
use crate::processes::supervision::Answer;
use crate::protocol::wire::{self, Task, ToProc};
use crate::steering::control::protocol::{self, Reply};

pub use snapshot::snapshot;

/// The clusters of the main process that [`to_main`] lies to.
const CLUSTERS: usize = 3;

/// Where that main process stands.
const NOON: SimTime = SimTime::from_millis(12);

/// A message with all that a model's may have.
#[derive(maslite_core::Message, Clone, Debug, Serialize, Deserialize)]
enum Word {
    Said(String),
    Counted { numbers: Vec<u64>, last: Option<i8> },
    Nothing,
}

/// Packets as a script has them. Each begins with a number (u16, little endian): its length, and
/// above that 1 if its checksum is to be put right, without which hardly anything got further.
struct Script<'a>(&'a [u8]);

/// The bit that has a checksum put right.
const SIGNED: u16 = 1 << 15;

impl Packets for Script<'_> {
    fn send(&mut self, _: &[u8]) -> Result<(), LinkError> {
        Ok(())
    }

    fn recv(&mut self, into: &mut Vec<u8>) -> Result<(), LinkError> {
        let (number, rest) = self.0.split_first_chunk().ok_or(LinkError::Disconnected)?;
        let number = u16::from_le_bytes(*number);
        let length = usize::from(number & !SIGNED).min(rest.len());
        let (packet, rest) = rest.split_at(length);
        into.clear();
        into.extend_from_slice(packet);
        if number & SIGNED != 0 {
            frame::sign(into);
        }
        self.0 = rest;
        Ok(())
    }

    fn try_recv(&mut self, into: &mut Vec<u8>) -> Result<bool, LinkError> {
        self.recv(into).map(|()| true)
    }
}

/// A link over a channel gets these packets, and answers every other message. Tells how many
/// messages arrived.
///
/// # Panics
/// If the link is wrong: more arrives than was sent, or something after it refused a frame.
#[must_use]
pub fn channel(bytes: &[u8]) -> usize {
    let mut link = Framed::new(Script(bytes), frame::FRAME_LIMIT, Wait::default());
    let (mut messages, mut total) = (0, 0);
    loop {
        match link.recv() {
            Ok(message) => {
                messages += 1;
                total += message.len();
            }
            Err(LinkError::BadFrame { .. }) => {
                assert!(matches!(link.recv(), Err(LinkError::Disconnected)));
                assert!(matches!(link.say(b"x"), Err(LinkError::Disconnected)));
                break;
            }
            Err(_) => break,
        }
        if messages % 2 == 0 && link.say(b"an answer").is_err() {
            break;
        }
    }
    assert!(total <= bytes.len(), "{total} bytes of {}", bytes.len());
    messages
}

/// A word of shared memory in which the peer has written something.
struct Forged(Cell<u32>);

impl ring::protocol::Word for Forged {
    fn load(&self) -> u32 {
        self.0.get()
    }

    fn store(&self, _: u32) {}

    fn swap(&self, _: u32) -> u32 {
        self.0.get()
    }

    fn fence() {}

    fn sleep_at(&self, _: u32) {}

    fn wake(&self) {}
}

/// A ring holds these bytes, the first four of which are the indices that the peer claims. Tells
/// how many frames are good.
///
/// # Panics
/// If an index is believed that cannot be, or a frame that is not there.
#[must_use]
pub fn ring(bytes: &[u8]) -> usize {
    const CAPACITY: u32 = 1 << 12;
    let Some((index, frames)) = bytes.split_first_chunk() else {
        return 0;
    };
    let forged = Forged(Cell::new(u32::from_le_bytes(*index)));
    let start = u32::MAX - 100;
    let mut reader = ring::protocol::Reader::new(CAPACITY, start);
    if let Ok(there) = reader.look(&forged) {
        assert!(there <= CAPACITY as usize);
        reader.release(there, &Forged(Cell::new(0)));
    }
    let mut writer = ring::protocol::Writer::new(CAPACITY, start);
    if let Ok(free) = writer.look(&forged) {
        assert!(free <= CAPACITY as usize);
        writer.publish(free, &Forged(Cell::new(0)));
    }
    ring::well_formed(frames)
}

/// A control line brings these bytes, behind the first, which says what is expected: an invitation,
/// a Hello, a connect request, or answers to questions. Tells how many of them were understood.
#[must_use]
pub fn handshake(bytes: &[u8]) -> usize {
    /// What a socket takes at once.
    const ROOM: usize = 32 * 1024;
    let Some((what, rest)) = bytes.split_first() else {
        return 0;
    };
    let rest = &rest[..rest.len().min(ROOM)];
    if what % 4 == 3 {
        let mut arrived = rest.to_vec();
        return std::iter::from_fn(|| Answer::take(&mut arrived)).count();
    }
    let Ok((peer, control)) = UnixStream::pair() else {
        return 0;
    };
    let sent = (&peer).write_all(rest);
    if sent.and_then(|()| peer.shutdown(Shutdown::Write)).is_err() {
        return 0;
    }
    let understood = match what % 4 {
        0 => Invitation::read(&control).is_ok(),
        1 => matches!(Said::take(&control, &mut Vec::new()), Ok(Some(_))),
        _ => NextOffer::read(&control).is_ok(),
    };
    usize::from(understood)
}

/// A cluster sends main these bytes behind the first, which says which cluster it is, and what it
/// was granted. Tells whether main has taken in a report.
#[must_use]
pub fn to_main(bytes: &[u8]) -> bool {
    let Some((head, message)) = bytes.split_first() else {
        return false;
    };
    let Ok(mut clusters) = Clusters::unmanned(CLUSTERS) else {
        return false;
    };
    let (mut routing, mut standing) = (Routing::default(), Standing::default());
    for _ in 0..CLUSTERS {
        routing.add_cluster();
        standing.reports.push(None);
        standing.owed.push(None);
        standing.forecasts.push(Default::default());
    }
    standing.time = NOON;
    let mut under_way = UnderWay::<Word>::default();
    let (mut trace, run) = (None, Run::until_idle());
    let mut rounds = Rounds::new(
        &mut clusters,
        &mut routing,
        &mut standing,
        &mut under_way,
        &mut trace,
        |_, _| {},
        run,
    );
    let task = match head / 3 % 8 {
        0 => Task::Setup {
            stop_at_error: false,
        },
        1 => Task::Rematch,
        2 => Task::Post,
        3 => Task::SuperstepIfAwake,
        4 => Task::FireAndSuperstep,
        5 => Task::Answer,
        6 => Task::RunAlone {
            horizon: None,
            supersteps: 1,
            next_index: 0,
        },
        _ => Task::Window {
            horizon: None,
            others: None,
        },
    };
    if matches!(task, Task::Window { .. }) {
        rounds.lookaheads = vec![SimDuration::from_millis(1); CLUSTERS];
    }
    let place = usize::from(*head) % CLUSTERS;
    rounds.read_report(place, task, message).is_ok() && rounds.failure.is_none()
}

/// Main sends a cluster these bytes. Tells how many mails came with a grant, or one for anything
/// else that was understood.
#[must_use]
pub fn to_cluster(bytes: &[u8]) -> usize {
    match wire::take_note::<ToProc>(bytes) {
        Ok((ToProc::Grant(_), mut mail)) => {
            std::iter::from_fn(|| wire::take_mail::<Word>(&mut mail).ok()).count()
        }
        Ok(_) => 1,
        Err(_) => 0,
    }
}

/// A client of the control socket sends these bytes. Tells how many requests were understood.
///
/// # Panics
/// If a refusal is not one line, or an answer cannot be written.
#[must_use]
pub fn control(bytes: &[u8]) -> usize {
    let mut understood = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let reply = match protocol::read(line) {
            Ok(_) => {
                understood += 1;
                Reply::Done
            }
            Err(message) => Reply::Refused { message },
        };
        let answer = protocol::write(reply);
        let ends = answer.iter().filter(|byte| **byte == b'\n').count();
        assert!(ends == 1 && answer.ends_with(b"\n"), "an answer is a line");
    }
    understood
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;
    use std::path::Path;

    use maslite_core::internal::MailKey;
    use maslite_core::{AgentId, Counters, Pattern, Receiver};

    use super::*;
    use crate::links::transport::{Draft, DraftBuffer};
    use crate::processes::spawn::handshake::Hello;
    use crate::protocol::wire::{
        Batch, Call, Destination, Events, Fault, Grant, Loaded, MailHead, News, Removal, Report,
        Settings, ToMain,
    };
    use crate::stall::detector::ClusterActivity;
    use crate::steering::control::protocol::{Question, Request};

    fn packet(kind: u8, sequence: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![kind];
        packet.extend(sequence.to_le_bytes());
        packet.extend(ack.to_le_bytes());
        packet.extend([0; 4]);
        packet.extend(payload);
        let length = u16::try_from(packet.len()).unwrap() | SIGNED;
        [&length.to_le_bytes()[..], &packet].concat()
    }

    fn frame(kind: u32, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
        frame.extend(kind.to_le_bytes());
        frame.extend(sequence.to_le_bytes());
        frame.extend(payload);
        frame
    }

    /// Bytes as they go through a control line.
    fn written(what: u8, write: impl FnOnce(&UnixStream) -> std::io::Result<()>) -> Vec<u8> {
        let (main, mut child) = UnixStream::pair().unwrap();
        write(&main).unwrap();
        drop(main);
        let mut bytes = vec![what];
        std::io::Read::read_to_end(&mut child, &mut bytes).unwrap();
        bytes
    }

    /// All kinds of receivers.
    const ALL: [Receiver; 3] = [
        Receiver::Agent(AgentId::from_u64(7)),
        Receiver::Direct(AgentId::MAIN),
        Receiver::Subscribers,
    ];

    fn mails(receivers: [Receiver; 3], arrives: SimTime) -> Vec<u8> {
        let mut bytes = Vec::new();
        let words = [
            Word::Said("hello".to_owned()),
            Word::Counted {
                numbers: vec![1, 300, u64::MAX],
                last: Some(-1),
            },
            Word::Nothing,
        ];
        for ((word, receiver), sequence) in words.iter().zip(receivers).zip(0..) {
            let head = MailHead {
                key: MailKey::of_agent(NOON, 3, sequence),
                sender: AgentId::from(4),
                receiver,
                arrives,
                left: arrives,
                is_copy: false,
            };
            wire::put_mail(&head, word, &mut bytes).unwrap();
        }
        bytes
    }

    fn message(before: &[u8], note: &impl Serialize) -> Vec<u8> {
        let mut draft_buffer = DraftBuffer::default();
        let mut draft = Draft::in_buffer(&mut draft_buffer);
        draft.extend(before);
        wire::put_note(note, &mut draft).unwrap();
        draft_buffer.into_bytes()
    }

    /// A report with mail for another cluster, for main, and for the cluster that its receiver is
    /// in.
    fn report(events: Events) -> Vec<u8> {
        let mail = mails(ALL, SimTime::ZERO);
        let to_main = mails([Receiver::Agent(AgentId::MAIN); 3], SimTime::ZERO);
        let mut single = Vec::new();
        let head = MailHead {
            key: MailKey::of_agent(NOON, 3, 9),
            sender: AgentId::from(4),
            receiver: Receiver::Agent(AgentId::from(8)),
            arrives: SimTime::ZERO,
            left: SimTime::ZERO,
            is_copy: false,
        };
        wire::put_mail(&head, &Word::Nothing, &mut single).unwrap();
        let (all, own, one) = (mail.len(), to_main.len(), single.len());
        let number = |number: usize| u32::try_from(number).unwrap();
        let batch = |to, mails, start, bytes| Batch {
            to,
            mails,
            start: number(start),
            bytes: number(bytes),
            earliest: SimTime::ZERO,
        };
        let report = Report {
            time: NOON,
            superstep: 2,
            supersteps: 1,
            awake: true,
            waiting: false,
            next_alarm: Some(SimTime::from_millis(13)),
            alarms_may_leave: false,
            kept_awake: false,
            ahead: crate::protocol::rare::Rare::default(),
            events: events.into(),
            counters: Counters::default(),
            held_back: 0,
            held_back_to_main: 0,
            busy: 5_000,
            awake_last: 2,
            local: 5,
            digest: Some(7),
            content: None,
            batches: [
                batch(Destination::Cluster(1), 3, 0, all),
                batch(Destination::Main, 3, all, own),
                batch(Destination::Owner, 1, all + own, one),
            ]
            .into_iter()
            .collect(),
            trace: 0,
        };
        let before = [&mail[..], &to_main, &single].concat();
        let note = ToMain::Report(report);
        [&[9], &message(&before, &note)[..]].concat()
    }

    /// All that can be asked.
    fn requests() -> Vec<u8> {
        let requests = [
            Request::Status,
            Request::Pause,
            Request::Step { supersteps: 3 },
            Request::StepInstant,
            Request::RunUntil { time: NOON },
            Request::Resume,
            Request::Stop,
            Request::Agents { from: 2, limit: 10 },
            Request::Agent {
                id: "crane".to_owned(),
            },
        ];
        let lines = requests.map(|request| {
            let version = protocol::VERSION;
            let mut line = serde_json::to_vec(&Question { version, request }).unwrap();
            line.push(b'\n');
            line
        });
        lines.concat()
    }

    /// A seed: the target that it is for, its name, and its bytes.
    type Seed = (&'static str, &'static str, Vec<u8>);

    /// What the corpus begins with: bytes that are understood to their end.
    fn seeds() -> Vec<Seed> {
        [
            seeds_of_links(),
            seeds_of_handshakes(),
            seeds_to_main(),
            seeds_to_clusters(),
            seeds_of_the_control_socket(),
            seeds_of_snapshots(),
        ]
        .concat()
    }

    fn seeds_of_links() -> Vec<Seed> {
        let conversation = [
            packet(1, 0, 0, b"a long "),
            packet(2, 1, 0, b"message"),
            packet(2, 2, 0, b"a short one"),
            packet(3, 3, 1, b""),
            packet(2, 3, 1, b""),
        ];
        let frames = [
            &(u32::MAX - 50).to_le_bytes()[..],
            &frame(1, 0, b"a long "),
            &frame(2, 1, b"message"),
            &frame(2, 2, b""),
        ];
        vec![
            ("channel", "conversation", conversation.concat()),
            ("channel", "out_of_order", packet(2, 1, 0, b"x")),
            ("ring", "frames", frames.concat()),
            ("ring", "false_index", 7_u32.to_le_bytes().to_vec()),
        ]
    }

    fn seeds_of_handshakes() -> Vec<Seed> {
        let invitation = Invitation {
            cluster: 1,
            nonce: [7; 16],
            kind: 0,
            place: "src/main.rs:3:5".to_owned(),
            call: 1,
            schema: 0x5CED,
            by_test: false,
            directory: Some(b"/home".to_vec()),
        };
        let hello = Hello::new(&invitation, 0x5CED, Some("no room".to_owned()));
        let hello = Said::Hello(hello);
        let mut answer = vec![3];
        Answer::write(&ClusterActivity::default(), &mut answer).unwrap();
        let invitation = written(0, |main| invitation.write(main, None));
        let hello = written(1, |main| hello.write(main));
        let request = written(2, |main| NextOffer(1).write(main, main.as_fd()));
        vec![
            ("handshake", "invitation", invitation),
            ("handshake", "hello", hello),
            ("handshake", "next_offer", request),
            ("handshake", "answer", answer),
        ]
    }

    fn seeds_to_main() -> Vec<Seed> {
        let events = Events {
            names: vec!["crane".to_owned()],
            interest: vec![(Pattern::sender(4), true, NOON)],
            removals: vec![Removal {
                id: AgentId::from(5),
                by: AgentId::from(4),
                index: 2,
                time: NOON,
            }],
            reply: vec![1, 2, 3],
            interrupted_at: 4,
            ..Events::default()
        };
        let loaded = ToMain::Loaded(vec![Loaded {
            ids: vec![AgentId::from(1), AgentId::from(2)],
            names: Vec::new(),
        }]);
        let failed = ToMain::Failed(Fault::Decode {
            what: "mail".to_owned(),
            why: "it ends".to_owned(),
        });
        vec![
            ("to_main", "a report", report(Events::default())),
            ("to_main", "a report with events", report(events)),
            ("to_main", "loaded", message(&[0], &loaded)),
            ("to_main", "failed", message(&[0], &failed)),
        ]
    }

    fn grant(task: Task) -> ToProc {
        ToProc::Grant(Grant {
            number: 3,
            time: NOON,
            superstep: 1,
            task,
            supersteps_per_instant: 1_000,
            news: News {
                routes: vec![(AgentId::from(9), 2)],
                numbers: vec![4, 5],
                ..News::default()
            }
            .into(),
        })
    }

    fn seeds_to_clusters() -> Vec<Seed> {
        let step = grant(Task::SuperstepIfAwake);
        let solo = grant(Task::RunAlone {
            horizon: Some(NOON),
            supersteps: 10,
            next_index: 4,
        });
        let window = grant(Task::Window {
            horizon: None,
            others: None,
        });
        let settings = ToProc::Settings(Settings {
            seed: 1,
            digest: true,
            content: false,
            trace: false,
            window: None,
            wait: Wait::default(),
            jitter: None,
            lookahead: None,
            amnesia: None,
            speculates: false,
            forecasts: false,
        });
        let load = ToProc::Load(vec![
            Call::Add {
                id: AgentId::from(1),
                name: None,
                kind: "Crane".to_owned(),
                state: vec![1, 2],
            },
            Call::Build {
                builder: "yard".to_owned(),
                config: vec![3],
            },
        ]);
        let (now, at_noon) = (mails(ALL, SimTime::ZERO), mails(ALL, NOON));
        vec![
            ("to_cluster", "step", message(&now, &step)),
            ("to_cluster", "solo", message(&[], &solo)),
            ("to_cluster", "window", message(&at_noon, &window)),
            ("to_cluster", "settings", message(&[], &settings)),
            ("to_cluster", "load", message(&[], &load)),
        ]
    }

    fn seeds_of_the_control_socket() -> Vec<Seed> {
        let other_version = b"{\"version\":1,\"request\":\"pause\"}\n";
        vec![
            ("control", "requests", requests()),
            ("control", "other_version", other_version.to_vec()),
        ]
    }

    fn seeds_of_snapshots() -> Vec<Seed> {
        let seeds = snapshot::tests::seeds().into_iter();
        seeds
            .map(|(name, bytes)| ("snapshot", name, bytes))
            .collect()
    }

    #[test]
    fn seeds_are_understood() {
        for (target, name, bytes) in seeds() {
            let understood = match target {
                "channel" => channel(&bytes),
                "ring" => ring(&bytes),
                "handshake" => handshake(&bytes),
                "to_main" => usize::from(to_main(&bytes)),
                "control" => control(&bytes),
                "snapshot" => snapshot(&bytes),
                _ => to_cluster(&bytes),
            };
            let expected = match name {
                "conversation" | "frames" | "step" | "window" => 3,
                "requests" => 9,
                "whole" => 4,
                "file_of_cluster" | "cluster" | "lookahead" => 2,
                "other_version" | "out_of_order" | "false_index" | "loaded" | "failed" | "solo"
                | "cut" => 0,
                _ => 1,
            };
            assert_eq!(understood, expected, "{target}/{name}");
        }
    }

    /// After a change of what crosses a link.
    #[test]
    #[ignore = "writes the beginning of the corpus anew"]
    fn write_seeds() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (target, name, bytes) in seeds() {
            let folder = corpus.join(target);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
}
