//! Clusters are killed, and dropped: whichever clusters are killed, and at any time, the run ends,
//! its accounts are exact, and main can be used on.

use std::sync::Arc;
use std::time::Duration;

use maslite_core::{AgentId, CommandError, Counters, Mail, MainContext, Run, StopReason};

use super::events::Nature;
use super::world::{Chronicle, World};
use super::{FIRST, Lively, Msg, Play, cluster_of, lively, start};
use crate::error::Error;
use crate::error::control::ControlError;
use crate::error::recovery::Dropped;
use crate::processes::supervision::EndKind;
use crate::recovery::Recovery;
use crate::settings::ClusterId;
use crate::simulation::mp_main::MpMain;
use crate::simulation::report::MpReport;

/// What came of a story in which clusters were killed.
struct Came {
    /// The counters since the simulation began, of the first runs and of the last one.
    counters: Vec<Counters>,
    dropped: Vec<Dropped>,
    trace: Vec<String>,
    chronicle: Chronicle,
}

/// Plays with these kills until nothing is left to happen, has main do all that it can, and plays
/// once more. None if no cluster was left.
fn survive(play: &Play, kills: &[(u64, usize)]) -> Option<Came> {
    let mut nature: Nature = play.nature.clone();
    for (packet, cluster) in kills {
        nature.kills.entry(*packet).or_default().push(*cluster);
    }
    let world = World::new(nature);
    let lines = Arc::default();
    let main = play.settings(&lines).build().unwrap();
    let mut main = main.with_world(Arc::clone(&world));
    let clusters: Vec<_> = (0..play.clusters).map(|_| main.new_cluster()).collect();
    for id in 1..=FIRST {
        let cluster = clusters[cluster_of(id, play.clusters)];
        main.add_to(cluster, id, Lively::of(play.seed)).unwrap();
    }
    match perform(play, &mut main, &clusters) {
        Ok(counters) => {
            let dropped = main.controller().status().dropped;
            let ends = main.shutdown().ends;
            assert!(ends.iter().all(|end| end.how != EndKind::Leaked));
            assert_eq!(ends.len() + dropped.len(), play.clusters);
            let trace = std::mem::take(&mut *lines.lock().unwrap());
            let chronicle = world.chronicle();
            assert_eq!(chronicle.processes, play.clusters);
            Some(Came {
                counters,
                dropped,
                trace,
                chronicle,
            })
        }
        Err(Error::NoneLeft { deaths, .. }) => {
            assert_eq!(deaths.len(), play.clusters);
            assert!(matches!(main.run(Run::until_idle()), Err(Error::Ended)));
            None
        }
        // It had ended over a request.
        Err(Error::Ended) if kills.len() >= play.clusters => None,
        Err(error) => panic!("{error} after {kills:?} in {play:?}"),
    }
}

/// Sends the first mail, runs until it is idle, asks, and does so again.
fn perform(
    play: &Play,
    main: &mut MpMain<Msg>,
    clusters: &[ClusterId],
) -> Result<Vec<Counters>, Error> {
    let (mut counters, mut heard) = (Vec::new(), 0);
    loop {
        start(play.seed)
            .into_iter()
            .for_each(|mail| main.send_mail(mail));
        let report = run_until_idle(play, main, &mut heard)?;
        counters.push(report.total);
        for dropped in &report.dropped {
            let place = dropped.cluster.parse::<usize>().unwrap() - 1;
            check_dropped(play, main, clusters, place);
        }
        let agents = match main.agents() {
            Ok(agents) => agents,
            Err(ControlError::Failed(_)) => return Err(main.run(Run::until_idle()).unwrap_err()),
            Err(error) => panic!("{error}"),
        };
        let place_of = |id: AgentId| cluster_of(id.as_u64(), play.clusters);
        let is_dropped = |place: usize| {
            let mut names = report.dropped.iter();
            names.any(|dropped| dropped.cluster == (place + 1).to_string())
        };
        let first = agents.iter().filter(|agent| agent.id.as_u64() <= FIRST);
        assert!(first.clone().all(|agent| !is_dropped(place_of(agent.id))));
        if counters.len() == 2 {
            return Ok(counters);
        }
    }
}

fn run_until_idle(play: &Play, main: &mut MpMain<Msg>, heard: &mut u64) -> Result<MpReport, Error> {
    loop {
        let mut run = Run::until_idle();
        if let Some(supersteps) = play.cut {
            run = run.supersteps(supersteps);
        }
        let handler = |mail: Mail<Msg>, context: &mut MainContext<Msg>| {
            lively::handle(heard, mail, context);
        };
        let report = main.run_with(run, handler)?;
        let Counters {
            sent,
            delivered,
            undeliverable,
            queued,
            alarms_set,
            alarms_fired,
            alarms_cleared,
            alarms_pending,
            ..
        } = report.total;
        assert_eq!(sent, delivered + undeliverable + queued, "{report}");
        // Under a lookahead mail that is under way is among the pending alarms.
        let own = alarms_set - alarms_fired - alarms_cleared;
        let is_exact = own == alarms_pending || play.lookahead > 0 && own < alarms_pending;
        assert!(is_exact, "{report:#}");
        assert_eq!(report.digest.is_some(), report.dropped.is_empty());
        if report.stopped_by == StopReason::Idle {
            assert_eq!(queued, 0, "no agent is left to read it");
            return Ok(report);
        }
    }
}

