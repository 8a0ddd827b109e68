//! Files of a snapshot, and what stands in them.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use maslite_core::internal::{Amnesia, restore_scheduler};
use maslite_core::rand::RngExt as _;
use maslite_core::{Agent, AgentId, Alarm, Context, Mail, Pattern, Scheduler, SimDuration};
use serde::{Deserialize, Serialize};

use super::Word;
use crate::cluster::mp_scheduler::{MpScheduler, Reply};
use crate::cluster::registry::Registry;
use crate::cluster::state::ClusterState;
use crate::coordination::main_state::MainState;
use crate::coordination::routing::Routing;
use crate::coordination::state::{Standing, UnderWay};
use crate::links::transport::{Draft, DraftBuffer, Wait};
use crate::protocol::wire::{self, Settings, ToProc};
use crate::simulation::whole::Whole;
use crate::snapshot::blocks::{self, Kind};
use crate::snapshot::head::Head;

/// The seed of all that is restored.
const SEED: u64 = 5;

/// The numbers of clusters in which a simulation goes on.
const CLUSTERS: usize = 3;

/// An agent of the snapshots.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Clerk {
    heard: Vec<Word>,
    last: Option<u64>,
}

impl Agent<Word> for Clerk {
    fn setup(&mut self, ctx: &mut Context<'_, Word>) {
        ctx.subscribe(Pattern::topic("Said"));
        ctx.set_alarm(Alarm::every(SimDuration::from_millis(3)), Word::Nothing);
        ctx.alarm_in(SimDuration::from_millis(4), Word::Said("later".to_owned()));
        self.last = Some(ctx.rng().random());
    }

    fn receive(&mut self, mail: Mail<Word>, ctx: &mut Context<'_, Word>) {
        let is_direct = mail.receiver.agent() == Some(ctx.id());
        if let (Word::Said(_), true) = (&mail.body, is_direct) {
            let numbers = vec![ctx.id().as_u64(), 300];
            ctx.broadcast(Word::Said("a circular".to_owned()));
            ctx.send(
                AgentId::MAIN,
                Word::Counted {
                    numbers,
                    last: Some(-1),
                },
            );
            ctx.send(77, Word::Nothing);
            ctx.add(ctx.id().as_u64() + 10, Self::default());
        }
        self.heard.push(mail.body);
    }
}

fn registry() -> &'static Arc<Registry<Word>> {
    static REGISTRY: OnceLock<Arc<Registry<Word>>> = OnceLock::new();
    REGISTRY.get_or_init(|| Arc::new(Registry::new().with::<Clerk>()))
}

/// A snapshot has these bytes behind the first one, which says what they are: the file of the head,
/// the file of a cluster, what stands in the one or the other, or, behind the length of the first
/// (u16, little endian), what main knows and the state of a cluster. Tells how much of it was
/// understood.
///
/// # Panics
/// If what was restored cannot be written down again.
#[must_use]
pub fn snapshot(bytes: &[u8]) -> usize {
    let Some((what, rest)) = bytes.split_first() else {
        return 0;
    };
    match what % 6 {
        0 => usize::from(file(Kind::Head, rest).is_some_and(|contents| head(&contents))),
        1 => file(Kind::Cluster, rest).map_or(0, |contents| cluster(&contents, false)),
        2 => usize::from(head(rest)),
        3 => cluster(rest, false),
        4 => cluster(rest, true),
        _ => {
            let Some((length, rest)) = rest.split_first_chunk() else {
                return 0;
            };
            let length = usize::from(u16::from_le_bytes(*length));
            let (main, cluster) = rest.split_at(length.min(rest.len()));
            whole(main, cluster)
        }
    }
}

/// The contents of a file.
fn file(kind: Kind, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut contents = Vec::new();
    let visit = |block: &[u8]| contents.extend_from_slice(block);
    blocks::each_block_of(bytes, Path::new("it"), kind, visit).ok()?;
    Some(contents)
}

fn head(contents: &[u8]) -> bool {
    (1..=blocks::VERSION).any(|version| Head::decode(version, contents).is_ok())
}

/// A cluster that has just been started.
fn new_cluster(lookahead: bool) -> MpScheduler<Word> {
    let mut cluster = MpScheduler::new(Arc::clone(registry()));
    let settings = Settings {
        seed: SEED,
        digest: true,
        content: true,
        trace: true,
        window: None,
        wait: Wait::default(),
        jitter: None,
        lookahead: lookahead.then_some(SimDuration::from_millis(2)),
        amnesia: Amnesia::every(None),
        speculates: false,
        forecasts: false,
    };
    if let Ok(settings) = wire::message(&ToProc::Settings(settings)) {
        let mut buffer = DraftBuffer::default();
        let reply = cluster.obey(&settings, &mut Draft::in_buffer(&mut buffer));
        debug_assert_eq!(reply, Reply::Nothing);
    }
    cluster
}

