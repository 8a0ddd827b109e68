//! How runs end, where that is main's business and not the kernel's.

use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, Message)]
enum Msg {
    Ring,
}

/// Has an alarm at 10 ms.
#[derive(Serialize, Deserialize)]
struct Sleeper;

impl Agent<Msg> for Sleeper {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.set_alarm(Alarm::after(SimDuration::from_millis(10)), Msg::Ring);
    }
}

#[test]
fn a_time_limit_that_is_past_lets_nothing_happen() {
    for lookahead in [0, 1] {
        let agents = Registry::new().with::<Sleeper>().enter();
        let mut main = MpMain::builder(agents)
            .placement(Placement::Inline)
            .lookahead(SimDuration::from_millis(lookahead))
            .build()
            .unwrap();
        for id in [1, 2] {
            let cluster = main.new_cluster();
            main.add_to(cluster, id, Sleeper).unwrap();
        }
        for limit in [5, 5, 2, 0] {
            let report = main.run(Run::until(SimTime::from_millis(limit))).unwrap();
            assert_eq!(
                (report.stopped_by, report.now),
                (StopReason::TimeLimit, SimTime::from_millis(5))
            );
        }
        let report = main.run(Run::until_idle()).unwrap();
        assert_eq!(report.now, SimTime::from_millis(10));
    }
}
