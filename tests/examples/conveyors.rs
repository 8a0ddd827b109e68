//! `conveyors`: the same hand-overs in any number of schedulers.

use crate::{LINKED, counted, told};

/// What happens in a row of conveyors, one line for each delivery; and the digest of it.
fn handed_over(schedulers: &str, rest: &[&str]) -> (Vec<String>, String) {
    let row = ["--conveyors", "9", "--units", "5", "--seed", "3"];
    let row = [&row[..], &["--schedulers", schedulers], rest].concat();
    let story = told("conveyors", &row);
    let moves = story.lines().filter(|line| !line.starts_with("conveyor"));
    let (_, digest, _) = counted("conveyors", &row);
    (moves.map(str::to_owned).collect(), digest)
}

#[test]
fn conveyors_hand_over_the_same_in_any_number_of_schedulers() {
    let one = handed_over("1", LINKED[0]);
    // Of each unit on each conveyor but the last: its end, and three messages.
    assert!(one.0.len() > 5 * 8 * 4, "{one:?}");
    for schedulers in ["1", "2", "3", "4", "8", "9"] {
        for place in LINKED {
            assert_eq!(
                handed_over(schedulers, place),
                one,
                "{schedulers} {place:?}"
            );
        }
    }
}

/// Every hand-over between schedulers then takes three times the lookahead.
#[test]
fn conveyors_with_a_lookahead_hand_over_the_same_everywhere() {
    for schedulers in ["2", "3", "8"] {
        let [inline, others @ ..] = LINKED.map(|place| {
            let lookahead = ["--lookahead", "20"];
            handed_over(schedulers, &[&lookahead[..], place].concat())
        });
        assert!(inline.0.len() > 5 * 8 * 4, "{inline:?}");
        assert_ne!(inline, handed_over(schedulers, LINKED[0]));
        for other in others {
            assert_eq!(other, inline, "{schedulers}");
        }
    }
}
