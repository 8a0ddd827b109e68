//! Jitter on links changes nothing: the scenarios and agents of the other files.
//!
//! Each kind of run is compared with what knows no links at all: the naive program of the rules,
//! one scheduler, the slow model of lookahead.

use std::cell::RefCell;
use std::collections::BTreeSet;

use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

use crate::test_placement::{PROCESSES, TestPlacement};
use crate::{lively, lookahead, scenario_traces};

/// How often the same thing is run inline, in another order of work each time.
const ORDERS: u64 = 4;

thread_local! {
    /// Who has worked in this thread, in order.
    static WORKED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

#[derive(Clone, Serialize, Deserialize, Message)]
enum Msg {}

/// Does what no agent of a model must do: it tells others something without mail.
#[derive(Serialize, Deserialize)]
struct Gossip;

impl Agent<Msg> for Gossip {
    fn update(&mut self, ctx: &mut Context<'_, Msg>) {
        WORKED.with_borrow_mut(|worked| worked.push(ctx.id().as_u64()));
    }
}

#[test]
fn a_model_that_cheats_is_found_out_inline() {
    let order = |jitter| {
        let agents = Registry::new().with::<Gossip>().enter();
        let settings = MpMain::builder(agents).placement(Placement::Inline);
        let mut main = settings.jitter(jitter).build().unwrap();
        for id in 1..=3_u64 {
            let cluster = main.new_cluster();
            main.add_to(cluster, id, Gossip).unwrap();
        }
        main.run(Run::until_idle()).unwrap();
        WORKED.take()
    };
    assert_eq!(order(None), [1, 2, 3]);
    let orders: BTreeSet<_> = (0..20).map(|jitter| order(Some(jitter))).collect();
    assert!(orders.len() > 2, "{orders:?}");
    assert_eq!(order(Some(5)), order(Some(5)));
}

/// Some over rings, some over channels.
fn by_turns(seed: u64) -> TestPlacement {
    PROCESSES[usize::from(seed % 2 == 1)]
}

#[test]
fn scenarios_inline() {
    for seed in 2000..2040 {
        for clusters in [3, 8] {
            scenario_traces::check(seed, clusters, TestPlacement::Inline, Some(seed));
        }
    }
}

#[test]
fn scenarios_in_processes() {
    for seed in 2000..2008 {
        scenario_traces::check(seed, 3, by_turns(seed), Some(seed));
    }
    scenario_traces::check(2008, 8, TestPlacement::Ring, Some(1));
}

#[test]
fn scenarios_under_a_lookahead_inline() {
    for seed in 2000..2040 {
        lookahead::check(seed, 3, TestPlacement::Inline, Some(seed), &[]);
        lookahead::check(seed, 8, TestPlacement::Inline, Some(seed), &[1, 5, 6]);
    }
}

#[test]
fn scenarios_under_a_lookahead_in_processes() {
    for seed in 2000..2008 {
        lookahead::check(seed, 3, by_turns(seed), Some(seed), &[2, 5]);
    }
    lookahead::check(2008, 8, TestPlacement::Ring, Some(1), &[]);
}

#[test]
fn lively_agents_inline() {
    for seed in 2000..2020 {
        let expected = lively::in_one_scheduler(seed);
        for count in [2, 3, 8] {
            for jitter in 0..ORDERS {
                let got = lively::in_clusters(seed, count, TestPlacement::Inline, Some(jitter), 0);
                let of = format!("{count} clusters, jitter {jitter}");
                lively::compare(seed, &got, &expected, &of);
            }
        }
    }
}

#[test]
fn lively_agents_in_processes() {
    for seed in 2000..2005 {
        let expected = lively::in_one_scheduler(seed);
        let got = lively::in_clusters(seed, 3, by_turns(seed), Some(seed), 0);
        lively::compare(seed, &got, &expected, "3 processes, jitter");
    }
}

#[test]
fn lively_agents_under_a_lookahead() {
    for seed in 2000..2020 {
        let expected = lively::in_clusters(seed, 3, TestPlacement::Inline, None, 2);
        for jitter in 0..ORDERS {
            let got = lively::in_clusters(seed, 3, TestPlacement::Inline, Some(jitter), 2);
            lively::compare(seed, &got, &expected, &format!("jitter {jitter}"));
        }
        if seed < 2005 {
            let got = lively::in_clusters(seed, 3, by_turns(seed), Some(seed), 2);
            lively::compare(seed, &got, &expected, "3 processes, jitter");
        }
    }
}
