//! What children print comes out of main.

use super::*;

#[test]
#[ignore = "entry of a child that prints"]
fn loud_entry() {
    let mut child = child();
    writeln!(io::stdout(), "said {}", child.cluster).expect("main reads");
    writeln!(io::stdout(), "{}", "much ".repeat(50_000)).expect("main reads");
    eprintln!("cried {}", child.cluster);
    child.link.say(b"done").expect("main is there");
    let _ = child.link.recv();
    exit(3);
}

/// Starts two children that print, and lets them end.
fn hear(output: Output) {
    let supervisor = supervisor();
    let mut plan = plan("output::loud_entry", 2);
    plan.output = output;
    plan.program.quiet_stdout = false;
    let mut sides = start(&supervisor, plan).expect("the children start");
    for side in &mut sides {
        side.link.recv().expect("they say done");
    }
}

#[test]
#[ignore = "entry of a main process whose children print"]
fn prefixed_entry() {
    hear(Output::Prefixed);
}

#[test]
#[ignore = "entry of a main process whose children print"]
fn null_entry() {
    hear(Output::Null);
}

#[test]
fn what_children_print_is_told_apart() {
    // What the test harness says has no name before it.
    let output = |entry: &str| {
        let harness = ["--exact", "--ignored", "--nocapture"];
        let output = own_executable()
            .and_then(|mut command| {
                command
                    .arg(format!("processes::spawn::tests::{entry}"))
                    .args(harness)
                    .output()
            })
            .expect("it runs");
        [output.stdout, output.stderr].map(|bytes| {
            let text = String::from_utf8(bytes).expect("it is text");
            let lines = text.lines().filter(|line| line.starts_with("[c"));
            let mut lines: Vec<_> = lines.map(str::to_owned).collect();
            lines.retain(|line| !line.contains("running") && line.len() > 5);
            // Only the order within a child is one.
            lines.sort_by_key(|line| line[..4].to_owned());
            lines
        })
    };
    let [stdout, stderr] = output("output::prefixed_entry");
    assert_eq!(stderr, ["[c1] cried 1", "[c2] cried 2"]);
    let lengths: Vec<_> = stdout.iter().map(|line| (&line[..9], line.len())).collect();
    let mut expected = Vec::new();
    for (said, much) in [("[c1] said", "[c1] much"), ("[c2] said", "[c2] much")] {
        expected.extend([(said, 11), (much, 5 + 65_536)]);
    }
    let whole: Vec<_> = lengths
        .iter()
        .filter(|(begin, _)| !begin.contains('+'))
        .copied()
        .collect();
    assert_eq!(whole, expected);
    let pieces = lengths.iter().filter(|(begin, _)| begin.contains('+'));
    assert_eq!(
        pieces.map(|(_, length)| length - 6).sum::<usize>(),
        2 * (250_000 - 65_536)
    );
    assert_eq!(
        output("output::null_entry"),
        [Vec::<String>::new(), Vec::new()]
    );
}
