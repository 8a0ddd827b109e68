//! Limits and circumstances of a start: descriptors, lengths of files, directories, a program that
//! was replaced.

use super::*;

/// In a process of its own, which may open 100 descriptors.
#[test]
#[ignore = "entry of the test below"]
fn few_descriptors_entry() {
    let supervisor = supervisor();
    let mut plan = plan("echo_entry", 1);
    plan.carrier = Link::Channel;
    plan.output = Output::Prefixed;
    plan.program.quiet_stdout = false;
    let mut sides = start(&supervisor, plan.clone()).expect("one can be had");
    let before = entries("/proc/self/fd");
    plan.clusters = vec![(7, "c7".to_owned()), (8, "c8".to_owned())];
    sides.extend(start(&supervisor, plan.clone()).expect("three can be had"));
    let taken = entries("/proc/self/fd") - before;
    assert_eq!(taken, 2 * DESCRIPTORS_PER_CHILD);
    plan.clusters = (10..110)
        .map(|number| (number, format!("c{number}")))
        .collect();
    let error = start(&supervisor, plan.clone())
        .err()
        .expect("it is refused");
    let SpawnError::TooManyClusters {
        asked,
        possible,
        limit,
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((asked, limit), (100, 100));
    assert_eq!(supervisor.pids().len(), sides.len(), "none was started");
    plan.clusters.truncate(possible + 1);
    let error = start(&supervisor, plan.clone())
        .err()
        .expect("it is refused");
    assert!(
        matches!(error, SpawnError::TooManyClusters { .. }),
        "{error}"
    );
    plan.clusters.truncate(possible);
    sides.extend(start(&supervisor, plan.clone()).expect("this number can be started"));
    for side in &mut sides {
        assert_eq!(asked_of(side), b"hello");
    }
}

/// In a process of its own, whose files may have 1 MB.
#[test]
#[ignore = "entry of the test below"]
fn short_files_entry() {
    let (_supervisor, mut sides) = started_over(Link::Auto, 2);
    assert!(sides.iter().all(|side| side.carrier == Link::Channel));
    assert_eq!(asked_of(&mut sides[1]), b"hello");
    let error = refused_over(Link::Ring, "echo_entry", 1);
    let SpawnError::NoLink { source, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(
        source.to_string(),
        "files may have 1048576 bytes here (RLIMIT_FSIZE), and a ring needs 2101248: raise the limit (ulimit -f), or use channels"
    );
}

/// The system would end main with a signal if it asked for more.
#[test]
fn a_limit_on_the_length_of_files_is_asked_before_a_ring_is_made() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let output = Command::new("bash")
        .args(["-c", "ulimit -f 1024; exec \"$0\" \"$@\""])
        .arg(env::current_exe().expect("this is it"))
        .args([
            "processes::spawn::tests::limits::short_files_entry",
            "--exact",
            "--ignored",
        ])
        .output()
        .expect("there is a shell");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

fn asked_of(side: &mut MainSide) -> Vec<u8> {
    asked(side, b"hello").expect("alive")
}

#[test]
fn more_children_than_there_are_descriptors_for_are_refused() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 100; exec \"$0\" \"$@\""])
        .arg(env::current_exe().expect("this is it"))
        .args([
            "processes::spawn::tests::limits::few_descriptors_entry",
            "--exact",
            "--ignored",
        ])
        .output()
        .expect("there is a shell");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
#[ignore = "entry of the test below"]
fn no_place_for_files_entry() {
    for carrier in [Link::Channel, Link::Auto] {
        let supervisor = supervisor();
        let mut plan = plan("echo_entry", 2);
        plan.carrier = carrier;
        let mut sides = start(&supervisor, plan).expect("the children start");
        assert_eq!(asked_of(&mut sides[1]), b"hello");
    }
}

/// Nothing of a start is in the file system, not even for a moment: a main process that is killed
/// then would leave it there.
#[test]
fn a_start_needs_no_directory_for_temporary_files_and_no_umask() {
    let too_long = format!("/{}", "a".repeat(89));
    for directory in ["/nowhere/at/all", "/proc/self", "/dev/null", &too_long] {
        let output = Command::new("sh")
            .args(["-c", "umask 777; exec \"$0\" \"$@\" --exact --ignored"])
            .arg(env::current_exe().expect("this is it"))
            .arg("processes::spawn::tests::limits::no_place_for_files_entry")
            .env("TMPDIR", directory)
            .output()
            .expect("there is a shell");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

#[test]
#[ignore = "entry of the test below"]
fn deleted_program_entry() {
    let path = env::current_exe().expect("this is it");
    fs::remove_file(&path).expect("it is a copy");
    fs::write(&path, "#!/bin/sh\nexit 55\n").expect("it can be written");
    let (_supervisor, mut sides) = started("echo_entry", 1);
    assert_eq!(asked_of(&mut sides[0]), b"hello");
    fs::remove_file(&path).expect("it is there");
}

#[test]
fn a_program_that_was_replaced_while_it_runs_starts_its_own_children() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let copy = env::temp_dir().join(format!("maslite-copy-{}", id()));
    fs::copy(env::current_exe().expect("this is it"), &copy).expect("there is room");
    let output = Command::new(&copy)
        .args([
            "processes::spawn::tests::limits::deleted_program_entry",
            "--exact",
            "--ignored",
        ])
        .output()
        .expect("it runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(!copy.exists());
}
