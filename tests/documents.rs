//! What the documents say of files, tests and each other is true.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the tables in a document that begin with a number, cell by cell.
fn numbered_rows(document: &str) -> BTreeMap<u32, Vec<String>> {
    let mut rows = BTreeMap::new();
    for line in document.lines() {
        let row = line
            .strip_prefix("| ")
            .and_then(|row| row.strip_suffix(" |"));
        let cells = row.unwrap_or_default().split(" | ");
        let cells: Vec<_> = cells.map(|cell| cell.trim().to_owned()).collect();
        if let Ok(number) = cells[0].parse() {
            let other = rows.insert(number, cells);
            assert!(other.is_none(), "two rows have the number {number}");
        }
    }
    rows
}

/// What stands in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The tests that a cell names: `` `file`: `test`, `test`; `file`: … ``.
fn tests_named(cell: &str) -> Vec<(&str, &str)> {
    let mut named = Vec::new();
    let mut file = None;
    for word in quoted(cell) {
        if word.ends_with(".rs") {
            file = Some(word);
        } else if let Some(file) = file {
            named.push((file, word));
        }
    }
    named
}

/// Whether a file has a test of this name.
fn has_test(source: &str, name: &str) -> bool {
    // In a program that is its own harness it is a story in a table.
    if source.contains(&format!("(\"{name}\", {name}, \""))
        || source.contains(&format!("\"{name}\",\n        {name},\n"))
    {
        return true;
    }
    let function = format!("fn {name}()");
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with(&function) {
            return is_test;
        }
        // Attributes and comments may stand between.
        is_test =
            line == "#[test]" || (is_test && (line.starts_with('#') || line.starts_with("//")));
    }
    false
}

#[test]
fn every_rule_names_code_and_tests_that_exist() {
    let document = text("docs/semantics.md");
    let (_, table) = document
        .split_once("## The rules, their code and their tests")
        .unwrap();
    let rows = numbered_rows(table);
    assert!(
        (1..=23).all(|rule| rows.contains_key(&rule)),
        "{:?}",
        rows.keys()
    );
    for (rule, cells) in &rows {
        let [_, _, code, tests] = &cells[..] else {
            panic!("rule {rule} has {} cells", cells.len());
        };
        assert!(quoted(code).count() > 0, "rule {rule} names no code");
        for file in quoted(code) {
            assert!(root().join(file).exists(), "rule {rule}: no file {file}");
        }
        let tests = tests_named(tests);
        assert!(!tests.is_empty(), "rule {rule} names no test");
        for (file, name) in tests {
            assert!(
                has_test(&text(file), name),
                "rule {rule}: no test {name} in {file}"
            );
        }
    }
}

/// The chapters of the guide, in their order. The page with their list comes first.
fn chapters_of_the_guide() -> Vec<String> {
    let files = fs::read_dir(root().join("docs/guide")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut chapters: Vec<_> = names.filter(|name| name != "README.md").collect();
    chapters.sort();
    let list = text("docs/guide/README.md");
    for chapter in &chapters {
        assert!(
            list.contains(&format!("]({chapter})")),
            "the list has no {chapter}"
        );
    }
    chapters.insert(0, "README.md".to_owned());
    chapters
        .iter()
        .map(|name| format!("docs/guide/{name}"))
        .collect()
}

/// A program that a reader copies from the guide: nothing of it is hidden, and it is all there.
#[test]
fn programs_of_the_guide_can_be_pasted_whole() {
    let crate_root = text("maslite-mp/src/lib.rs");
    let chapters = chapters_of_the_guide();
    let mut guide = String::new();
    for chapter in &chapters {
        let doctest = format!("include_str!(\"../../{chapter}\")");
        assert!(crate_root.contains(&doctest), "{chapter} is no doctest");
        guide += &text(chapter);
    }
    let mut programs = 0;
    for block in guide.split("\n```rust").skip(1) {
        let (language, program) = block.split_once('\n').unwrap();
        let (program, _) = program.split_once("\n```").unwrap();
        programs += 1;
        assert!(
            language == ",test_harness" || program.contains("fn main()"),
            "no main in\n{program}"
        );
        assert!(
            !program.lines().any(|line| line.starts_with("# ")),
            "hidden lines in\n{program}"
        );
    }
    assert!(programs > 15, "{programs}");
}

/// The faults that chaos knows: its table has one in each line.
fn chaos() -> BTreeSet<String> {
    let source = text("examples/chaos/faults.rs");
    let faults = source.lines().filter_map(|line| {
        let (name, rest) = line.trim().split_once(": \"")?;
        rest.contains("\" =>").then(|| name.to_owned())
    });
    faults.collect()
}

#[test]
fn every_fault_names_tests_or_chaos_that_exist_or_says_why_not() {
    let document = text("docs/faults.md");
    let rows = numbered_rows(&document);
    assert!(rows.len() > 50, "{:?}", rows.keys());
    let known = chaos();
    let mut done = BTreeSet::new();
    for (row, cells) in &rows {
        let [_, _, _, shown] = &cells[..] else {
            panic!("row {row} has {} cells", cells.len());
        };
        let (harm, tests) = match shown.strip_prefix("chaos ") {
            Some(rest) => rest.split_once(';').unwrap_or((rest, "")),
            None => ("", shown.as_str()),
        };
        for fault in quoted(harm) {
            assert!(known.contains(fault), "row {row}: chaos has no {fault}");
            done.insert(fault.to_owned());
        }
        let tests = tests_named(tests);
        for (file, name) in &tests {
            let exists = has_test(&text(file), name);
            assert!(exists, "row {row}: no test {name} in {file}");
        }
        let is_shown = !tests.is_empty() || !harm.is_empty();
        assert!(is_shown || shown.starts_with("left out"), "row {row}");
    }
    assert_eq!(done, known, "all that chaos does is in the table");
}

/// All documents of the repository.
fn documents() -> Vec<PathBuf> {
    let folders = ["", "docs", "docs/guide"].map(|folder| root().join(folder));
    let entries = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|it| it == "md"))
        .collect()
}

