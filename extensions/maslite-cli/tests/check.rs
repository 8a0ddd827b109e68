//! `maslite check` and `maslite marks`, run as a user at a terminal runs them. The programs that
//! are checked are this one, which then runs the test `model`.

use std::cell::Cell;
use std::collections::HashMap;
use std::process::Command;

use maslite_mp::comparison::checked;
use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Tick,
    Order { number: u64 },
    Ready { number: u64 },
}

thread_local! {
    static ORDERS: Cell<u64> = const { Cell::new(0) };
}

/// Orders something from the kitchen every second. One of them, at some time, does what no agent
/// should.
#[derive(Serialize, Deserialize)]
struct Guest {
    mistake: String,
    orders: HashMap<u64, u64>,
    #[serde(skip)]
    ticks: u64,
    counted: u64,
}

#[expect(
    clippy::disallowed_methods,
    reason = "it makes the mistake that is looked for"
)]
impl Guest {
    fn with(mistake: &str) -> Self {
        Self {
            mistake: mistake.to_owned(),
            orders: HashMap::new(),
            ticks: 0,
            counted: 0,
        }
    }

    fn order(&mut self, ctx: &mut Context<'_, Msg>) -> u64 {
        let is_due = ctx.now() >= SimTime::from_secs(5) && ctx.id() == AgentId::named("bob");
        let regular = ctx.now().as_nanos() / 1_000_000_000;
        if !is_due {
            return regular;
        }
        match &*self.mistake {
            "hash map" => {
                let walked = self.orders.keys();
                walked.fold(0, |all: u64, key| all.wrapping_mul(31).wrapping_add(*key))
            }
            "wall time" => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.subsec_nanos().into()),
            "random" => fastrand::u64(..),
            "thread local" => ORDERS.with(|orders| orders.replace(orders.get() + 1)),
            "skipped" => self.ticks,
            "panic" => panic!("no more food"),
            _ => regular,
        }
    }
}

impl Agent<Msg> for Guest {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        self.orders = (0..20).map(|key| (key, key)).collect();
        ctx.set_alarm(Alarm::every(SimDuration::from_secs(1)), Msg::Tick);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Tick => {
                self.ticks += 1;
                self.counted += 1;
                let number = self.order(ctx);
                if self.mistake == "thread local" {
                    ORDERS.with(|orders| orders.set(orders.get() + 1));
                }
                ctx.send("kitchen", Msg::Order { number });
            }
            Msg::Ready { .. } | Msg::Order { .. } => {}
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Kitchen;

impl Agent<Msg> for Kitchen {
    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if let Msg::Order { number } = mail.body {
            ctx.reply(Msg::Ready { number });
        }
    }
}

/// The folder for records.
const RECORD: &str = "MASLITE_TEST_RECORD";

const MISTAKE: &str = "MASLITE_TEST_MISTAKE";

/// The program that is checked.
#[test]
#[ignore = "it is run by the other tests, as a program"]
fn model() {
    let agents = Registry::new().with::<Guest>().with::<Kitchen>();
    let agents = agents.entered_by_test("model").enter();
    let mistake = std::env::var(MISTAKE).unwrap_or_default();
    let placement = match &*mistake {
        "none" | "thread local" => Placement::Processes,
        _ => Placement::Inline,
    };
    let settings = MpMain::builder(agents).seed(3).placement(placement);
    let settings = match &*mistake {
        "unchecked" => settings,
        _ => checked(settings).unwrap(),
    };
    let settings = match std::env::var_os(RECORD) {
        Some(folder) => settings.record(folder),
        None => settings,
    };
    let mut main = settings.build().unwrap();
    let clusters = [main.new_cluster(), main.new_cluster()];
    main.add_to(clusters[0], "kitchen", Kitchen).unwrap();
    for (number, name) in ["ada", "bob", "eve"].into_iter().enumerate() {
        let guest = Guest::with(&mistake);
        main.add_to(clusters[number % 2], name, guest).unwrap();
    }
    main.run(Run::until(SimTime::from_secs(30))).unwrap();
}

/// What `maslite check` says of the program with this mistake, and its exit code.
fn check(mistake: &str, options: &[&str]) -> (String, Option<i32>) {
    let this = std::env::current_exe().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_maslite"))
        .args(["check"])
        .args(options)
        .arg(this)
        .args(["--exact", "model", "--ignored"])
        .env(MISTAKE, mistake)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.code())
}

#[test]
fn a_model_that_follows_from_its_seed_is_the_same_in_every_way() {
    let expected = "as it is, again: 261 deliveries, all the same\n\
         in one cluster: 261 deliveries, all the same\n\
         in several clusters: 261 deliveries, all the same\n\
         with jitter: 261 deliveries, all the same\n\
         with amnesia: 261 deliveries, all the same\n";
    assert_eq!(check("none", &[]), (expected.to_owned(), Some(0)));
}

