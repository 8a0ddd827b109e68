//! A cluster whose process dies is dropped, and the run goes on without it.

use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use maslite_mp::prelude::*;
use maslite_mp::{ControlError, Dropped, Error, ExitKind, Output, RunState, Warning};
use serde::{Deserialize, Serialize};

use crate::test_placement::{PROCESSES, PlacedOn, TestPlacement};
use crate::workers::kill;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Message)]
enum Msg {
    Tick,
    /// What the shop wants, day by day.
    Order(u64),
    Bread(u64),
    /// For those who listen to it.
    News(u64),
}

const DAY: SimDuration = SimDuration::from_millis(1);

/// Tells the baker, main and all listeners each day.
#[derive(Serialize, Deserialize)]
struct Shop {
    day: u64,
    days: u64,
}

impl Agent<Msg> for Shop {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.alarm_in(DAY, Msg::Tick);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if mail.body == Msg::Tick {
            self.day += 1;
            ctx.send("baker", Msg::Order(self.day));
            ctx.broadcast(Msg::News(self.day));
            ctx.send(AgentId::MAIN, Msg::Order(self.day));
            if self.day < self.days {
                ctx.alarm_in(DAY, Msg::Tick);
            }
        }
    }
}

/// Exits at the order of a day.
#[derive(Serialize, Deserialize)]
struct Baker {
    last: u64,
}

impl Agent<Msg> for Baker {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.set_alarm(Alarm::every(SimDuration::from_millis(100)), Msg::Tick);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if let Msg::Order(day) = mail.body {
            if day == self.last {
                eprint!("the oven is burning");
                std::process::exit(7);
            }
            if day == 1 {
                ctx.add("apprentice", Reader);
            }
            ctx.send("shop", Msg::Bread(day));
        }
    }

    fn command(&mut self, request: Msg) -> Result<Msg, Refusal> {
        if request == Msg::Order(0) {
            std::process::exit(8);
        }
        Ok(request)
    }
}

/// Listens to the news.
#[derive(Serialize, Deserialize)]
struct Reader;

impl Agent<Msg> for Reader {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.subscribe(Pattern::topic("News"));
    }
}

/// Sends to the baker what it gets.
#[derive(Serialize, Deserialize)]
struct Miller;

impl Agent<Msg> for Miller {
    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        ctx.send("baker", mail.body);
    }
}

fn agents() -> Entered<Msg> {
    let registry = Registry::new().with::<Shop>().with::<Baker>();
    let registry = registry.with::<Reader>().with::<Miller>();
    registry.entered_by_test("dropping::child").enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// A town: the shop and a reader in the north, the baker and a reader in the south.
struct Town {
    main: MpMain<Msg>,
    north: ClusterId,
    south: ClusterId,
    lines: Arc<Mutex<Vec<String>>>,
    warnings: mpsc::Receiver<Warning>,
}

/// A delivery in few words: the time \[µs\], the superstep, to whom, about what.
fn in_short(line: &str) -> String {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let time = line["t_ns"].as_u64().unwrap() / 1_000;
    let [to, topic] = ["to", "topic"].map(|part| line[part].as_str().unwrap());
    format!("{time} {} {to} {topic}", line["superstep"])
}

/// The baker exits at the order of this day.
fn town(placement: TestPlacement, lookahead: SimDuration, last: u64) -> Town {
    let settings = MpMain::builder(agents()).on(placement);
    let settings = settings.output(Output::Null).lookahead(lookahead);
    town_with(settings.recovery(Recovery::drop_cluster()), last)
}

fn town_with(settings: MpMainBuilder<Msg>, last: u64) -> Town {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&lines);
    let (warn, warnings) = mpsc::channel();
    let settings = settings.warnings(move |warning| drop(warn.send(warning.clone())));
    let settings = settings.trace(move |line| written.lock().unwrap().push(in_short(line)));
    let mut main = settings.digest().build().unwrap();
    let north = main.new_cluster_named("north").unwrap();
    let south = main.new_cluster_named("south").unwrap();
    main.add_to(north, "shop", Shop { day: 0, days: 5 })
        .unwrap();
    main.add_to(north, "reader", Reader).unwrap();
    main.add_to(south, "baker", Baker { last }).unwrap();
    main.add_to(south, "commuter", Reader).unwrap();
    Town {
        main,
        north,
        south,
        lines,
        warnings,
    }
}

impl Town {
    /// Runs until a time. Returns what main heard, too.
    fn run(&mut self, until_ms: u64) -> (MpReport, Vec<Msg>) {
        let mut heard = Vec::new();
        let hear = |mail: Mail<Msg>, _: &mut MainContext<Msg>| heard.push(mail.body);
        let run = Run::until(SimTime::from_millis(until_ms));
        let report = self.main.run_with(run, hear).unwrap();
        (report, heard)
    }

