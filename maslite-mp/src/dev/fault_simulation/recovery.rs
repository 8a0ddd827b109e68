//! Clusters are killed, and brought back: the story is the undisturbed one, whichever are killed
//! whenever.

use std::collections::BTreeMap;
use std::time::Duration;

use maslite_testkit::effort::stride;
use rand::RngExt;

use super::world::Chronicle;
use super::{Failed, Outcome, Play, compare};
use crate::error::Error;
use crate::error::control::ControlError;
use crate::error::recovery::NotRecovered;
use crate::recovery::Recovery;

/// A cluster that dies comes back, however often.
const ALWAYS: Recovery = Recovery::restart().at_most(u32::MAX, Duration::from_secs(60));

/// What came of it when these clusters were killed at these packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Came {
    /// The undisturbed story.
    Right,
    /// The run ended because a cluster was killed twice at one grant.
    Poison,
}

/// Plays with these kills. Tells how it came out, and how many packets were sent.
fn survive(play: &Play, kills: &[(u64, usize)]) -> (Came, Chronicle) {
    let mut play = play.clone();
    for (packet, cluster) in kills {
        let at = play.nature.kills.entry(*packet).or_default();
        at.push(*cluster);
    }
    let Outcome {
        story,
        failure,
        shutdown,
        chronicle,
    } = play.outcome();
    match failure {
        None => {
            compare(play.seed, &story, &play.expected(), &format!("{kills:?}"));
            assert_eq!(shutdown.unwrap().ends.len(), play.clusters);
            (Came::Right, chronicle)
        }
        Some(Failed::Run(Error::NotRecovered {
            reason: NotRecovered::SameGrant,
            deaths,
            ..
        })) => {
            assert!(deaths.len() >= 2, "{deaths:?}");
            (Came::Poison, chronicle)
        }
        Some(Failed::Command(ControlError::Failed(why))) if why.contains("died twice") => {
            (Came::Poison, chronicle)
        }
        Some(other) => panic!("{other:?} after {kills:?} in {play:?}"),
    }
}

/// A small story; with commands, so that clusters are asked between runs, too.
pub(super) fn small(seed: u64, clusters: usize, lookahead: u64) -> Play {
    let mut play = Play::new(seed);
    play.clusters = clusters;
    play.lookahead = lookahead;
    play.solitary = false;
    play.commands = false;
    play.stop = None;
    play.cut = None;
    play.asks = false;
    play.nature.frame_limit = 65_536;
    play.recovery = ALWAYS;
    play
}

fn undisturbed(play: &Play) -> u64 {
    let (came, chronicle) = survive(play, &[]);
    assert_eq!(came, Came::Right);
    assert_eq!(chronicle.processes, play.clusters);
    chronicle.packets
}

/// Kills each cluster at each packet.
fn kill_each_at_each(play: &Play) {
    kill_each(play, 1);
}

/// Kills each cluster, once at every `step`th packet, or at every packet if the effort is full.
fn kill_each(play: &Play, step: usize) {
    let step = stride(step);
    let packets = undisturbed(play);
    let mut back = 0;
    for packet in (0..packets).step_by(step) {
        for cluster in 0..play.clusters {
            let (came, chronicle) = survive(play, &[(packet, cluster)]);
            assert_eq!(came, Came::Right, "{cluster} at {packet} in {play:?}");
            back += chronicle.processes - play.clusters;
        }
    }
    // But for those that die when they are not needed any more.
    let kills = usize::try_from(packets).unwrap() / step * play.clusters;
    assert!(back * 10 > kills * 8, "{back} of {kills} came back");
}

#[test]
fn each_cluster_is_killed_at_each_packet() {
    kill_each_at_each(&small(1, 3, 0));
}

#[test]
fn each_cluster_is_killed_at_each_packet_under_a_lookahead() {
    kill_each_at_each(&small(1, 2, 1));
}