#[test]
fn the_agent_that_walks_a_hash_map_reads_the_wall_clock_or_draws_elsewhere_is_named() {
    for mistake in ["hash map", "wall time", "random"] {
        let (told, code) = check(mistake, &[]);
        let expected = "as it is, again: the runs differ\n\
             agent bob strayed first: a mail or an alarm of it is not in the other run\n\
             delivery 41 is the first that differs, at 5 s, superstep 1:\n";
        assert!(told.starts_with(expected), "{mistake}: {told}");
        let reasons = "usual reasons: a `HashMap` or `HashSet` that is walked, wall time";
        assert!(told.contains(reasons), "{mistake}: {told}");
        assert_eq!(code, Some(1));
    }
    let (told, _) = check("random", &["--json"]);
    let told: serde_json::Value = serde_json::from_str(told.lines().next().unwrap()).unwrap();
    assert_eq!(told["agent"], "bob");
    assert_eq!(told["t_ns"], 5_000_000_000_u64);
}

#[test]
fn what_depends_on_the_process_or_is_not_saved_is_found_in_another_way() {
    for (mistake, ways) in [("thread local", 1), ("skipped", 4)] {
        let (told, code) = check(mistake, &[]);
        assert_eq!(
            told.matches("all the same").count(),
            ways,
            "{mistake}: {told}"
        );
        assert!(
            told.contains("agent bob strayed first"),
            "{mistake}: {told}"
        );
        assert_eq!(code, Some(1), "{mistake}");
    }
}

#[test]
fn a_program_that_fails_the_same_way_each_time_is_told_of() {
    let (told, code) = check("panic", &[]);
    let expected = "as it is, again: 38 deliveries, all the same; both times the program ended with exit status: 101";
    assert!(told.starts_with(expected), "{told}");
    assert_eq!(code, Some(0));
}

#[test]
fn a_program_that_asks_for_no_check_is_told_how() {
    let (told, code) = check("unchecked", &[]);
    let expected = "maslite: the program ended without a simulation that can be checked: give its settings to \
         `maslite_mp::comparison::checked` before `build`";
    assert!(told.starts_with(expected), "{told}");
    assert_eq!(code, Some(2));
}

#[test]
fn a_recorded_cluster_is_replayed_alone() {
    let folder = std::env::temp_dir().join(format!("replay-{}", std::process::id()));
    let this = std::env::current_exe().unwrap();
    let mut program = Command::new(&this);
    program.args(["--exact", "model", "--ignored"]);
    program.env(MISTAKE, "none").env(RECORD, &folder);
    assert!(program.output().unwrap().status.success());
    let replay = |options: &[&str], mistake| {
        let output = Command::new(env!("CARGO_BIN_EXE_maslite"))
            .arg("replay")
            .arg(&folder)
            .args(options)
            .arg("--")
            .arg(&this)
            .args(["--exact", "model", "--ignored"])
            .env(MISTAKE, mistake)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        (text, output.status.code())
    };
    let (told, code) = replay(&["--cluster", "2", "--until", "5"], "none");
    assert!(
        told.starts_with("cluster 2 stands at 5 s, superstep "),
        "{told}"
    );
    assert!(
        told.ends_with(" messages of main, all with the recorded answers\n"),
        "{told}"
    );
    assert_eq!(code, Some(0));
    let (told, _) = replay(&["--cluster", "1"], "none");
    assert!(told.ends_with("answers; the record ends here\n"), "{told}");
    let (told, code) = replay(&["--cluster", "3"], "none");
    assert!(told.ends_with("has no record of cluster \"3\"; it has records of 1, 2\n"));
    assert_eq!(code, Some(1));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn files_of_marks_are_compared() {
    let marks = |mistake: &str| {
        let mut scheduler = Scheduler::builder().content_digest().build();
        scheduler.add("kitchen", Kitchen).unwrap();
        scheduler.add("bob", Guest::with(mistake)).unwrap();
        scheduler.run_until(SimTime::from_secs(30)).unwrap();
        let name = format!("check-{}-{mistake}.marks", std::process::id());
        let path = std::env::temp_dir().join(name);
        let json = serde_json::to_string(&scheduler.marks()).unwrap();
        std::fs::write(&path, json).unwrap();
        path
    };
    let (one, other) = (marks("none"), marks("random"));
    let compare = |one: &std::path::Path, other: &std::path::Path| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_maslite"));
        let output = program.arg("marks").args([one, other]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (text, output.status.code())
    };
    let (told, code) = compare(&one, &other);
    let expected =
        "the first difference is between 4.966055936 s and 5.033164799 s; the digests are ";
    assert!(told.starts_with(expected) && code == Some(1), "{told}");
    let (told, code) = compare(&one, &one);
    assert!(told.starts_with("all marks are the same") && code == Some(0));
    std::fs::write(&other, "{}").unwrap();
    assert_eq!(compare(&one, &other).1, Some(2));
    let _ = (std::fs::remove_file(one), std::fs::remove_file(other));
}
