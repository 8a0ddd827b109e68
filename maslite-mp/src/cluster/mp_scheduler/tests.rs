//! A cluster that is exported and restored elsewhere says to every grant what it would have said.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use maslite_core::internal::{Amnesia, MailKey};
use maslite_core::{Agent, AgentId, Context, Pattern, Receiver, SimDuration, SimTime};
use maslite_testkit::lively::{FIRST, Lively, Msg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{MpScheduler, Reply};
use crate::cluster::registry::Registry;
use crate::cluster::state::ClusterState;
use crate::links::transport::{Draft, DraftBuffer, Wait};
use crate::protocol::rare::Rare;
use crate::protocol::wire::{
    self, Call, Grant, MailHead, News, Report, Settings, Task, ToMain, ToProc,
};

const LOOKAHEAD: SimDuration = SimDuration::from_millis(2);

/// A cluster to which a test is main.
struct Told {
    scheduler: MpScheduler<Msg>,
    settings: Settings,
    /// Agents that wait for their insertion indices.
    newborn: usize,
    next_index: u64,
    grants: u64,
    /// Where it stands, as far as it has reported.
    stands: (SimTime, u64),
}

/// The note of an answer, and the bytes before it.
fn answer(scheduler: &mut MpScheduler<Msg>, message: &[u8]) -> Option<(ToMain, Vec<u8>)> {
    let mut buffer = DraftBuffer::default();
    let reply = scheduler.obey(message, &mut Draft::in_buffer(&mut buffer));
    if reply == Reply::Nothing {
        return None;
    }
    let bytes = buffer.into_bytes();
    let (note, before) = wire::take_note(&bytes).unwrap();
    Some((note, before.to_vec()))
}

/// A report without where its mail lies in the message, and then its mail by destinations.
fn canonical(report: &mut Report, before: &[u8]) -> String {
    let mut mail: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for batch in std::mem::take(&mut report.batches) {
        let bytes = batch.take(before).unwrap();
        mail.entry(format!("{:?}", batch.to))
            .or_default()
            .extend(bytes);
    }
    let mut text = format!("{report:?}");
    write!(text, "{mail:?}{:?}", report.take_trace(before)).unwrap();
    text
}

fn new_cluster(registry: &Arc<Registry<Msg>>, settings: &Settings) -> MpScheduler<Msg> {
    let mut scheduler = MpScheduler::new(Arc::clone(registry));
    let told = wire::message(&ToProc::Settings(settings.clone())).unwrap();
    assert!(answer(&mut scheduler, &told).is_none());
    scheduler
}

fn add<A>(registry: &Arc<Registry<Msg>>, id: AgentId, agent: &A) -> Call
where
    A: Agent<Msg> + Serialize + DeserializeOwned,
{
    let (kind, state) = registry.encode(id, agent).unwrap();
    let name = None;
    Call::Add {
        id,
        name,
        kind,
        state,
    }
}

/// What is told of a cluster with this seed.
fn settings(seed: u64, lookahead: bool) -> Settings {
    Settings {
        seed,
        digest: true,
        content: true,
        trace: true,
        window: None,
        wait: Wait::default(),
        jitter: None,
        lookahead: lookahead.then_some(LOOKAHEAD),
        speculates: false,
        forecasts: false,
        amnesia: Amnesia::every([None, Some(1), Some(3)][usize::try_from(seed % 3).unwrap()]),
    }
}

impl Told {
    /// A cluster with the agents of a story.
    fn new(registry: &Arc<Registry<Msg>>, seed: u64, lookahead: bool) -> Self {
        let mut cluster = Self::with_settings(registry, settings(seed, lookahead));
        // The others live elsewhere.
        let ids = (1..=FIRST).filter(|id| id % 3 > 0).map(AgentId::from);
        let calls = ids.map(|id| add(registry, id, &Lively::of(seed)));
        cluster.load(calls.collect());
        cluster
    }

    fn with_settings(registry: &Arc<Registry<Msg>>, settings: Settings) -> Self {
        Self {
            scheduler: new_cluster(registry, &settings),
            settings,
            newborn: 0,
            next_index: 100,
            grants: 0,
            stands: (SimTime::ZERO, 0),
        }
    }

    fn load(&mut self, calls: Vec<Call>) {
        let scheduler = &mut self.scheduler;
        let count = calls.len() as u64;
        let load = wire::message(&ToProc::Load(calls)).unwrap();
        answer(scheduler, &load).unwrap();
        let indices = ToProc::AssignIndices((0..count).map(|index| 2 * index).collect());
        assert!(answer(scheduler, &wire::message(&indices).unwrap()).is_none());
    }

    /// The next grant, as a message.
    fn grant(&mut self, task: Task, mut news: News, mail: &[u8]) -> Vec<u8> {
        self.grants += 1;
        let newborn = std::mem::take(&mut self.newborn) as u64;
        news.numbers = (self.next_index..self.next_index + newborn).collect();
        self.next_index += newborn;
        let (time, superstep) = self.stands;
        let grant = Grant {
            number: self.grants,
            time,
            superstep,
            task,
            supersteps_per_instant: 100_000,
            news: Rare::from(news),
        };
        let mut buffer = DraftBuffer::default();
        let mut draft = Draft::in_buffer(&mut buffer);
        draft.extend(mail);
        wire::put_note(&ToProc::Grant(grant), &mut draft).unwrap();
        buffer.into_bytes()
    }

    /// Gives a grant to the cluster, and to one that is restored from its state: they answer alike.
    /// Returns what the report says.
    fn tell(&mut self, message: &[u8]) -> String {
        let state = self.scheduler.export().unwrap().encode().unwrap();
        let registry = Arc::clone(&self.scheduler.registry);
        let mut restored = new_cluster(&registry, &self.settings);
        let decoded = ClusterState::decode(&state).unwrap();
        restored.restore(decoded).unwrap();
        let mut told = Vec::new();
        for scheduler in [&mut self.scheduler, &mut restored] {
            let (ToMain::Report(mut report), before) = answer(scheduler, message).unwrap() else {
                panic!("a grant is answered by a report");
            };
            assert!(report.events.failure.is_none(), "{report:?}");
            told.push(canonical(&mut report, &before));
            self.stands = (report.time, report.superstep);
            self.newborn = report.events.newborn.len();
        }
        assert_eq!(told[1], told[0], "grant {}", self.grants);
        // The story goes on in the restored one at times, but not while a removal is pending.
        if self.grants % 8 == 3 {
            self.scheduler = restored;
        }
        told.remove(0)
    }
}

/// What main could have to say before a grant, some of it in each.
fn news(number: u64, now: SimTime, lookahead: bool) -> News {
    let later = if lookahead {
        now.saturating_add(LOOKAHEAD)
    } else {
        SimTime::ZERO
    };
    let elsewhere = AgentId::from(3 * (1 + number % 3));
    let pattern = [Pattern::topic("News"), Pattern::sender(2)][usize::from(number % 3 == 1)];
    let interest = (number % 4 == 1).then_some((2, pattern, number % 8 == 1, later));
    let routes = (number % 5 == 2).then_some((elsewhere, 1));
    let dismissed = (number == 9).then_some((AgentId::from(5), lookahead.then_some(later)));
    News {
        routes: routes.into_iter().collect(),
        interest: interest.into_iter().collect(),
        dismissed: dismissed.into_iter().collect(),
        ..News::default()
    }
}

/// Mail from an agent elsewhere to one here, and a copy of other mail for those who listen.
fn mail(number: u64, now: SimTime, lookahead: bool) -> Vec<u8> {
    let (arrives, left) = match lookahead {
        true => (now.saturating_add(LOOKAHEAD), now),
        false => (SimTime::ZERO, SimTime::ZERO),
    };
    let mut bytes = Vec::new();
    for (place, is_copy) in [(0, false), (1, true)] {
        let to = if is_copy { 6 } else { 1 + 3 * (number % 2) };
        let head = MailHead {
            key: MailKey::of_agent(now, 5, 2 * number + place),
            sender: AgentId::from(3),
            receiver: Receiver::Agent(AgentId::from(to)),
            arrives,
            left,
            is_copy,
        };
        wire::put_mail(&head, &Msg::News(5), &mut bytes).unwrap();
    }
    bytes
}

/// Plays one story with a cluster that is restored before each grant.
fn play(registry: &Arc<Registry<Msg>>, seed: u64, lookahead: bool) {
    let mut cluster = Told::new(registry, seed, lookahead);
    let stop_at_error = false;
    let setup = cluster.grant(Task::Setup { stop_at_error }, News::default(), &[]);
    cluster.tell(&setup);
    for number in 0..24 {
        let now = cluster.stands.0;
        let horizon = now.checked_add(SimDuration::from_millis(1 + number % 3));
        let task = match (lookahead, number % 4) {
            (_, 3) => Task::Answer,
            (true, _) => Task::Window {
                horizon,
                others: Some(LOOKAHEAD),
            },
            (false, 0) => Task::SuperstepIfAwake,
            (false, _) => Task::RunAlone {
                horizon,
                supersteps: 1 + number % 5,
                next_index: cluster.next_index + cluster.newborn as u64,
            },
        };
        let news = news(number, now, lookahead);
        let mail = mail(number, now, lookahead);
        let mail = if number.is_multiple_of(3) {
            &mail[..]
        } else {
            &[]
        };
        let message = cluster.grant(task, news, mail);
        cluster.tell(&message);
    }
}

fn registry() -> Arc<Registry<Msg>> {
    Arc::clone(&Registry::new().with::<Lively>().enter().registry)
}

#[test]
fn a_cluster_that_is_restored_answers_as_the_one_that_was_exported() {
    for seed in 0..40 {
        play(&registry(), seed, false);
    }
}

#[test]
fn so_it_does_under_a_lookahead() {
    for seed in 40..80 {
        play(&registry(), seed, true);
    }
}

/// Stops the run, and removes an agent that lives elsewhere, before anything happens.
#[derive(Serialize, Deserialize)]
struct Rash;

impl Agent<Msg> for Rash {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        if ctx.id() == 1.into() {
            ctx.remove(77);
        } else {
            ctx.stop_run();
        }
    }
}

