//! Agents that come and go, stay awake, pause, talk to main: any split gives what one scheduler
//! gives, and under a lookahead any placement of the same clusters gives the same.

use std::sync::{Arc, Mutex};

use maslite_mp::prelude::*;
use maslite_testkit::effort::seeds;
use maslite_testkit::lively::{FIRST, Lively, Msg, SEED, Story, cluster_of, handle, start, tell};
pub(crate) use maslite_testkit::lively::{compare, in_one_scheduler};

use crate::test_placement::{FORGETFUL, PROCESSES, PlacedOn, TestPlacement};

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Lively>()
        .entered_by_test("lively::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

pub(crate) fn in_clusters(
    seed: u64,
    count: usize,
    placement: TestPlacement,
    jitter: Option<u64>,
    lookahead: u64,
) -> Story {
    let lines = Arc::default();
    let mut main = stage(seed, count, placement, jitter, lookahead, &lines);
    let mut amnesias = 0;
    let story = tell(&lines, |heard| {
        let run = main.run_with(Run::until_idle(), |mail, main| handle(heard, mail, main));
        let report = run.unwrap().run;
        amnesias += report.amnesias;
        report
    });
    let forgets = FORGETFUL.contains(&placement) && story.counters.supersteps > 0;
    assert!(amnesias > 0 || !forgets);
    story
}

/// The same inline, where each run ends after `supersteps` supersteps, and all agents are asked
/// something before the next.
fn in_pieces(seed: u64, count: usize, lookahead: u64, supersteps: u64) -> Story {
    let lines = Arc::default();
    let mut main = stage(seed, count, TestPlacement::Inline, None, lookahead, &lines);
    let mut story = tell(&lines, |heard| {
        for agent in main.agents().unwrap() {
            main.inspect::<Lively>(agent.id).unwrap();
        }
        let run = Run::until_idle().supersteps(supersteps);
        let run = main.run_with(run, |mail, main| handle(heard, mail, main));
        run.unwrap().run
    });
    let cut = StopReason::Supersteps.to_string();
    story.stops.retain(|stop| !stop.starts_with(&cut));
    story
}

fn stage(
    seed: u64,
    count: usize,
    placement: TestPlacement,
    jitter: Option<u64>,
    lookahead: u64,
    lines: &Arc<Mutex<Vec<String>>>,
) -> MpMain<Msg> {
    let written = Arc::clone(lines);
    let mut main = MpMain::builder(agents())
        .on(placement)
        .jitter(jitter)
        .seed(SEED + seed)
        .lookahead(SimDuration::from_millis(lookahead))
        .digest()
        .trace(move |line| written.lock().unwrap().push(line.to_owned()))
        .build()
        .unwrap();
    let clusters: Vec<_> = (0..count).map(|_| main.new_cluster()).collect();
    for id in 1..=FIRST {
        let cluster = clusters[cluster_of(id, count)];
        main.add_to(cluster, id, Lively::of(seed)).unwrap();
    }
    start(seed)
        .into_iter()
        .for_each(|mail| main.send_mail(mail));
    main
}

#[test]
fn any_split_tells_the_story_of_one_scheduler() {
    let mut deliveries = 0;
    // The last one: clusters with alarms due at once, of which others have just begun to hear.
    let seeds = seeds(0..150, 40);
    let stories = seeds.clone().count() + 1;
    for seed in seeds.chain([2_021]) {
        let expected = in_one_scheduler(seed);
        deliveries += expected.trace.len();
        for count in [1, 2, 3, 4, 8] {
            let got = in_clusters(seed, count, TestPlacement::Inline, None, 0);
            compare(seed, &got, &expected, &format!("{count} clusters"));
        }
    }
    assert!(
        deliveries > 20 * stories,
        "only {deliveries} in {stories} stories: too tame"
    );
}

#[test]
fn a_story_in_pieces_is_the_same() {
    for seed in seeds(400..480, 24) {
        let expected = in_one_scheduler(seed);
        let got = in_pieces(seed, 3, 0, 1 + seed % 11);
        compare(seed, &got, &expected, "in pieces");
        for count in [3, 5] {
            let expected = in_clusters(seed, count, TestPlacement::Inline, None, 1);
            let got = in_pieces(seed, count, 1, 1 + seed % 11);
            compare(seed, &got, &expected, "under a lookahead, in pieces");
        }
    }
}

#[test]
fn processes_tell_it_too() {
    for placement in PROCESSES {
        for seed in 200..203 {
            let expected = in_one_scheduler(seed);
            for count in [1, 2, 3, 4, 8] {
                let got = in_clusters(seed, count, placement, None, 0);
                compare(seed, &got, &expected, &format!("{count} processes"));
            }
        }
    }
}

#[test]
fn under_a_lookahead_placement_changes_nothing() {
    for placement in PROCESSES {
        for seed in 300..303 {
            for count in [2, 3, 4, 8] {
                let expected = in_clusters(seed, count, TestPlacement::Inline, None, 2);
                let got = in_clusters(seed, count, placement, None, 2);
                compare(seed, &got, &expected, &format!("{count} processes"));
            }
        }
    }
}

#[test]
fn clusters_that_forget_tell_it_too() {
    for seed in seeds(500..530, 8).chain([2_021]) {
        let expected = in_one_scheduler(seed);
        for count in [1, 2, 3, 5] {
            let got = in_clusters(seed, count, TestPlacement::Forgetful, None, 0);
            compare(seed, &got, &expected, &format!("{count} clusters"));
        }
        if seed % 20 == 0 {
            let got = in_clusters(seed, 3, TestPlacement::ForgetfulRing, None, 0);
            compare(seed, &got, &expected, "3 processes");
        }
    }
}

#[test]
fn clusters_that_forget_under_a_lookahead_tell_it_too() {
    for seed in seeds(650..690, 12) {
        for (count, lookahead) in [(2, 1), (3, 2), (5, 1)] {
            let expected = in_clusters(seed, count, TestPlacement::Inline, None, lookahead);
            let got = in_clusters(seed, count, TestPlacement::Forgetful, None, lookahead);
            compare(seed, &got, &expected, &format!("{count} clusters"));
        }
        if seed % 20 == 0 {
            let expected = in_clusters(seed, 3, TestPlacement::Inline, None, 2);
            let got = in_clusters(seed, 3, TestPlacement::ForgetfulRing, None, 2);
            compare(seed, &got, &expected, "3 processes");
        }
    }
}