/// The agents of this cluster are gone, and no other agent gets their ids.
fn check_dropped(play: &Play, main: &mut MpMain<Msg>, clusters: &[ClusterId], place: usize) {
    let again = main.add_to(clusters[place], 1_000_000, Lively::of(0));
    assert!(matches!(again, Err(Error::Dropped(_))), "{again:?}");
    let asked = main.counters_of(clusters[place]);
    assert!(matches!(asked, Err(ControlError::Dropped(_))), "{asked:?}");
    assert_eq!(main.pid(clusters[place]), None);
    let other = clusters.iter().find(|it| main.pid(**it).is_some());
    let Some(other) = other.copied() else { return };
    for id in (1..=FIRST).filter(|id| cluster_of(*id, play.clusters) == place) {
        let taken = main.add_to(other, id, Lively::of(0));
        assert!(matches!(taken, Err(Error::Model(_))), "{taken:?}");
        main.remove(id).unwrap();
        match main.inspect::<Lively>(id) {
            Err(ControlError::Dropped(dropped)) => {
                assert_eq!(dropped.cluster, (place + 1).to_string());
            }
            // It was removed before, or the last cluster has just been dropped.
            Err(ControlError::Agent(CommandError::UnknownAgent(_)) | ControlError::Ended) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn small(seed: u64, clusters: usize, lookahead: u64) -> Play {
    let mut play = super::recovery::small(seed, clusters, lookahead);
    play.recovery = Recovery::drop_cluster();
    play
}

/// Kills each cluster, once at every `step`th packet.
fn kill_each(play: &Play, step: usize) {
    let undisturbed = survive(play, &[]).unwrap();
    assert!(undisturbed.dropped.is_empty());
    let packets = undisturbed.chronicle.packets;
    let (mut dropped, mut kills) = (0, 0);
    for packet in (0..packets).step_by(step) {
        for cluster in 0..play.clusters {
            let came = survive(play, &[(packet, cluster)]).unwrap();
            let name = (cluster + 1).to_string();
            assert!(came.dropped.iter().all(|it| it.cluster == name));
            dropped += came.dropped.len();
            kills += 1;
            for (before, after) in came.counters.iter().zip(&came.counters[1..]) {
                assert!(before.sent <= after.sent && before.undeliverable <= after.undeliverable);
            }
            if packet > packets / 2 {
                let same = undisturbed.trace.iter().zip(&came.trace);
                let same = same.take_while(|(one, other)| one == other).count();
                assert!(same > 0, "what came before the kill is the same");
            }
        }
    }
    // But for those that die when they are not needed any more.
    assert!(
        dropped * 10 > kills * 8,
        "{dropped} of {kills} were dropped"
    );
}

#[test]
fn each_cluster_is_killed_at_each_packet() {
    kill_each(&small(1, 3, 0), 1);
}

#[test]
fn each_cluster_is_killed_at_each_packet_under_a_lookahead() {
    kill_each(&small(1, 2, 1), 1);
    kill_each(&small(2, 3, 2), 3);
}

#[test]
fn each_cluster_is_killed_at_each_packet_between_many_short_runs() {
    let mut play = small(3, 2, 0);
    play.cut = Some(5);
    kill_each(&play, 3);
    play.lookahead = 1;
    kill_each(&play, 3);
}

#[test]
#[ignore = "takes minutes"]
fn each_cluster_is_killed_at_each_packet_of_twenty_stories() {
    for seed in 0..20 {
        for lookahead in 0..=2 {
            kill_each(&small(seed, 3, lookahead), 1);
        }
    }
}

#[test]
fn two_of_three_clusters_are_killed() {
    for lookahead in [0, 1] {
        let play = small(4, 3, lookahead);
        let packets = survive(&play, &[]).unwrap().chronicle.packets;
        for packet in (0..packets).step_by(7) {
            for later in [0, 1, 10] {
                let came = survive(&play, &[(packet, 0), (packet + later, 2)]).unwrap();
                assert!(came.dropped.len() <= 2);
            }
        }
    }
}

#[test]
fn if_all_clusters_are_killed_the_run_ends_with_all_deaths() {
    let play = small(6, 3, 0);
    let packets = survive(&play, &[]).unwrap().chronicle.packets;
    for packet in (0..packets * 9 / 10).step_by(5) {
        let all = [(packet, 0), (packet, 1), (packet, 2)];
        assert!(survive(&play, &all).is_none(), "at {packet}");
    }
}

#[test]
fn the_same_kill_gives_the_same() {
    let play = small(5, 3, 1);
    let [one, other] = [0, 1].map(|_| survive(&play, &[(60, 1)]).unwrap());
    assert_eq!(one.dropped.len(), 1);
    assert_eq!((one.counters, one.trace), (other.counters, other.trace));
}

/// One cluster may be dropped, and the others come back.
#[test]
fn a_cluster_that_comes_back_outlives_one_that_is_dropped() {
    let always = Recovery::restart().at_most(9, Duration::from_secs(60));
    let mut play = small(7, 3, 0);
    play.recovery = always;
    let world = World::new(Nature {
        kills: [(50, vec![0, 1])].into(),
        ..play.nature.clone()
    });
    let lines = Arc::default();
    let main = play.settings(&lines).build().unwrap();
    let mut main = main.with_world(world);
    let clusters: Vec<_> = (0..3).map(|_| main.new_cluster()).collect();
    main.set_recovery(clusters[0], Recovery::drop_cluster())
        .unwrap();
    for id in 1..=FIRST {
        let cluster = clusters[cluster_of(id, 3)];
        main.add_to(cluster, id, Lively::of(play.seed)).unwrap();
    }
    start(play.seed)
        .into_iter()
        .for_each(|mail| main.send_mail(mail));
    let report = run_until_idle(&play, &mut main, &mut 0).unwrap();
    let names = [&report.dropped[0].cluster, &report.recoveries[0].cluster];
    assert_eq!(names, ["1", "2"]);
    assert_eq!((report.dropped.len(), report.recoveries.len()), (1, 1));
}
