//! A deterministic simulation of main and its clusters over links that lose, repeat, delay and
//! corrupt packets, and of children that are killed: whatever happens, the result is that of the
//! undisturbed run, or the right error; never a hang.
//!
//! A seed says all: the model and how it is divided, how long packets take, where runs are
//! interrupted, which packets meet which faults. Main, its rounds and windows, the schedulers, the
//! wire and the frames are the real ones; processes, their ends and the wall clock are made up
//! ([`world`]). The model is that of `tests/multiprocess/lively.rs`: its agents come and go, listen
//! and cease to, stay awake, stop the run, talk to main.
//!
//! A seed that fails is printed, and `play(seed)` performs it again.

mod backend;
#[cfg(test)]
mod dropping;
mod events;
mod faults;
mod lies;
#[cfg(test)]
mod recovery;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use maslite_core::{
    Agent, AgentId, AgentRng, Context, Mail, MainContext, Run, SimDuration, StopReason,
};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::cluster::commands::Audience;
use crate::cluster::registry::{Entered, Registry};
use crate::error::control::ControlError;
use crate::error::message_fault::MessageFault;
use crate::error::{Chain, Error};
use crate::processes::supervision::EndKind;
use crate::recovery::Recovery;
use crate::settings::{Placement, Speculation, Waiting};
use crate::simulation::builder::MpMainBuilder;
use crate::simulation::mp_main::{MpMain, Shutdown};
pub(crate) use backend::Simulated;
use events::Nature;
use faults::{Fault, Plan};
use lies::Lies;
use maslite_testkit::lively::{
    self, FIRST, Lively, Msg, SEED, Story, cluster_of, compare, in_one_scheduler, start,
};
use world::Chronicle;
pub(crate) use world::World;

/// Each test run plays this number of seeds.
const SEEDS: u64 = 200;

/// Each test run plays this number of seeds with lies: enough for every reason to be refused.
const SEEDS_OF_LIES: u64 = 500;

/// What is played, all of it drawn from a seed.
#[derive(Clone, Debug)]
struct Play {
    seed: u64,
    clusters: usize,
    /// There are only agents that have nothing to do with each other.
    solitary: bool,
    /// [ms]
    lookahead: u64,
    /// The supersteps after which runs are cut.
    cut: Option<u64>,
    /// A predicate that never holds is asked, which rules solo runs out.
    asks: bool,
    /// Agents are asked before and between the runs.
    commands: bool,
    /// The number of mails that main has heard when the run is stopped.
    stop: Option<u64>,
    /// The supersteps after which clusters forget everything, again and again.
    amnesia: Option<u64>,
    speculation: Speculation,
    nature: Nature,
    recovery: Recovery,
    /// How to plan faults.
    chance: AgentRng,
}

/// How a performance came out.
struct Outcome {
    /// What happened on the stage until the end or the error.
    story: Story,
    failure: Option<Failed>,
    shutdown: Option<Shutdown>,
    chronicle: Chronicle,
}

/// Why it did not come to its end.
#[derive(Debug)]
enum Failed {
    Run(Error),
    Command(ControlError),
}

/// Keeps to itself, and wakes this number of times.
#[derive(Serialize, Deserialize)]
struct Hermit(u8);

impl Agent<Msg> for Hermit {
    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if let Some(rest) = self.0.checked_sub(1) {
            self.0 = rest;
            let delay = SimDuration::from_millis(ctx.rng().random_range(0..3));
            ctx.alarm_in(delay, mail.body);
        }
    }
}