#[test]
fn what_setup_asks_of_others_outlives_its_report_under_a_lookahead() {
    for id in [1, 2] {
        let registry = Registry::new().with::<Rash>().enter().registry;
        let mut cluster = Told::with_settings(&registry, settings(1, true));
        let call = add(&registry, id.into(), &Rash);
        cluster.load(vec![call]);
        let stop_at_error = false;
        let setup = cluster.grant(Task::Setup { stop_at_error }, News::default(), &[]);
        let told = cluster.tell(&setup);
        assert!(told.contains("events: Rare(None)"), "{told}");
        let (horizon, others) = (None, Some(LOOKAHEAD));
        let window = cluster.grant(Task::Window { horizon, others }, News::default(), &[]);
        let told = cluster.tell(&window);
        let expected = match id {
            1 => "removals: [Removal { id: 77, by: 1, index: 0, time: SimTime(2000000) }]",
            _ => "stopped: [(SimTime(2000000), 0, StoppedByAgent(2))]",
        };
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn another_version_is_refused() {
    let cluster = Told::new(&registry(), 1, false);
    let mut state = cluster.scheduler.export().unwrap().encode().unwrap();
    assert_eq!(state[0], 1);
    state[0] = 7;
    let refused = ClusterState::<Msg>::decode(&state).unwrap_err();
    let expected = "its version is 7, and this program reads version 1";
    assert_eq!(refused, expected);
    for length in 0..state.len() {
        let cut = &state[..length];
        assert!(ClusterState::<Msg>::decode(cut).is_err(), "{length}");
    }
}