/// The lines of a document outside of its programs.
fn prose(document: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    document.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// Where the links of a line lead, but for those in backticks.
fn targets(line: &str) -> Vec<String> {
    let words: String = line.split('`').step_by(2).collect();
    let links = words.split("](").skip(1);
    let targets = links.filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// The anchors of its headings, as they are made of them where the documents are read.
fn anchors(document: &str) -> BTreeSet<String> {
    let headings = prose(document).filter(|line| line.starts_with('#'));
    let anchors = headings.map(|line| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|it| it.is_alphanumeric() || " -_".contains(*it));
        kept.map(|it| if it == ' ' { '-' } else { it }).collect()
    });
    anchors.collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut links = 0;
    for path in documents() {
        let document = fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(root()).unwrap().display();
        let targets = prose(&document).flat_map(targets);
        for target in targets.filter(|target| !target.contains("://")) {
            links += 1;
            let (file, anchor) = match target.split_once('#') {
                Some((file, anchor)) => (file, Some(anchor)),
                None => (target.as_str(), None),
            };
            let there = if file.is_empty() {
                path.clone()
            } else {
                path.with_file_name(file)
            };
            assert!(there.exists(), "{shown}: nothing at {target}");
            if let Some(anchor) = anchor {
                let anchors = anchors(&fs::read_to_string(&there).unwrap());
                assert!(anchors.contains(anchor), "{shown}: no heading for {target}");
            }
        }
    }
    assert!(links > 20, "only {links} links found");
}

#[test]
fn every_example_is_named_in_the_readme() {
    let readme = text("README.md");
    for entry in fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let is_program =
            path.extension().is_some_and(|it| it == "rs") || path.join("main.rs").exists();
        let name = path.file_stem().unwrap().to_string_lossy();
        if is_program {
            assert!(readme.contains(&*name), "README.md says nothing of {name}");
        }
    }
}

#[test]
fn every_source_file_is_in_the_code_map() {
    let document = text("docs/ARCHITECTURE.md");
    for krate in ["extensions/maslite-cli", "maslite-core", "maslite-mp"] {
        let source = root().join(krate).join("src");
        let mut folders = vec![source.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let file = path.strip_prefix(&source).unwrap().display().to_string();
                let needs_none = file == "lib.rs"
                    || file.contains("/tests/")
                    || ["mod.rs", "tests.rs"]
                        .iter()
                        .any(|name| file.ends_with(&format!("/{name}")));
                let named = document.contains(&format!("`{file}`"));
                assert!(
                    needs_none || named,
                    "the code map has no {krate}/src/{file}"
                );
            }
        }
    }
}

/// Ten questions or more, each answered by a file that exists.
#[test]
fn where_to_look_is_told_by_files_that_exist() {
    let page = text("CONTRIBUTING.md");
    let (_, after) = page.split_once("## Where is …?").unwrap();
    let (section, _) = after.split_once("\n## ").unwrap();
    let answers: Vec<_> = section
        .lines()
        .filter(|line| line.starts_with("| "))
        .flat_map(quoted)
        .collect();
    assert!(answers.len() >= 10, "{answers:?}");
    for file in answers {
        assert!(root().join(file).exists(), "no file {file}");
    }
}