fn agents() -> Entered<Msg> {
    Registry::new().with::<Lively>().with::<Hermit>().enter()
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut chance = AgentRng::new(seed, AgentId::from(1));
        let lookahead = [0, 0, 0, 1, 2][chance.random_range(0..5_usize)];
        let rarely = |chance: &mut AgentRng| chance.random_range(0..4_u32) == 0;
        Self {
            seed,
            clusters: chance.random_range(1..=5),
            solitary: chance.random_range(0..16_u32) == 0,
            lookahead,
            cut: rarely(&mut chance).then(|| chance.random_range(1..12)),
            asks: rarely(&mut chance),
            commands: rarely(&mut chance),
            stop: rarely(&mut chance).then(|| chance.random_range(1..10)),
            amnesia: seed.is_multiple_of(3).then_some(1 + seed % 2),
            speculation: match seed % 4 {
                1 => Speculation::Random(seed),
                3 => Speculation::Auto,
                _ => Speculation::Off,
            },
            nature: Nature {
                seed,
                // Short ones, so that most messages are several.
                frame_limit: [40, 100, 300, 1_000, 65_536][chance.random_range(0..5_usize)],
                latency: [2, 100, 1_000][chance.random_range(0..3_usize)],
                faults: Plan::new(),
                lies: Lies::new(),
                kills: BTreeMap::new(),
                stillborn: BTreeSet::new(),
                interrupts: BTreeSet::new(),
            },
            recovery: Recovery::stop(),
            chance,
        }
    }

    /// What comes of it without any links.
    fn expected(&self) -> Story {
        if self.lookahead == 0 && !self.solitary {
            return in_one_scheduler(self.seed);
        }
        let lines = Arc::default();
        let main = self
            .settings(&lines)
            .placement(Placement::Inline)
            .build()
            .unwrap();
        let undisturbed = Self {
            cut: None,
            asks: false,
            commands: false,
            stop: None,
            ..self.clone()
        };
        undisturbed.perform(main, &lines).0
    }

    /// The settings of a simulation whose trace goes to `lines`.
    fn settings(&self, lines: &Arc<Mutex<Vec<String>>>) -> MpMainBuilder<Msg> {
        let written = Arc::clone(lines);
        MpMain::builder(agents())
            .seed(SEED + self.seed)
            .lookahead(SimDuration::from_millis(self.lookahead))
            .waiting(Waiting::Block)
            .warning_after(None)
            .recovery(self.recovery)
            .digest()
            .trace(move |line| written.lock().unwrap().push(line.to_owned()))
    }

    /// Performs it in a world.
    fn outcome(&self) -> Outcome {
        let world = World::new(self.nature.clone());
        let lines = Arc::default();
        let settings = self.settings(&lines).amnesia(self.amnesia);
        let settings = settings.speculation(self.speculation);
        let main = settings.build().unwrap();
        let main = main.with_world(Arc::clone(&world));
        let (story, failure, shutdown) = self.perform(main, &lines);
        Outcome {
            story,
            failure,
            shutdown,
            chronicle: world.chronicle(),
        }
    }

    fn perform(
        &self,
        mut main: MpMain<Msg>,
        lines: &Arc<Mutex<Vec<String>>>,
    ) -> (Story, Option<Failed>, Option<Shutdown>) {
        let clusters: Vec<_> = (0..self.clusters).map(|_| main.new_cluster()).collect();
        for id in 1..=FIRST {
            let cluster = clusters[cluster_of(id, self.clusters)];
            if self.solitary {
                main.add_to(cluster, id, Hermit(5)).unwrap();
            } else {
                main.add_to(cluster, id, Lively::of(self.seed)).unwrap();
            }
        }
        let mail = start(self.seed).into_iter();
        mail.for_each(|mail| main.send_mail(mail));
        let mut stops = Vec::new();
        let mut last = None;
        let failure = self.run(&mut main, &mut stops, &mut last).err();
        let last = last.as_ref();
        let story = Story {
            stops,
            now: main.now(),
            counters: main.counters(),
            digest: last.and_then(|last| last.digest),
            lost: last.map_or_else(Vec::new, |last| {
                last.lost.iter().map(ToString::to_string).collect()
            }),
            silent: last.map_or_else(Vec::new, |last| last.silent.clone()),
            trace: std::mem::take(&mut lines.lock().unwrap()),
        };
        // An answer that cannot be read ends nothing.
        let goes_on = |why: &Failed| matches!(why, Failed::Command(ControlError::Decode { .. }));
        if let Some(why) = failure.as_ref().filter(|why| !goes_on(why)) {
            let again = main.run(Run::until_idle());
            assert!(
                matches!(again, Err(Error::Ended)),
                "{again:?} after {why:?} in {self:?}"
            );
            assert!(main.shutdown().ends.is_empty());
            return (story, failure, None);
        }
        (story, failure, Some(main.shutdown()))
    }

    /// Runs until it is idle, and writes down why it stopped before, but for what belongs to links
    /// and steering alone.
    fn run(
        &self,
        main: &mut MpMain<Msg>,
        stops: &mut Vec<String>,
        last: &mut Option<maslite_core::Report>,
    ) -> Result<(), Failed> {
        let (mut heard, handle) = (0, main.stop_handle());
        let mut handler = |mail: Mail<Msg>, context: &mut MainContext<Msg>| {
            if self.stop == Some(heard) {
                handle.stop();
            }
            lively::handle(&mut heard, mail, context);
        };
        loop {
            if self.commands {
                self.ask(main).map_err(Failed::Command)?;
            }
            let mut run = Run::until_idle();
            if let Some(supersteps) = self.cut {
                run = run.supersteps(supersteps);
            }
            if self.asks {
                run = run.stop_when(|_| false);
            }
            let report = main.run_with(run, &mut handler).map_err(Failed::Run)?;
            let counters = report.total;
            let posted = counters.delivered + counters.undeliverable + counters.queued;
            if self.nature.lies.is_empty() {
                assert_eq!(counters.sent, posted, "{report}");
            }
            if !matches!(
                report.stopped_by,
                StopReason::Timeout | StopReason::Interrupted | StopReason::Supersteps
            ) {
                stops.push(format!("{} at {}", report.stopped_by, report.now));
            }
            if report.stopped_by == StopReason::Idle {
                *last = Some(report.run);
                return Ok(());
            }
        }
    }

    fn ask(&self, main: &mut MpMain<Msg>) -> Result<(), ControlError> {
        let agents = main.agents()?;
        let answers = main.command_all(Audience::all(), Msg::Call(0))?;
        assert_eq!(answers.len(), agents.len());
        for agent in agents.iter().take(2).filter(|_| !self.solitary) {
            main.inspect::<Lively>(agent.id)?;
        }
        Ok(())
    }
}

