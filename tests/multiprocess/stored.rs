//! Snapshots that earlier builds have written, and that lie among these tests: today's build goes on
//! from each, and refuses one of a later format by the number of that.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use maslite_mp::SnapshotError;
use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

use crate::saving::Folder;
use crate::test_placement::{ALL, PlacedOn, TestPlacement};

/// The version of the format that this build writes. It reads those before it, too.
const TODAY: u32 = 2;

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Tick,
    Load { boxes: u32, note: Option<String> },
    Full(f64),
}

/// Has all that a snapshot keeps of an agent: random numbers, a periodic alarm, a subscription.
#[derive(Serialize, Deserialize)]
struct Crane {
    loads: Vec<u32>,
    alarm: Option<AlarmId>,
}

impl Agent<Msg> for Crane {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.subscribe(Pattern::topic("Full"));
        self.alarm = Some(ctx.set_alarm(Alarm::every(SimDuration::from_secs(7)), Msg::Tick));
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Tick => {
                let boxes = ctx.rng().random_range(1..9_u32);
                self.loads.push(boxes);
                let note = (boxes > 6).then(|| "heavy".to_owned());
                ctx.send("ship", Msg::Load { boxes, note });
            }
            Msg::Full(_) => {
                if let Some(alarm) = self.alarm.take() {
                    ctx.clear_alarm(alarm);
                }
            }
            Msg::Load { .. } => ctx.send(AgentId::MAIN, mail.body),
        }
    }
}

/// Has pilots that come and go.
#[derive(Serialize, Deserialize)]
struct Ship {
    boxes: u32,
    pilots: u64,
}

impl Agent<Msg> for Ship {
    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if let Msg::Load { boxes, .. } = mail.body {
            self.boxes += boxes;
            self.pilots += 1;
            ctx.add(100 + self.pilots, Pilot);
            if self.boxes > 120 {
                ctx.broadcast(Msg::Full(f64::from(self.boxes) / 120.0));
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Pilot;

impl Agent<Msg> for Pilot {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.alarm_in(SimDuration::from_secs(10), Msg::Tick);
    }

    fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        ctx.remove(ctx.id());
    }
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Crane>()
        .with::<Ship>()
        .with::<Pilot>()
        .entered_by_test("stored::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// Where the lines of a trace go.
fn sink(lines: &Arc<Mutex<Vec<String>>>) -> impl FnMut(&str) + Send + 'static {
    let lines = Arc::clone(lines);
    move |line| lines.lock().unwrap().push(line.to_owned())
}

/// The simulation up to the moment at which it was saved.
fn harbour(lines: &Arc<Mutex<Vec<String>>>) -> MpMain<Msg> {
    let settings = MpMain::builder(agents()).on(TestPlacement::Inline).seed(19);
    let mut main = settings.digest().trace(sink(lines)).build().unwrap();
    let [quay, sea] = [main.new_cluster(), main.new_cluster()];
    for name in ["north", "south"] {
        let crane = Crane {
            loads: Vec::new(),
            alarm: None,
        };
        main.add_to(quay, name, crane).unwrap();
    }
    let ship = Ship {
        boxes: 0,
        pilots: 0,
    };
    main.add_to(sea, "ship", ship).unwrap();
    main.run_until(SimTime::from_secs(30)).unwrap();
    let (boxes, note) = (3, Some("by hand".to_owned()));
    main.send("north", Msg::Load { boxes, note });
    main
}

fn folder(version: u32) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join(format!("tests/multiprocess/stored/version-{version}"))
}

/// After a change of the format, which also gets another number.
#[test]
#[ignore = "writes the snapshot of today's format"]
fn write_it() {
    harbour(&Arc::default()).save(folder(TODAY)).unwrap();
}

const DELIVERIES: u64 = 69;
const SUM: &str = "5ff02c3acaaebefb";
const STATE: &str = "0fe6d898c5151556";
const LAST: [&str; 3] = [
    r#"{"t_ns":101000000000,"superstep":0,"to":126,"from":126,"receiver":126,"topic":"Tick"}"#,
    r#"{"t_ns":108000000000,"superstep":0,"to":127,"from":127,"receiver":127,"topic":"Tick"}"#,
    r#"{"t_ns":108000000000,"superstep":0,"to":128,"from":128,"receiver":128,"topic":"Tick"}"#,
];

/// What the rest of the simulation has come to: its deliveries, digest, and the last of its trace.
fn assert_rest(report: &Report, lines: &Mutex<Vec<String>>) {
    let lines = lines.lock().unwrap();
    assert_eq!(report.counters.delivered, DELIVERIES);
    assert_eq!(lines.len() as u64, DELIVERIES);
    assert_eq!(report.digest.unwrap().to_string(), SUM);
    assert_eq!(lines[lines.len() - LAST.len()..], LAST);
}

#[test]
fn each_stored_snapshot_goes_on_in_every_placement() {
    (1..=TODAY).for_each(goes_on_in_every_placement);
}

fn goes_on_in_every_placement(version: u32) {
    let open = || Restore::open(folder(version)).unwrap();
    assert!(open().left_out().is_empty());
    assert_eq!(open().now(), SimTime::from_secs(30));
    assert_eq!(open().state_digest().to_string(), STATE);
    let run = || Run::until(SimTime::from_secs(120));
    // As it goes on if it is not saved.
    let lines = Arc::default();
    let mut main = harbour(&lines);
    lines.lock().unwrap().clear();
    assert_rest(&main.run(run()).unwrap().run, &lines);
    for placement in ALL {
        for divided in [false, true] {
            let lines = Arc::default();
            let settings = MpMain::builder(agents()).on(placement).trace(sink(&lines));
            let restore = match divided {
                false => open(),
                true => open().into_clusters(3, |agent| agent.spread_over(3)),
            };
            let mut main = restore.start(settings).unwrap();
            assert_eq!(main.state_digest().unwrap().to_string(), STATE);
            let report = main.run(run()).unwrap();
            assert_rest(&report.run, &lines);
        }
    }
    let lines = Arc::default();
    let mut write = sink(&lines);
    let observer: maslite_mp::core::Observer<Msg> = Box::new(move |delivery| {
        let mut line = String::new();
        delivery.write_json(&mut line);
        write(&line);
    });
    let settings = Scheduler::builder().observe(observer);
    let mut alone = open().alone(settings, &agents()).unwrap();
    assert_rest(&alone.run(run()).unwrap(), &lines);
}

/// The checksum of IEEE 802.3, bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1));
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc))
    });
    !crc
}