    fn trace(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

/// Checks that the report tells that the south was dropped, and returns what it tells.
fn check_report(report: &MpReport, exit: ExitKind) -> Dropped {
    let [dropped] = &*report.dropped else {
        panic!("{:?}", report.dropped);
    };
    assert_eq!(dropped.cluster, "south");
    assert_eq!(dropped.death.exit, exit);
    let it = report.total;
    assert_eq!(it.sent, it.delivered + it.undeliverable + it.queued);
    assert_eq!((report.digest, report.clusters[1].link), (None, None));
    assert_eq!(report.clusters[1].total.agents, 0);
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    let told = &json["dropped"][0];
    assert_eq!(told["cluster"], "south");
    assert_eq!(told["time_ns"], dropped.time.as_nanos());
    assert_eq!(told["death"], dropped.death.to_string());
    assert!(json["digest"].is_null() && json["recoveries"].is_null());
    dropped.clone()
}

fn lost(report: &MpReport) -> Vec<String> {
    report.lost.iter().map(ToString::to_string).collect()
}

/// What the shop and the baker do before the baker dies.
const TWO_DAYS: [&str; 14] = [
    "1000 0 shop Tick",
    "1000 1 main Order",
    "1000 1 reader News",
    "1000 1 baker Order",
    "1000 1 commuter News",
    "1000 2 shop Bread",
    "2000 0 shop Tick",
    "2000 1 main Order",
    "2000 1 reader News",
    "2000 1 baker Order",
    "2000 1 commuter News",
    "2000 1 apprentice News",
    "2000 2 shop Bread",
    "3000 0 shop Tick",
];

#[test]
fn a_cluster_that_dies_is_dropped_and_the_others_go_on() {
    for placement in PROCESSES {
        let mut town = town(placement, SimDuration::ZERO, 3);
        let (report, heard) = town.run(50);
        let dropped = check_report(&report, ExitKind::Code(7));
        let alone = [
            "3000 1 main Order",
            "3000 1 reader News",
            "4000 0 shop Tick",
            "4000 1 main Order",
            "4000 1 reader News",
            "5000 0 shop Tick",
            "5000 1 main Order",
            "5000 1 reader News",
        ];
        let whole: Vec<&str> = TWO_DAYS.into_iter().chain(alone).collect();
        assert_eq!(town.trace(), whole);
        assert_eq!(heard, [1, 2, 3, 4, 5].map(Msg::Order));
        let Counters {
            sent,
            delivered,
            undeliverable,
            alarms_pending,
            agents,
            ..
        } = report.total;
        assert_eq!((sent, delivered, undeliverable), (25, 22, 3));
        assert_eq!((alarms_pending, agents), (0, 2));
        assert_eq!(
            lost(&report),
            [3, 4, 5].map(|day| format!("Order from shop to baker at 0.00{day} s"))
        );
        let warning = town.warnings.recv().unwrap();
        assert_eq!(warning, Warning::Dropped(dropped.clone()));
        let pid = dropped.death.pid;
        assert_eq!(
            warning.to_string(),
            format!(
                "at 0.003 s the process of cluster south (pid {pid}) exited with code 7; its last output: \
                 \"the oven is burning\"; an agent has probably called \
                 `std::process::exit`, which agents must not call; the cluster was dropped"
            )
        );
        assert_eq!(town.main.shutdown().ends.len(), 1);
    }
}

#[test]
fn so_it_is_under_a_lookahead() {
    for placement in PROCESSES {
        let mut town = town(placement, SimDuration::from_micros(200), 3);
        let (report, heard) = town.run(50);
        let dropped = check_report(&report, ExitKind::Code(7));
        assert!(dropped.time <= SimTime::from_micros(3_200), "{dropped}");
        let trace = town.trace();
        let whole = [
            "1000 0 shop Tick",
            "1000 1 reader News",
            "1200 0 main Order",
            "1200 0 baker Order",
            "1200 0 commuter News",
            "1400 0 shop Bread",
            "2000 0 shop Tick",
            "2000 1 reader News",
            "2200 0 main Order",
            "2200 0 baker Order",
            "2200 0 commuter News",
            "2200 0 apprentice News",
            "2400 0 shop Bread",
            "3000 0 shop Tick",
            "3000 1 reader News",
            "3200 0 main Order",
            "4000 0 shop Tick",
            "4000 1 reader News",
            "4200 0 main Order",
            "5000 0 shop Tick",
            "5000 1 reader News",
            "5200 0 main Order",
        ];
        assert_eq!(trace, whole);
        assert_eq!(heard, [1, 2, 3, 4, 5].map(Msg::Order));
        let it = report.total;
        assert_eq!((it.sent, it.delivered, it.undeliverable), (25, 22, 3));
        assert_eq!(
            lost(&report),
            [3, 4, 5].map(|day| format!("Order from shop to baker at 0.00{day}2 s"))
        );
    }
}

/// The south was dropped between two runs, at 2 ms: no agent answers there, none can be added
/// there, and its ids are taken.
fn check_requests(town: &mut Town, dropped: &Dropped) {
    let Town {
        main, north, south, ..
    } = town;
    assert_eq!((main.pid(*south), main.pids().len()), (None, 1));
    let pid = dropped.death.pid;
    let died = format!("at 0.002 s the process of cluster south (pid {pid}) was killed (SIGKILL)");
    let asked = main.inspect::<Baker>("baker").err().unwrap();
    assert!(matches!(&asked, ControlError::Dropped(it) if **it == *dropped));
    let text = asked.to_string();
    assert!(
        text.starts_with(&format!("no agent of cluster south is left: {died}")),
        "{text}"
    );
    assert!(text.ends_with("; the cluster was dropped"), "{text}");
    for asked in [
        main.command("apprentice", Msg::Tick).err(),
        main.counters_of(*south).err(),
    ] {
        assert!(matches!(asked, Some(ControlError::Dropped(_))), "{asked:?}");
    }
    let agents = main.agents().unwrap();
    let ids: Vec<_> = agents.iter().map(|agent| agent.id.to_string()).collect();
    assert_eq!(ids, ["shop", "reader"]);

    let added = main.add_to(*south, "priest", Reader).unwrap_err();
    let text = added.to_string();
    assert!(
        text.starts_with(&format!("no agent can be added to cluster south: {died}")),
        "{text}"
    );
    let again = main.add_to(*north, "apprentice", Reader).unwrap_err();
    assert_eq!(
        again.to_string(),
        "agent apprentice was added twice, by agent baker at 0.001 s and by the simulation's owner: give one of them another id"
    );
}

#[test]
fn a_cluster_that_is_killed_between_runs_is_dropped_and_its_ids_are_taken() {
    let mut town = town(TestPlacement::Ring, SimDuration::ZERO, 0);
    let (report, _) = town.run(2);
    assert!(report.dropped.is_empty() && report.digest.is_some());
    kill(town.main.pid(town.south).unwrap());
    let (report, heard) = town.run(4);
    let dropped = check_report(&report, ExitKind::Signal(9));
    assert_eq!(dropped.time, SimTime::from_millis(2));
    assert_eq!(heard, [2, 3].map(Msg::Order));

    check_requests(&mut town, &dropped);
    let main = &mut town.main;
    main.remove("baker").unwrap();
    main.send("baker", Msg::Tick);
    main.add_to(town.north, "priest", Reader).unwrap();
    let (report, _) = town.run(50);
    check_report(&report, ExitKind::Signal(9));
    assert_eq!(town.warnings.try_iter().count(), 1);
    assert_eq!(
        lost(&report),
        [
            "Order from shop to baker at 0.002 s",
            "Order from shop to baker at 0.003 s",
            "Tick from main to baker at 0.004 s",
            "Order from shop to baker at 0.004 s",
            "Order from shop to baker at 0.005 s",
        ]
    );
    assert_eq!(report.total.agents, 3);
    // Two orders go there, and no news: no agent there listens any more.
    let flows = report.flows.iter();
    let flows = flows.map(|flow| (flow.from.as_deref(), flow.to.as_deref(), flow.mails));
    let to_the_south = flows.filter(|(_, to, _)| *to == Some("south"));
    assert_eq!(
        to_the_south.collect::<Vec<_>>(),
        [(None, Some("south"), 1), (Some("north"), Some("south"), 2)]
    );
    let last = town.trace();
    assert_eq!(last.last().unwrap(), "5000 1 priest News");
    assert_eq!(town.main.shutdown().ends.len(), 1);
}

#[test]
fn a_cluster_that_dies_of_a_request_is_dropped() {
    let mut town = town(TestPlacement::Ring, SimDuration::ZERO, 0);
    let asked = town.main.command("baker", Msg::Order(0));
    match asked {
        Err(ControlError::Dropped(dropped)) => {
            assert_eq!(dropped.death.exit, ExitKind::Code(8));
        }
        other => panic!("{other:?}"),
    }
    let (report, heard) = town.run(50);
    check_report(&report, ExitKind::Code(8));
    assert_eq!(heard, [1, 2, 3, 4, 5].map(Msg::Order));

    let mut town = self::town(TestPlacement::Ring, SimDuration::ZERO, 0);
    let answers = town.main.command_all(Audience::all(), Msg::Order(0));
    let answers = answers.unwrap();
    let ids: Vec<_> = answers.iter().map(|(id, _)| id.to_string()).collect();
    assert_eq!(ids, ["shop", "reader"]);
}

/// The builder stops at a death, and the south alone is dropped.
#[test]
fn a_run_that_is_steered_goes_on_without_the_cluster() {
    let settings = MpMain::builder(agents()).output(Output::Null);
    let mut town = town_with(settings, 0);
    let (south, drop) = (town.south, Recovery::drop_cluster());
    town.main.set_recovery(south, drop).unwrap();
    town.main.pause();
    let controller = town.main.controller();
    let steering = thread::spawn(move || {
        let halt = controller.run_until(SimTime::from_millis(2)).unwrap();
        assert_eq!(halt.time(), SimTime::from_millis(2));
        let status = controller.status();
        assert!(status.dropped.is_empty());
        kill(status.clusters[1].pid);
        let asked = controller.command("baker", Msg::Tick);
        assert!(matches!(asked, Err(ControlError::Dropped(_))), "{asked:?}");
        let status = controller.status();
        assert_eq!((status.state, status.dropped.len()), (RunState::Paused, 1));
        let halt = controller.step_instant().unwrap();
        assert_eq!(halt.time(), SimTime::from_millis(3));
        assert_eq!(controller.agents().unwrap().len(), 2);
        controller.resume().unwrap();
    });
    let (report, heard) = town.run(50);
    steering.join().unwrap();
    check_report(&report, ExitKind::Signal(9));
    assert_eq!(heard, [1, 2, 3, 4, 5].map(Msg::Order));
}

/// When the baker dies, main has given it an order, and mail for it from the same superstep waits in
/// main: the miller's cluster knows where the baker lives.
#[test]
fn mail_that_waits_for_a_dropped_cluster_is_accounted_for() {
    for placement in PROCESSES {
        let settings = MpMain::builder(agents()).on(placement).output(Output::Null);
        let settings = settings.recovery(Recovery::drop_cluster());
        let mut main = settings.warnings(|_| ()).build().unwrap();
        let clusters = [main.new_cluster(), main.new_cluster()];
        main.add_to(clusters[0], "miller", Miller).unwrap();
        main.add_to(clusters[1], "baker", Baker { last: 9 })
            .unwrap();
        main.send("miller", Msg::Tick);
        main.run(Run::until(SimTime::from_millis(1))).unwrap();
        main.send("baker", Msg::Order(9));
        main.send("miller", Msg::Tick);
        let report = main.run(Run::until_idle()).unwrap();
        assert_eq!(report.dropped.len(), 1);
        let expected = [
            "Order from main to baker at 0.001 s",
            "Tick from miller to baker at 0.001 s",
        ];
        assert_eq!(lost(&report), expected);
        let it = report.total;
        assert_eq!((it.sent, it.delivered, it.undeliverable), (5, 3, 2));
    }
}

#[test]
fn a_run_without_clusters_ends_with_all_deaths() {
    let mut town = town(TestPlacement::Ring, SimDuration::ZERO, 3);
    town.run(2);
    let pids = [town.north, town.south].map(|cluster| town.main.pid(cluster).unwrap());
    pids.into_iter().for_each(kill);
    let error = town.main.run(Run::until_idle()).unwrap_err();
    let [north, south] = pids;
    let killed = "was killed (SIGKILL); the sender of the signal is unknown";
    assert_eq!(
        error.to_string(),
        format!(
            "no cluster is left at 0.002 s, all were dropped; their deaths: the process of cluster north (pid {north}) \
             {killed}, the process of cluster south (pid {south}) {killed}"
        )
    );
    let again = town.main.run(Run::until_idle());
    assert!(matches!(again, Err(Error::Ended)), "{again:?}");
}

#[test]
#[ignore = "its output is compared"]
fn printing() {
    let settings = MpMain::builder(agents());
    town_with(settings.recovery(Recovery::drop_cluster()), 3).run(50);
}

#[test]
fn what_a_dropped_cluster_has_begun_to_print_is_passed_on() {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "dropping::printing", "--ignored", "--nocapture"]);
    let output = program.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let lines = said.lines().filter(|line| line.starts_with("[south]"));
    assert_eq!(Vec::from_iter(lines), ["[south] the oven is burning"]);
}
