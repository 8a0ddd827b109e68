//! Every example that tells a story tells the story that lies beside it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;

use maslite_testkit::interruptible::interruptible;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// The example, built as these tests were. Plain `cargo test` has built it; `cargo test --test
/// examples` has not.
fn program(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    // target/debug/deps/examples-… → target/debug
    let tests = std::env::current_exe().unwrap();
    let target = tests.parent().and_then(Path::parent).unwrap();
    BUILT.call_once(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.args(["build", "--quiet", "--examples"]);
        if target.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success());
    });
    target.join("examples").join(name)
}

/// What an example prints.
fn told(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(program(name))
        .args(arguments)
        .output()
        .unwrap();
    let [story, errors] =
        [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    assert!(
        output.status.success(),
        "{name} {arguments:?}:\n{story}{errors}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Compares what an example prints with the file beside it, in clusters.
fn check(name: &str, arguments: &[&str]) {
    check_on(&["inline", "processes"], name, arguments);
}

/// Where the stories run that can do without clusters, too.
const EVERYWHERE: [&str; 3] = ["single", "inline", "processes"];

fn check_on(placements: &[&str], name: &str, arguments: &[&str]) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.out"));
    let golden = std::fs::read_to_string(golden).unwrap();
    for placement in placements {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--placement", placement]);
        assert_eq!(told(name, &arguments), golden, "{name} {arguments:?}");
    }
}

#[test]
fn chain_signing() {
    check("chain_signing", &[]);
}

#[test]
fn the_readme_shows_what_chain_signing_prints() {
    let golden = include_str!("../examples/chain_signing.out");
    let shown = format!("```text\n{golden}```\n");
    assert!(include_str!("../README.md").contains(&shown), "{shown}");
}

#[test]
fn chain_signing_is_the_same_in_any_number_of_schedulers() {
    let hops = |schedulers: &str, placement: &str| {
        let arguments = ["--agents", "40", "--schedulers", schedulers, "--seed", "7"];
        let story = told(
            "chain_signing",
            &[&arguments[..], &["--placement", placement]].concat(),
        );
        let hops = story
            .lines()
            .filter(|line| line.starts_with("hop") || line.starts_with("contract"));
        hops.map(str::to_owned).collect::<Vec<_>>()
    };
    let one = hops("1", "inline");
    assert!(one.len() > 40, "{one:?}");
    for schedulers in ["2", "3", "8", "16"] {
        for placement in ["inline", "processes"] {
            assert_eq!(hops(schedulers, placement), one, "{schedulers} {placement}");
        }
    }
}

/// A contract that goes around for long, with Ctrl-C as a terminal's programs have it.
fn long_chain_signing() -> Child {
    let arguments = ["--agents", "3000", "--schedulers", "2"];
    let mut command = interruptible(program("chain_signing"));
    command.args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn send_sigint(child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::INT).unwrap();
}

#[test]
fn ctrl_c_ends_the_run_of_chain_signing_and_a_second_one_the_program() {
    let mut child = long_chain_signing();
    let mut story = BufReader::new(child.stdout.take().unwrap());
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("hop 0") {
        line.clear();
        assert_ne!(story.read_line(&mut line).unwrap(), 0, "no hop");
    }
    // Nobody reads the story from here on, so the run waits at a full pipe and cannot end.
    send_sigint(&child);
    line.clear();
    errors.read_line(&mut line).unwrap();
    assert_eq!(line, "stopping the run; Ctrl-C again ends the program\n");
    send_sigint(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));

    let mut child = long_chain_signing();
    let mut story = BufReader::new(child.stdout.take().unwrap());
    let mut told = String::new();
    story.read_line(&mut told).unwrap();
    while !told.contains("hop 0") {
        assert_ne!(story.read_line(&mut told).unwrap(), 0, "no hop");
    }
    send_sigint(&child);
    story.read_to_string(&mut told).unwrap();
    let mut why = String::new();
    let mut errors = child.stderr.take().unwrap();
    errors.read_to_string(&mut why).unwrap();
    assert!(told.ends_with("stopping\nscheduler 2 stopped\nscheduler 1 stopped\nall stopped\n"));
    assert_eq!(
        why,
        "stopping the run; Ctrl-C again ends the program\nno contract: the run ended by interrupted\n"
    );
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn conveyors() {
    check("conveyors", &[]);
}

/// Where the clusters of an example can run, and with which links.
const LINKED: [&[&str]; 4] = [
    &["--placement", "inline"],
    &["--placement", "processes"],
    &["--placement", "inline", "--jitter", "7"],
    &["--placement", "processes", "--jitter", "7"],
];

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

#[test]
fn process_commands() {
    check("process_commands", &[]);
}

#[test]
fn remote_control() {
    check("remote_control", &[]);
}

/// What is written of a run beside how long it took: events, digest, mail that crossed.
fn counted(name: &str, arguments: &[&str]) -> (u64, String, u64) {
    let object = told(name, &[arguments, &["--json"]].concat());
    let object: serde_json::Value = serde_json::from_str(&object).unwrap();
    for number in [
        "sim_s",
        "wall_s",
        "ratio",
        "events",
        "events_per_s",
        "supersteps",
        "routed",
    ] {
        assert!(object[number].is_number(), "{name}: {number} in {object}");
    }
    let digest = object["digest"].as_str().unwrap();
    assert_eq!(digest.len(), 16, "{name}: {digest}");
    let count = |what: &str| object[what].as_u64().unwrap();
    (count("events"), digest.to_owned(), count("routed"))
}

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

/// Every fault comes to the right end a few times, and nothing is left. How long that takes is for those who
/// measure.
#[test]
fn chaos_comes_to_the_right_ends() {
    if !cfg!(target_os = "linux") {
        return;
    }
    chaos_is_right("2", "3");
    let unknown = Command::new(program("chaos"))
        .args(["--fault", "of mine"])
        .output();
    assert!(!unknown.unwrap().status.success());
}

#[test]
fn chaos_in_one_cluster_comes_to_the_right_ends() {
    if cfg!(target_os = "linux") {
        chaos_is_right("1", "1");
    }
}

fn chaos_is_right(rounds: &str, clusters: &str) {
    let listed = told("chaos", &["--list"]);
    let listed: Vec<_> = listed
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let lines = told(
        "chaos",
        &["--rounds", rounds, "--clusters", clusters, "--json"],
    );
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let tried: Vec<_> = lines
        .iter()
        .map(|line| line["fault"].as_str().unwrap())
        .collect();
    assert_eq!(tried, listed);
    for line in &lines {
        let [wanted, right] = ["rounds", "right"].map(|count| line[count].to_string());
        assert_eq!([&*wanted, &*right], [rounds; 2], "{line}");
        assert!(
            line["p50_ms"].is_number() && line["p99_ms"].is_number(),
            "{line}"
        );
        assert!(line["max_ms"].is_number(), "{line}");
        for left in ["left_processes", "left_fds", "left_files"] {
            assert!(line[left] == 0, "{left} in {line}");
        }
    }
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
    // A bid, its price for main and whoever is interested, and who has the object now.
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

/// Who visits somebody in another town travels for a day, so clusters do not change the result.
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
    let golden = include_str!("../examples/epidemic.out");
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

/// A number in an object that an example prints.
fn number(told: &serde_json::Value, name: &str) -> u64 {
    told[name].as_u64().unwrap_or_else(|| panic!("{told}"))
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

/// Writes a file for one test, and tells where.
fn written(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_scenario_tells_more_than_a_report_holds() {
    let ids = Vec::from_iter(2..=30)
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>();
    let agents = ids.iter().map(|id| {
        format!(r#"{{"id": {id}, "subscribe": [], "rules": [], "setup": [{{"keep": {{"awake": true}}}}]}}"#)
    });
    let scenario = format!(
        r#"{{"clusters": [[1], [{}]], "start": [{{"from": 0, "to": 1, "topic": "A", "ttl": 1}}], "run": {{}},
            "agents": [{}, {{"id": 1, "subscribe": [], "rules": [{{"on": "A", "do": [{{"spin": {{"until": "B", "most": 99}}}}]}}]}}]}}"#,
        ids.join(", "),
        agents.collect::<Vec<_>>().join(", "),
    );
    let file = written("many_awake.json", &scenario);
    let mut traces = Vec::new();
    for placement in ["alone", "inline", "processes"] {
        let trace = file.with_extension(placement);
        let arguments = ["--placement", placement, "--trace"];
        let mut arguments = Vec::from(arguments);
        arguments.extend([trace.to_str().unwrap(), file.to_str().unwrap()]);
        told("scenario", &arguments);
        traces.push(std::fs::read_to_string(trace).unwrap());
    }
    // A line for each agent in each of a hundred supersteps.
    assert_eq!(traces[0].lines().count(), 30 * 100);
    assert_eq!(traces[0].matches(r#""awake""#).count(), 29 * 100);
    assert!(traces[1..].iter().all(|trace| *trace == traces[0]));
}

#[test]
fn a_scenario_that_fails_or_cannot_begin_says_so() {
    let stories =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/multiprocess/scenarios/extended");
    let status = |arguments: &[&str]| {
        let output = Command::new(program("scenario")).args(arguments).output();
        output.unwrap().status.code()
    };
    let panics = stories.join("a_panic_in_teardown.json");
    let malformed = written("malformed.json", r#"{"clusters": []}"#);
    let trace = Path::new(env!("CARGO_TARGET_TMPDIR")).join("malformed.jsonl");
    for placement in ["alone", "inline", "processes"] {
        let placed = ["--placement", placement];
        assert_eq!(
            status(&[&placed[..], &[panics.to_str().unwrap()]].concat()),
            Some(1)
        );
        let arguments = [
            malformed.to_str().unwrap(),
            "--trace",
            trace.to_str().unwrap(),
        ];
        assert_eq!(status(&[&placed[..], &arguments].concat()), Some(2));
        assert!(!trace.exists());
    }
    assert_eq!(
        status(&["--placement", "threads", panics.to_str().unwrap()]),
        Some(2)
    );
}

#[test]
fn a_steered_scenario_tells_the_same() {
    let stories =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/multiprocess/scenarios/extended");
    for story in [
        "an_agent_spins_until_it_hears",
        "the_owner_adds_agents",
        "random_3",
    ] {
        let file = stories.join(story).with_extension("json");
        let expected = std::fs::read_to_string(file.with_extension("summary")).unwrap();
        for placement in ["alone", "inline", "processes"] {
            for seed in ["1", "2"] {
                let arguments = ["--placement", placement, "--steer", seed, "--shake", seed];
                let arguments = [&arguments[..], &[file.to_str().unwrap()]].concat();
                assert_eq!(
                    told("scenario", &arguments),
                    expected,
                    "{story} {arguments:?}"
                );
            }
        }
    }
}

#[test]
fn every_example_explains_itself() {
    for name in [
        "chain_signing",
        "scenario",
        "bench_kernel",
        "bench_links",
        "chaos",
        "conveyors",
        "phold",
        "process_commands",
        "remote_control",
        "soak",
        "wall_vs_sim",
        "auction",
        "production_line",
        "epidemic",
    ] {
        let help = told(name, &["--help"]);
        assert!(help.contains("Usage:"), "{name}: {help}");
    }
}

/// A simulation that goes on until it is interrupted.
fn endless(arguments: &[&str]) -> Command {
    let mut command = interruptible(program("phold"));
    command.args(["--agents", "100", "--end", "1000000000"]);
    command.args(arguments).stdout(Stdio::null());
    command
}

fn interrupt(mut child: Child) {
    let pid = i32::try_from(child.id()).unwrap();
    let pid = Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn long_runs_tell_a_terminal_how_far_they_have_come() {
    for placement in [&["--clusters", "2"][..], &["--placement", "inline"]] {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let name = name.into_string().unwrap();
        let their_end = File::options().write(true).open(name).unwrap();
        let child = endless(placement).stderr(their_end).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(File::from(terminal))
            .read_line(&mut line)
            .unwrap();
        for part in [" s of ", " s simulated (", " events/s"] {
            assert!(line.contains(part), "{line:?}");
        }
        // It moves, also where a cluster runs alone and main hears nothing of it.
        assert!(!line.starts_with("0 s"), "{line:?}");
        assert!(!line.contains("; 0 events/s"), "{line:?}");
        interrupt(child);
    }
}

#[test]
fn long_runs_tell_nothing_where_there_is_no_terminal() {
    let mut child = endless(&[]).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = child.stderr.take().unwrap();
    // A line would be there by now.
    let mut ready = [PollFd::new(&stderr, PollFlags::IN)];
    let limit = Timespec {
        tv_sec: 4,
        tv_nsec: 0,
    };
    assert_eq!(poll(&mut ready, Some(&limit)).unwrap(), 0);
    interrupt(child);
}