#[test]
fn each_cluster_is_killed_at_each_packet_between_many_short_runs() {
    let mut play = small(3, 2, 0);
    play.cut = Some(5);
    play.commands = true;
    kill_each(&play, 3);
}

#[test]
fn each_cluster_is_killed_at_each_packet_of_runs_that_are_interrupted() {
    // Packets take long, so that an interrupt often overtakes the grant that it ends.
    for (seed, clusters, lookahead) in [(4, 1, 0), (5, 2, 1)] {
        let mut play = small(seed, clusters, lookahead);
        play.nature.latency = 1_000;
        // A run that is cut by interrupts has more packets.
        play.nature.interrupts = (0..400).step_by(3).collect();
        kill_each(&play, 10);
    }
}

#[test]
#[ignore = "takes minutes"]
fn each_cluster_is_killed_at_each_packet_of_twenty_stories() {
    for seed in 0..20 {
        for lookahead in 0..=2 {
            let mut play = small(seed, 3, lookahead);
            let packets = undisturbed(&play);
            kill_each_at_each(&play);
            play.recovery = ALWAYS.log_limit(2_500);
            kill_each_at_each(&play);
            play.nature.interrupts = (0..packets).step_by(7).collect();
            kill_each_at_each(&play);
        }
    }
}

#[test]
fn all_clusters_are_killed_at_each_packet() {
    let play = small(6, 3, 0);
    let packets = undisturbed(&play);
    for packet in (0..packets).step_by(stride(5)) {
        let all = [(packet, 0), (packet, 1), (packet, 2)];
        let (came, outcome) = survive(&play, &all);
        assert_eq!(came, Came::Right, "at {packet}");
        assert!(outcome.processes <= 6);
    }
}

/// Kills one cluster, and another one at the same packet or some packets later: while the first
/// comes back, or just after.
fn kill_two(play: &Play, step: usize, later: &[u64]) {
    let packets = undisturbed(play);
    let mut most = 0;
    for packet in (0..packets).step_by(step) {
        for later in later {
            for (first, second) in [(0, 1), (1, 0)] {
                let kills = [(packet, first), (packet + later, second)];
                let (came, chronicle) = survive(play, &kills);
                assert_eq!(came, Came::Right, "{kills:?} in {play:?}");
                most = most.max(chronicle.processes);
            }
        }
    }
    assert_eq!(most, play.clusters + 2, "both came back");
}

#[test]
fn another_cluster_is_killed_at_once_or_while_one_comes_back() {
    kill_two(&small(14, 3, 0), stride(41), &[0, 1, 4, 9]);
    kill_two(&small(15, 2, 1), stride(29), &[0, 2, 6]);
}

#[test]
#[ignore = "takes minutes"]
fn two_and_all_clusters_are_killed_at_each_packet_of_ten_stories() {
    for seed in 0..10 {
        for lookahead in 0..=2 {
            let mut play = small(seed, 3, lookahead);
            let packets = undisturbed(&play);
            for interrupts in [0..0, 0..packets] {
                play.nature.interrupts = interrupts.step_by(7).collect();
                kill_two(&play, 1, &[0, 1, 2, 4, 8, 16]);
                for packet in 0..packets {
                    let all = [(packet, 0), (packet, 1), (packet, 2)];
                    assert_eq!(survive(&play, &all).0, Came::Right, "{packet} in {play:?}");
                }
            }
        }
    }
}

/// The second kill follows at each of the next packets: those of the replay are among them.
#[test]
fn a_cluster_is_killed_again_while_it_comes_back() {
    let play = small(7, 2, 0);
    let packets = undisturbed(&play);
    let mut came = BTreeMap::new();
    for packet in (0..packets).step_by(13) {
        for later in 1..20 {
            let kills = [(packet, 1), (packet + later, 1)];
            *came.entry(survive(&play, &kills).0).or_insert(0) += 1;
        }
    }
    // Most often it dies while main does not wait for it, or in the replay.
    assert!(came[&Came::Right] > 5 * came[&Came::Poison], "{came:?}");
}