/// Performs the play of a seed without faults and then with some, and judges both.
fn play(seed: u64) -> [Outcome; 2] {
    let mut play = Play::new(seed);
    let expected = play.expected();
    let undisturbed = play.outcome();
    judge(&play, &undisturbed, &expected);

    let packets = undisturbed.chronicle.packets;
    play.nature.faults = Fault::plan(&mut play.chance, packets);
    let interrupts = 0..play.chance.random_range(0..3_u32);
    let interrupts = interrupts.map(|_| play.chance.random_range(0..packets));
    play.nature.interrupts = interrupts.collect();
    let disturbed = play.outcome();
    judge(&play, &disturbed, &expected);
    [undisturbed, disturbed]
}

/// Fails unless the outcome is right.
fn judge(play: &Play, outcome: &Outcome, expected: &Story) {
    let Outcome {
        story,
        failure,
        shutdown,
        chronicle,
    } = outcome;
    let struck = &chronicle.struck;
    let Some(failure) = failure else {
        compare(play.seed, story, expected, &format!("{play:?}"));
        let ends = shutdown.iter().flat_map(|shutdown| &shutdown.ends);
        let mut failed = ends.clone().map(|end| end.how);
        let failed = failed.any(|how| matches!(how, EndKind::Failed(_)));
        let names = (1..).map(|number: u32| number.to_string());
        for (end, name) in ends.zip(names) {
            let is_right = match end.how {
                EndKind::Clean => true,
                // Another child failed, so main no longer waited for this one.
                EndKind::Killed if failed => true,
                EndKind::Killed | EndKind::Failed(_) => {
                    struck.iter().any(|(cluster, _)| *cluster == name)
                }
                EndKind::Leaked => false,
            };
            assert!(is_right, "{end:?} after {struck:?} in {play:?}");
        }
        return;
    };
    assert!(story.trace.len() <= expected.trace.len(), "{play:?}");
    for (got, expected) in story.trace.iter().zip(&expected.trace) {
        assert_eq!(got, expected, "{play:?}");
    }
    assert!(story.now <= expected.now, "{} in {play:?}", story.now);
    let is_right = match failure {
        Failed::Run(error) => {
            faults::time_of(error).is_none_or(|time| time == story.now)
                && faults::explain(error, struck)
        }
        Failed::Command(error) => faults::explain_briefly(error, struck),
    };
    let text = match failure {
        Failed::Run(error) => Chain(error).to_string(),
        Failed::Command(error) => error.to_string(),
    };
    assert!(is_right, "{text:?} after {struck:?} in {play:?}");
}

