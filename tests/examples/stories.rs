//! `auction`, `production_line` and `epidemic`: outcomes against known answers, the same
//! everywhere, and pictures.

use std::path::Path;
use std::process::Command;

use crate::{EVERYWHERE, check_on, counted, program, told};

#[test]
fn the_futures_of_a_shop() {
    let told = told("what_if", &["--futures", "3"]);
    assert_eq!(told, include_str!("../../examples/what_if.out"));
}

#[test]
fn auction() {
    check_on(&EVERYWHERE, "auction", &[]);
}

/// Who thinks faster changes the course of the auction, and which of several assignments with the
/// same total is found; the lowest total has only one.
#[test]
fn the_auction_finds_the_known_assignments_with_any_seed() {
    let contracts = |seed: &str, total: &str, placement: &str| {
        let arguments = ["--seed", seed, "--total", total, "--placement", placement];
        let story = told("auction", &arguments);
        let contracts = story.lines().filter(|line| !line.starts_with("prices"));
        contracts.map(str::to_owned).collect::<Vec<_>>()
    };
    let lowest = contracts("1", "lowest", "single");
    for seed in ["2", "3", "4", "5"] {
        let highest = contracts(seed, "highest", "single");
        for placement in EVERYWHERE {
            let again = contracts(seed, "lowest", placement);
            assert_eq!(again, lowest, "{seed} {placement}");
            let again = contracts(seed, "highest", placement);
            assert_eq!(again, highest, "{seed} {placement}");
        }
        let known = "11 contracts for 2654.38, the lowest total there is";
        assert_eq!((lowest.len(), lowest[11].as_str()), (12, known));
        let known = "11 contracts for 3029.87, the highest total there is";
        assert_eq!((highest.len(), highest[11].as_str()), (12, known));
    }
}

#[test]
fn the_auction_takes_the_same_course_everywhere() {
    let story = |placement: &str| told("auction", &["--story", "--placement", placement]);
    let one = story("single");
    // A bid, its price for main and all who are interested, and who has the object now.
    assert!(one.lines().count() > 4 * 40, "{one}");
    for placement in ["inline", "processes"] {
        assert_eq!(story(placement), one, "{placement}");
    }
}

/// The example itself holds what it finds against the Hungarian method.
#[test]
fn the_auction_is_as_good_as_the_hungarian_method() {
    for seed in ["1", "2", "3"] {
        for total in ["lowest", "highest"] {
            let arguments = ["--persons", "25", "--seed", seed, "--total", total];
            let one = told(
                "auction",
                &[&arguments[..], &["--placement", "single"]].concat(),
            );
            let inline = ["--placement", "inline", "--clusters", "7"];
            let split = told("auction", &[&arguments[..], &inline].concat());
            assert!(split.contains("25 contracts for"), "{split}");
            assert_eq!(split, one, "{arguments:?}");
        }
    }
}

#[test]
fn production_line() {
    check_on(&EVERYWHERE, "production_line", &[]);
}

#[test]
fn the_line_finds_the_known_schedule_with_any_seed() {
    let known = "sequence: A E B D G F C\n\
                 makespan: 53 min, the shortest there is; as listed it would be 56 min\n";
    for seed in ["2", "3", "4", "5"] {
        for placement in EVERYWHERE {
            let arguments = ["--quiet", "--seed", seed, "--placement", placement];
            assert_eq!(told("production_line", &arguments), known, "{arguments:?}");
        }
    }
}

/// The example itself tries all sequences of a few items, and has another way to sort many.
#[test]
fn the_line_makes_what_is_drawn_in_the_shortest_time() {
    for (items, seed) in [("1", "1"), ("7", "1"), ("7", "2"), ("7", "3"), ("60", "4")] {
        let arguments = ["--items", items, "--seed", seed];
        let one = told(
            "production_line",
            &[&arguments[..], &["--placement", "single"]].concat(),
        );
        assert!(one.contains("the shortest there is"), "{one}");
        let inline = ["--placement", "inline", "--clusters", "3"];
        let split = told("production_line", &[&arguments[..], &inline].concat());
        assert_eq!(split, one, "{arguments:?}");
    }
}

const SMALL_EPIDEMIC: [&str; 4] = ["--agents", "20000", "--towns", "4"];

/// It is checked against the same epidemic without agents.
#[test]
fn epidemic() {
    check_on(
        &EVERYWHERE,
        "epidemic",
        &[&SMALL_EPIDEMIC[..], &["--check"]].concat(),
    );
}

/// A person who visits another town travels for a day, so clusters do not change the result.
#[test]
fn the_epidemic_is_the_same_in_any_number_of_clusters() {
    for seed in ["2", "3"] {
        let many_travel = ["--travellers", "0.02", "--seed", seed, "--check"];
        let epidemic = |arguments: &[&str]| {
            let arguments = [&SMALL_EPIDEMIC[..], &many_travel, arguments].concat();
            counted("epidemic", &arguments)
        };
        let (events, digest, _) = epidemic(&["--placement", "single"]);
        assert!(events > 10_000, "{events}");
        for clusters in ["1", "3", "4"] {
            for placement in ["inline", "processes"] {
                let split = epidemic(&["--clusters", clusters, "--placement", placement]);
                assert_eq!(
                    (split.0, &split.1),
                    (events, &digest),
                    "{clusters} {placement}"
                );
            }
        }
    }
}

/// The lines of progress do not get in the way of the story.
#[test]
fn the_epidemic_tells_of_every_day() {
    let arguments = [
        &SMALL_EPIDEMIC[..],
        &["--check", "--progress", "--placement", "inline"],
    ];
    let output = Command::new(program("epidemic"))
        .args(arguments.concat())
        .output()
        .unwrap();
    let golden = include_str!("../../examples/epidemic.out");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), golden);
    let days = String::from_utf8(output.stderr).unwrap();
    let days: Vec<&str> = days.lines().collect();
    // The last day of the story, a night for the letter, and the end.
    let told = golden
        .lines()
        .rev()
        .nth(2)
        .and_then(|line| line.split_whitespace().next());
    assert_eq!(days.len(), told.unwrap().parse::<usize>().unwrap() + 2);
    assert!(days.iter().all(|line| line.starts_with("day ")), "{days:?}");
}

#[test]
fn stories_draw_what_came_of_them() {
    let drawn = |name: &str, arguments: &[&str]| {
        let picture = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.svg"));
        let file = ["--placement", "inline", "--svg", picture.to_str().unwrap()];
        told(name, &[arguments, &file].concat());
        let svg = std::fs::read_to_string(&picture).unwrap();
        assert!(
            svg.starts_with("<svg") && svg.ends_with("</svg>\n"),
            "{name}"
        );
        assert!(!svg.contains("NaN"), "{name}");
        svg
    };
    let gantt = drawn("production_line", &["--quiet"]);
    // What the chart says of a stay lies under the pointer: seven items on two machines.
    assert_eq!(
        gantt.matches("</title>").count(),
        2 + 7 * 2 + 8,
        "bars and legend"
    );
    assert!(gantt.contains("<title>F on M2: 44 to 50 min</title>"));
    assert!(gantt.contains(">time [min]</text>"));
    let curves = drawn("epidemic", &SMALL_EPIDEMIC);
    assert_eq!(
        curves.matches("<polyline").count(),
        4 + 4,
        "stages and towns"
    );
    assert!(curves.contains(">time [days]</text>"));
}