/// Draws a story, interrupts and kills from a seed.
fn survive_by_chance(seed: u64) -> Came {
    let mut play = Play::new(seed);
    play.recovery = ALWAYS;
    let packets = undisturbed(&play);
    let chance = &mut play.chance;
    let interrupts = 0..chance.random_range(0..3_u32);
    play.nature.interrupts = interrupts
        .map(|_| chance.random_range(0..packets))
        .collect();
    let kills = 0..chance.random_range(1..=4_u32);
    let kills: Vec<_> = kills
        .map(|_| {
            (
                chance.random_range(0..packets),
                chance.random_range(0..play.clusters),
            )
        })
        .collect();
    survive(&play, &kills).0
}

#[test]
fn clusters_are_killed_by_chance() {
    let right = (0..60).map(survive_by_chance);
    let right = right.filter(|came| *came == Came::Right).count();
    assert!(right > 50, "{right}");
}

#[test]
#[ignore = "takes minutes"]
fn clusters_are_killed_by_chance_in_ten_thousand_stories() {
    let right = (0..10_000).map(survive_by_chance);
    let right = right.filter(|came| *came == Came::Right).count();
    assert!(right > 9_000, "{right}");
}

#[test]
fn a_cluster_that_dies_too_often_ends_the_run_with_all_its_deaths() {
    let mut play = small(8, 2, 0);
    play.recovery = Recovery::restart().at_most(1, Duration::from_secs(3_600));
    let packets = undisturbed(&play);
    play.nature.kills = [(packets / 4, vec![0]), (packets / 2, vec![0])].into();
    match play.outcome().failure {
        Some(Failed::Run(Error::NotRecovered {
            cluster,
            reason: NotRecovered::TooOften { most: 1, .. },
            deaths,
            ..
        })) => assert_eq!((&*cluster, deaths.len()), ("1", 2)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_process_that_dies_in_its_start_is_started_again() {
    let mut play = small(13, 2, 0);
    let packets = undisturbed(&play);
    // The third and the fourth process are the first two that are to come back.
    play.nature.stillborn = [2, 3].into();
    let (came, _) = survive(&play, &[(packets / 2, 0)]);
    assert_eq!(came, Came::Right);
    play.recovery = Recovery::restart().at_most(2, Duration::from_secs(3_600));
    play.nature.kills = [(packets / 2, vec![0])].into();
    match play.outcome().failure {
        Some(Failed::Run(Error::NotRecovered { deaths, .. })) => assert_eq!(deaths.len(), 3),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_log_begins_anew_with_the_state_of_its_cluster() {
    for (seed, lookahead) in [(11, 0), (12, 1)] {
        let mut play = small(seed, 2, lookahead);
        play.recovery = ALWAYS.log_limit(2_500);
        kill_each(&play, 7);
    }
}

/// Not even one message has room in it.
#[test]
fn a_full_log_is_an_error_at_the_next_death() {
    let mut play = small(9, 2, 0);
    play.recovery = ALWAYS.log_limit(40);
    let packets = undisturbed(&play);
    play.nature.kills = [(packets - 20, vec![0])].into();
    match play.outcome().failure {
        Some(Failed::Run(Error::NotRecovered {
            reason: NotRecovered::LogFull { limit: 40 },
            ..
        })) => {}
        other => panic!("{other:?}"),
    }
}

/// Without the policy the first death is the end, also where another cluster has it.
#[test]
fn a_policy_holds_for_its_cluster_alone() {
    let mut play = small(10, 2, 0);
    play.recovery = Recovery::stop();
    play.nature.kills = [(40, vec![0])].into();
    let failure = play.outcome().failure;
    assert!(
        matches!(failure, Some(Failed::Run(Error::ClusterDied { .. }))),
        "{failure:?}"
    );
}