/// Words that named something once and were replaced by the field's word, which the glossary in
/// ARCHITECTURE.md gives.
const REPLACED: [&str; 37] = [
    "border",
    "borders",
    "brake",
    "chore",
    "console",
    "crew",
    "dawdle",
    "dawdles",
    "desk",
    "door",
    "doors",
    "fleet",
    "ground",
    "grounds",
    "homeless",
    "knock",
    "knocked",
    "knocks",
    "lookout",
    "machinery",
    "member",
    "members",
    "pulse",
    "pulses",
    "seat",
    "seated",
    "seats",
    "seldom",
    "shake",
    "shaken",
    "sheet",
    "sheets",
    "sight",
    "sights",
    "summons",
    "surroundings",
    "teller",
];

/// Names of types and fields that were replaced, whose words are good English elsewhere.
const REPLACED_NAMES: [&str; 9] = [
    "ChildDied",
    "ClockHolder",
    "Leaving",
    "Stretch",
    "Watchdog",
    "exchanges",
    "exchanges_in_run",
    "holders",
    "run_around",
];

/// Phrases that were replaced.
const REPLACED_PHRASES: [&str; 4] = [
    "hold the clock",
    "holds the clock",
    "run is called",
    "run is held",
];

/// Where such a word stands for something else: files, by the beginning of their path, and what
/// they may say.
const ELSEWHERE: [(&str, &str); 12] = [
    // Members of a workspace.
    ("CONTRIBUTING.md", "members"),
    // The agent at the door of a bakery.
    ("docs/guide/", "door"),
    // `--shake SEED`, asked for by those who call the example.
    ("examples/scenario/main.rs", "shake"),
    ("tests/examples/scenarios.rs", "shake"),
    // Agents of models.
    ("examples/phold.rs", "holders"),
    ("examples/auction.rs", "holders"),
    ("tests/no_allocation.rs", "holders"),
    // The name of a file in the corpus of the fuzzer.
    ("maslite-mp/src/dev/fuzzing.rs", "summons"),
    // A program of the rules of its own, which shares no word with the kernel.
    ("tests/testkit/src/extended/naive.rs", "seat"),
    ("tests/testkit/src/scenario/", "seat"),
    ("docs/semantics.md", "exchanges"),
    ("tests/documents.rs", ""),
];

/// The single words of a text, those in names as well, in small letters.
fn words(text: &str) -> impl Iterator<Item = String> {
    let names = text.split(|c: char| !c.is_alphabetic());
    names.flat_map(|name| {
        let mut words = vec![String::new()];
        let mut before = 'A';
        for c in name.chars() {
            if c.is_uppercase() && !before.is_uppercase() {
                words.push(String::new());
            }
            words.last_mut().unwrap().extend(c.to_lowercase());
            before = c;
        }
        words
    })
}

/// All sources and documents but the changelog, by their paths from the root.
fn sources_and_documents() -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = folder.join(&name);
            if root().join(&path).is_dir() {
                let hidden = name.starts_with('.') || name == "target" || name == "corpus";
                folders.extend((!hidden).then_some(path));
            } else if (name.ends_with(".rs") || name.ends_with(".md")) && name != "CHANGELOG.md" {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn words_that_were_replaced_do_not_come_back() {
    let mut back = Vec::new();
    for path in sources_and_documents() {
        let shown = path.to_str().unwrap();
        let text = text(&path);
        for (number, line) in (1..).zip(text.lines()) {
            // A handshake is the field's word.
            let line = line.replace("shake hands", "").replace("shakes hands", "");
            let line = line.replace("shaken hands", "").replace("shake_hands", "");
            let single = words(&line).filter(|word| REPLACED.contains(&word.as_str()));
            let names = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let names = names.filter(|name| REPLACED_NAMES.contains(name));
            let phrases = REPLACED_PHRASES
                .iter()
                .filter(|phrase| line.contains(*phrase));
            let found = single.chain(names.chain(phrases.copied()).map(str::to_owned));
            for word in found {
                let mut excused = ELSEWHERE.iter().filter(|(file, _)| shown.starts_with(file));
                if !excused.any(|(_, may)| may.is_empty() || *may == word) {
                    back.push(format!("{shown}:{number}: {word}"));
                }
            }
        }
    }
    assert!(back.is_empty(), "replaced words:\n{}", back.join("\n"));
}