/// How many performances came out how, and what was granted in them.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    outcomes: BTreeMap<String, u64>,
    tasks: BTreeMap<&'static str, u64>,
}

impl Tally {
    #[expect(clippy::print_stdout, reason = "for those who run it by hand")]
    fn of(seeds: Range<u64>) -> Self {
        let mut tally = Self::default();
        for seed in seeds {
            let [undisturbed, disturbed] = play(seed);
            let outcome = match &disturbed.failure {
                None if disturbed.chronicle.struck.is_empty() => "right: nothing struck".to_owned(),
                None => "right, in spite of it".to_owned(),
                Some(Failed::Run(error)) => faults::in_short(error),
                Some(Failed::Command(_)) => "in a command".to_owned(),
            };
            *tally.outcomes.entry(outcome).or_default() += 1;
            for outcome in [undisturbed, disturbed] {
                for (task, count) in outcome.chronicle.tasks {
                    *tally.tasks.entry(task).or_default() += count;
                }
            }
        }
        println!("{tally:#?}");
        tally
    }
}

#[test]
fn faults_end_in_the_right_result_or_the_right_error() {
    let tally = Tally::of(0..SEEDS);
    // All that main can grant was granted, and faults came out in all ways.
    assert_eq!(tally.tasks.len(), 12, "{tally:#?}");
    assert!(tally.outcomes.len() >= 8, "{tally:#?}");
}

#[test]
#[ignore = "takes minutes"]
fn ten_thousand_seeds() {
    Tally::of(0..10_000);
}

#[test]
#[ignore = "takes the better part of an hour"]
fn a_hundred_thousand_seeds() {
    Tally::of(10_000..110_000);
}

/// Performs the play of a seed in which clusters lie: with the number of the reason, if that is how
/// it ended.
fn play_with_lies(seed: u64) -> Option<u8> {
    let mut play = Play::new(seed);
    let heard = play.outcome().chronicle.heard;
    let lies = 0..play.chance.random_range(1..4_u32);
    let lies = lies.map(|_| (play.chance.random_range(0..heard), play.chance.random()));
    play.nature.lies = lies.collect();
    match play.outcome().failure? {
        Failed::Run(Error::Protocol { reason, .. } | Error::Refused { reason, .. }) => {
            Some(reason as u8)
        }
        // The model itself sees it, or the requester does.
        Failed::Run(Error::Agent { .. } | Error::Model(_) | Error::Decode { .. })
        | Failed::Command(ControlError::Failed(_) | ControlError::Decode { .. }) => None,
        other => panic!("{other:?} in {play:?}"),
    }
}

/// What a lie leads to may be wrong, if it is believed; but neither main nor another cluster
/// stumbles over it.
#[test]
fn lies_are_refused_or_believed() {
    let mut reasons: BTreeMap<u8, u64> = BTreeMap::new();
    for reason in (0..SEEDS_OF_LIES).filter_map(play_with_lies) {
        *reasons.entry(reason).or_default() += 1;
    }
    // But those that are rare: main's own mail, and a cluster that does nothing.
    let expected = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12];
    assert!(
        expected.iter().all(|reason| reasons.contains_key(reason)),
        "{reasons:?}"
    );
}

#[test]
#[ignore = "takes minutes"]
fn ten_thousand_seeds_of_lies() {
    let refused = (SEEDS_OF_LIES..10_000).filter_map(play_with_lies).count();
    assert!(refused > 4_000, "{refused}");
}

/// Says from some time on that it is awake, and never does anything.
#[test]
fn a_cluster_that_does_nothing_again_and_again_is_refused() {
    let mut play = Play::new(0);
    play.nature.lies = (10..100_000)
        .map(|message| (message, lies::AWAKE))
        .collect();
    let failure = play.outcome().failure;
    assert!(
        matches!(
            failure,
            Some(Failed::Run(Error::Protocol {
                reason: MessageFault::Idle,
                ..
            }))
        ),
        "{failure:?}"
    );
}

#[test]
fn a_seed_always_gives_the_same() {
    for seed in 0..20 {
        let again = play(seed);
        for (first, second) in play(seed).iter().zip(&again) {
            assert_eq!(first.story, second.story);
            assert_eq!(first.chronicle, second.chronicle);
        }
    }
}
