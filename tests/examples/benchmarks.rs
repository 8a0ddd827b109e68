//! `phold`, `wall_vs_sim`, `bench_links` and `soak`: digests, counts and the shape of what they
//! print.

use std::path::Path;

use crate::{LINKED, counted, number, told};

const SMALL_PHOLD: [&str; 8] = [
    "--agents",
    "60",
    "--population",
    "3",
    "--end",
    "3",
    "--seed",
    "5",
];

#[test]
fn phold_is_the_same_in_any_number_of_clusters() {
    let phold = |arguments: &[&str]| counted("phold", &[&SMALL_PHOLD[..], arguments].concat());
    let (events, digest, _) = phold(&["--placement", "single"]);
    assert!(events > 300, "{events}");
    for clusters in ["1", "2", "3", "4", "8"] {
        for place in LINKED {
            let arguments = [&["--clusters", clusters, "--no-window"], place].concat();
            let split = phold(&arguments);
            let same = (split.0, split.1.as_str()) == (events, digest.as_str());
            assert!(same, "{arguments:?}: {split:?}, not {digest}");
            assert_eq!(split.2 > 0, clusters != "1", "{arguments:?}");
        }
    }
}

/// All events are under way for the lookahead at least, so it does not even change the result.
#[test]
fn phold_is_the_same_with_a_lookahead() {
    let phold = |arguments: &[&str]| counted("phold", &[&SMALL_PHOLD[..], arguments].concat());
    let (events, digest, _) = phold(&["--placement", "single"]);
    for clusters in ["2", "3", "4", "8"] {
        for place in LINKED {
            let arguments = [&["--clusters", clusters], place].concat();
            let split = phold(&arguments);
            assert_eq!((split.0, &split.1), (events, &digest), "{arguments:?}");
        }
    }
}

/// The benchmark itself holds the digests of one and of several schedulers against each other.
#[test]
fn wall_vs_sim_draws_what_it_measures() {
    let picture = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wall_vs_sim.svg");
    let small = [
        "--agents", "20", "--end", "2", "--runs", "1", "--cross", "0.1",
    ];
    for placement in ["inline", "processes"] {
        for clusters in ["1", "3"] {
            let rest = ["--clusters", clusters, "--placement", placement, "--svg"];
            let rest = [&rest[..], &[picture.to_str().unwrap()]].concat();
            let (events, ..) = counted("wall_vs_sim", &[&small[..], &rest].concat());
            assert!(events > 100, "{placement} {clusters}: {events}");
            let svg = std::fs::read_to_string(&picture).unwrap();
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
            assert_eq!(svg.matches("efficiency").count(), 4);
        }
    }
}

/// Rounds are counted and not timed; of all other figures only the shape is looked at.
#[test]
fn bench_links_has_a_bare_loop_beside_each_figure() {
    let small = ["--json", "--runs", "1", "--scale", "0.01"];
    // Rings are there on Linux only.
    let ring = if cfg!(target_os = "linux") {
        "ring"
    } else {
        "channel"
    };
    for (waiting, link) in [("auto", ring), ("block", "channel"), ("spin", "channel")] {
        let manner = ["--waiting", waiting, "--link", link];
        let lines = told("bench_links", &[&small[..], &manner].concat());
        let lines = lines.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line["value"].is_number() && line["unit"].is_string());
            assert_eq!(line["bare"].is_number(), line["ratio"].is_number());
            assert_eq!(line["link"], link);
            let figure = line["figure"].as_str().unwrap().to_owned();
            if figure.ends_with("rounds") {
                // Two, and what the end of a run takes.
                let rounds = line["value"].as_f64().unwrap();
                assert!((2.0..2.05).contains(&rounds), "{rounds}");
            }
            (figure, line["bare"].is_number())
        });
        let expected = [
            ("lockstep_2", true),
            ("lockstep_2_rounds", false),
            ("lockstep_8", true),
            ("lockstep_8_rounds", false),
            ("round_trip", true),
            ("crossing", true),
            ("main_share_rare_mail", false),
            ("main_share_phold", false),
        ];
        let expected = expected.map(|(figure, bare)| (figure.to_owned(), bare));
        let mut expected = expected.to_vec();
        for crossing in [1, 10, 50] {
            for work in [0, 100, 1_000] {
                expected.push((format!("pays_{crossing}_{work}"), true));
            }
        }
        if link == "ring" {
            let crowd: Vec<_> = expected[8..]
                .iter()
                .map(|(figure, bare)| (figure.replace("pays", "crowd"), *bare))
                .collect();
            expected.push(("crowd_lockstep".to_owned(), true));
            expected.push(("crowd_round_trip".to_owned(), true));
            expected.extend(crowd);
            for loops in [4, 8] {
                for figure in ["round_trip", "lockstep"] {
                    expected.push((format!("crowded_{loops}_{figure}"), true));
                }
            }
        }
        for process in ["main", "1", "2"] {
            expected.push((format!("idle_{process}"), false));
        }
        assert_eq!(lines.collect::<Vec<_>>(), expected, "{waiting}");
    }
}

/// Also when it is killed while they start.
#[test]
fn no_cluster_of_a_dozen_outlives_main() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let line = told(
        "chaos",
        &[
            "--fault",
            "kill_main",
            "--clusters",
            "12",
            "--rounds",
            "5",
            "--json",
        ],
    );
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["right"], 5, "{line}");
}

#[test]
fn a_soak_accounts_for_all_messages() {
    for link in ["auto", "channel"] {
        let told = told(
            "soak",
            &[
                "--messages",
                "100000",
                "--players",
                "100",
                "--json",
                "--link",
                link,
            ],
        );
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let [sent, delivered, undeliverable, queued] =
            ["sent", "delivered", "undeliverable", "queued"].map(|name| number(&told, name));
        assert_eq!(sent, delivered + undeliverable + queued);
        assert!((100_000..=101_000).contains(&delivered), "{told}");
        assert!((50..=200).contains(&undeliverable), "{told}");
        assert_eq!(queued, 200, "each player's ball is in the air");
    }
}
