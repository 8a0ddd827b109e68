use maslite_core::internal::ReportInternals;
use maslite_core::{SimTime, StopReason};

use super::*;
use crate::settings::SimulationId;

/// A report of clusters that were busy for so long [ms].
fn report(placement: Placement, wall: u64, main: u64, busy: &[u64]) -> MpReport {
    let wall = Duration::from_millis(wall);
    let simulation = SimulationId::default();
    let cluster = |(number, busy): (usize, &u64)| ClusterReport {
        id: ClusterId::new(simulation, number, "c"),
        name: format!("c{}", number + 1),
        pid: 1,
        link: None,
        lookahead: None,
        events: 0,
        busy: Duration::from_millis(*busy),
        blocked: Duration::ZERO,
        waiting: Duration::ZERO,
        mail_in: 0,
        mail_out: 0,
        awake: 0,
        memory: None,
        counters: Counters::default(),
        total: Counters::default(),
    };
    MpReport {
        run: Report::new(StopReason::Idle, SimTime::ZERO, SimTime::ZERO, wall),
        events: 0,
        local: 0,
        routed: 0,
        held_back: 0,
        held_back_to_main: 0,
        rounds: 0,
        seed: 0,
        placement,
        startup: None,
        main_busy: Duration::from_millis(main),
        main_memory: None,
        flows: Vec::new(),
        recoveries: Vec::new(),
        dropped: Vec::new(),
        left_out: Vec::new(),
        clusters: busy.iter().enumerate().map(cluster).collect(),
        versions: Versions {
            processors: 2,
            ..Versions::here()
        },
    }
}

fn with_lookahead(mut report: MpReport) -> MpReport {
    for cluster in &mut report.clusters {
        cluster.lookahead = Some(SimDuration::from_millis(1));
    }
    report
}

#[test]
fn a_bound_takes_processors_and_the_heaviest_part_into_account() {
    let even = report(
        Placement::Inline,
        1_000,
        0,
        &[160, 140, 140, 140, 140, 140, 140],
    );
    let expected = "cluster c1 does 16 % of the work of all clusters and there are 2 processors, so processes could \
                    make this run at most 2.0 times as fast";
    assert_eq!(even.advice(), expected);
    let uneven = report(Placement::Inline, 1_000, 0, &[800, 100, 100]);
    let expected = "cluster c1 does 80 % of the work of all clusters and there are 2 processors, so processes could \
                    make this run at most 1.2 times as fast";
    assert_eq!(uneven.advice(), expected);
}

#[test]
fn exchanges_that_would_cost_more_than_processes_gain_are_named() {
    let mut inline = report(Placement::Inline, 1_000, 0, &[500, 500]);
    inline.rounds = 1_000_000;
    let expected = "processes would not pay: 1000000 rounds would take longer than parallel work saves; \
                    a lookahead, or a single cluster, would avoid most rounds";
    assert_eq!(inline.advice(), expected);
}

#[test]
fn the_cause_that_costs_most_is_named() {
    let mut waiting = report(Placement::Processes, 152_000, 3_000, &[4_500, 3_500]);
    waiting.rounds = 700_000;
    let verdict = "processes did not pay: all clusters together worked for 8.000 s, so one process would take about as \
     long, and the run took 152.000 s";
    let cause =
        "for 93 % of the time no process worked, and all waited for the messages of 700000 rounds";
    assert_eq!(
        waiting.advice(),
        format!("{verdict}; {cause}: a lookahead, or a single cluster, would avoid most rounds")
    );
    assert_eq!(
        with_lookahead(waiting).advice(),
        format!(
            "{verdict}; {cause}: a longer lookahead, or a single cluster, would need fewer rounds"
        )
    );
    let main = report(Placement::Processes, 1_000, 600, &[550, 550]);
    assert_eq!(
        main.advice(),
        "processes paid: on average 1.1 of 2 clusters were at work at the same time; main was at work for 60 % of the \
         time, while clusters waited: a lookahead, or a single cluster, would avoid most rounds"
    );
    let uneven = report(Placement::Processes, 1_000, 10, &[980, 200]);
    assert_eq!(
        uneven.advice(),
        "processes paid: on average 1.2 of 2 clusters were at work at the same time; cluster c1 does 83 % of the work, \
         and the others wait for it for 39 % of the time: divide it"
    );
    let even = report(Placement::Processes, 1_000, 10, &[950, 940]);
    let expected = "processes paid: on average 1.9 of 2 clusters were at work at the same time";
    assert_eq!(even.advice(), expected);
}