#[test]
fn a_snapshot_of_a_format_to_come_is_refused_by_its_number() {
    let copy = Folder::new("to-come");
    let path = copy.at("it");
    std::fs::create_dir_all(&path).unwrap();
    for name in ["head", "cluster-0", "cluster-1"] {
        let mut bytes = std::fs::read(folder(TODAY).join(name)).unwrap();
        // Its checksum is right, as that of a later program is.
        bytes[12..16].copy_from_slice(&(TODAY + 1).to_le_bytes());
        let crc = crc(&bytes[..16]);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(path.join(name), bytes).unwrap();
    }
    let errors = [
        Restore::open(&path).map(|_| ()),
        Restore::latest(copy.at("")).map(|_| ()),
    ];
    for error in errors {
        let Err(Error::Snapshot(error @ SnapshotError::Format { .. })) = error else {
            panic!("{error:?}");
        };
        let expected = format!(
            "{} cannot be read: its format is version {}, and this program reads versions 1 to {TODAY}: \
             restore it with the program that wrote it",
            path.join("head").display(),
            TODAY + 1
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_snapshot_of_a_type_with_other_fields_is_refused_by_the_name_of_the_type() {
    let copy = Folder::new("other-shape");
    let path = copy.at("it");
    std::fs::create_dir_all(&path).unwrap();
    for name in ["head", "cluster-0", "cluster-1"] {
        std::fs::copy(folder(TODAY).join(name), path.join(name)).unwrap();
    }
    // The number of its fields stands behind its name, and the checksum of the one block before it.
    let mut head = std::fs::read(path.join("head")).unwrap();
    let name = b"multiprocess::stored::Ship";
    let place = head.windows(name.len()).position(|part| part == name);
    head[place.unwrap() + name.len()] ^= 1;
    let length = u32::from_le_bytes(head[20..24].try_into().unwrap()) as usize;
    let crc = crc(&[&[0; 4], &head[28..28 + length]].concat());
    head[24..28].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(path.join("head"), head).unwrap();
    let Err(Error::Snapshot(error)) = Restore::open(&path).unwrap().start(agents()) else {
        panic!("it is refused");
    };
    assert!(matches!(error, SnapshotError::OtherShape { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        format!(
            "the snapshot at {} was written when multiprocess::stored::Ship had other fields or \
             variants: restore it with the program that wrote it",
            path.display()
        )
    );
}