/// A cluster takes up a state, and writes down its own. Tells how many of its steps succeeded.
fn cluster(contents: &[u8], lookahead: bool) -> usize {
    let Ok(state) = ClusterState::<Word>::decode(contents) else {
        return 0;
    };
    let mut cluster = new_cluster(lookahead);
    if cluster.restore(state).is_err() {
        return 1;
    }
    write_again(&cluster);
    2
}

fn write_again(cluster: &MpScheduler<Word>) {
    let again = cluster.export().expect("a restored cluster is at rest");
    again.digest().expect("all of it can be encoded");
    again.encode().expect("all of it can be encoded");
}

/// Main and its cluster go on alone, in several clusters, and with this main.
fn whole(main: &[u8], cluster: &[u8]) -> usize {
    let read = || {
        let state = ClusterState::<Word>::decode(cluster).ok()?;
        Some((state, MainState::<Word>::decode(main).ok()?))
    };
    let whole = || {
        let (state, main) = read()?;
        Whole::of_clusters(vec![state], main).ok()
    };
    let Some((_, main)) = read() else { return 0 };
    if main.check(CLUSTERS).is_err() {
        return 0;
    }
    let mut routing = Routing::default();
    (0..CLUSTERS).for_each(|_| routing.add_cluster());
    main.restore(
        &mut Standing::default(),
        &mut routing,
        &mut UnderWay::default(),
    );
    let Some(alone) = whole() else { return 1 };
    let mut scheduler = Scheduler::builder().seed(SEED).digest().build();
    let state = alone.into_scheduler(SEED);
    let is_restored = restore_scheduler(&mut scheduler, state, &**registry()).is_ok();
    let divided = whole().map(|it| it.into_clusters(CLUSTERS, |agent| agent.spread_over(CLUSTERS)));
    let Some(Ok((states, _))) = divided else {
        return 2;
    };
    for state in states {
        let mut cluster = new_cluster(false);
        if cluster.restore(state).is_ok() {
            write_again(&cluster);
        }
    }
    3 + usize::from(is_restored)
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::prelude::*;
    use crate::snapshot::head::section;

    /// A snapshot with all that there can be in one.
    fn saved(clusters: usize, lookahead: u64) -> PathBuf {
        let agents = Registry::new().with::<Clerk>().enter();
        let settings = MpMain::builder(agents).seed(SEED).content_digest();
        let settings = settings.lookahead(SimDuration::from_millis(lookahead));
        let mut main = settings.placement(Placement::Inline).build().unwrap();
        let clusters: Vec<_> = (0..clusters).map(|_| main.new_cluster()).collect();
        for (id, cluster) in (1..=4_u64).zip(clusters.iter().cycle()) {
            main.add_to(*cluster, id, Clerk::default()).unwrap();
        }
        main.add(AgentId::named("chief"), Clerk::default()).unwrap();
        for id in 1..=4_u64 {
            main.send(id, Word::Said("good morning".to_owned()));
        }
        main.run(Run::until_idle().supersteps(2)).unwrap();
        main.remove(3_u64).unwrap();
        main.send(AgentId::named("chief"), Word::Nothing);
        // Two tests make the corpus at the same time.
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("maslite-fuzzed-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        main.save(&path).unwrap();
        path
    }

    /// What the corpus begins with.
    pub(in super::super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
        let with = |what: u8, bytes: &[u8]| [&[what], bytes].concat();
        let alone = saved(1, 0);
        let (head_file, cluster_file) = (alone.join("head"), section(&alone, 0));
        let head = blocks::read(&head_file, Kind::Head).unwrap();
        let cluster = blocks::read(&cluster_file, Kind::Cluster).unwrap();
        let main = Head::read(&alone).unwrap().main;
        let length = u16::try_from(main.len()).unwrap().to_le_bytes();
        let whole = [&length[..], &main, &cluster].concat();
        let ahead = saved(2, 2);
        let under_a_lookahead = blocks::read(&section(&ahead, 1), Kind::Cluster).unwrap();
        let seeds = vec![
            ("file_of_head", with(0, &fs::read(head_file).unwrap())),
            ("file_of_cluster", with(1, &fs::read(cluster_file).unwrap())),
            ("cut", with(0, b"maslite\n")),
            ("head", with(2, &head)),
            ("cluster", with(3, &cluster)),
            ("lookahead", with(4, &under_a_lookahead)),
            ("whole", with(5, &whole)),
        ];
        fs::remove_dir_all(alone).unwrap();
        fs::remove_dir_all(ahead).unwrap();
        seeds
    }
}
