//! Nothing outlives main: no child, no program of an agent, no file, no descriptor.

use super::*;

#[test]
#[ignore = "entry of a main process that is killed"]
fn dying_main_entry() {
    let (_supervisor, mut sides) = started("echo_entry", 3);
    sides[0].link.say(b"deaf").expect("alive");
    sides[1].link.say(b"interrupt").expect("alive");
    kill(id());
}

/// The children have inherited their main process's standard error, so its end shows that they are
/// gone too.
#[test]
fn no_child_outlives_its_main_process() {
    let begin = now();
    let (status, ..) = run_alone("left_behind::dying_main_entry");
    assert_eq!(ExitKind::of(Some(status)), ExitKind::Signal(9));
    assert!(begin.elapsed() < LONG, "took {:?}", begin.elapsed());
}

#[test]
#[ignore = "entry of a main process that is killed"]
fn main_with_programs_entry() {
    for carrier in CARRIERS {
        let (supervisor, mut sides) = started_over(carrier, 2);
        for side in &mut sides {
            asked(side, b"program").expect("alive");
        }
        signal(sides[1].pid, Signal::STOP);
        await_stop(sides[1].pid);
        std::mem::forget((supervisor, sides));
    }
    kill(id());
}

/// As above: what agents have started has inherited standard error as well. One child of each link
/// is stopped, so it must be woken.
#[test]
fn what_agents_have_started_does_not_outlive_a_killed_main_process() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let (status, ..) = run_alone("left_behind::main_with_programs_entry");
    assert_eq!(ExitKind::of(Some(status)), ExitKind::Signal(9));
}

#[test]
#[ignore = "entry of a child that is stopped in its start"]
fn stopped_entry() {
    kill_process(pid_of(id()), Signal::STOP).expect("it is this one");
    unreachable!("nobody continues it");
}

#[test]
#[ignore = "entry of a main process that is killed while it starts"]
fn starting_main_entry() {
    thread::spawn(|| {
        let stands = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
        // There are no children at first.
        while rustix::process::waitid(WaitId::All, stands).is_err() {
            thread::yield_now();
        }
        kill(id());
    });
    let error = refused("left_behind::stopped_entry", 1);
    panic!("{error}");
}

#[test]
fn a_child_that_is_stopped_in_its_start_does_not_outlive_a_killed_main_process() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let (status, ..) = run_alone("left_behind::starting_main_entry");
    assert_eq!(ExitKind::of(Some(status)), ExitKind::Signal(9));
}

/// In a process of its own, where no other test opens files or starts threads.
#[test]
#[ignore = "entry of the test below"]
fn leak_entry() {
    let mut before = None;
    for round in 0..50 {
        let mut supervisor = supervisor();
        let mut plan = plan("echo_entry", 2);
        plan.output = Output::Null;
        let mut sides = start(&supervisor, plan).expect("the children start");
        assert_eq!(asked(&mut sides[1], b"hello").expect("alive"), b"hello");
        supervisor.expect_exits();
        let grace = if round % 2 == 0 {
            sides[0].link.say(b"stop").expect("alive");
            LONG
        } else {
            Duration::ZERO
        };
        drop(sides);
        for end in supervisor.wait_all(grace) {
            assert!(!Path::new(&format!("/proc/{}", end.pid)).exists(), "reaped");
        }
        assert!(matches!(
            refused("handshake::forgetful_entry", 2),
            SpawnError::ExitedBeforeHello { .. }
        ));
        let open = (entries("/proc/self/fd"), entries("/proc/self/task"));
        assert_eq!(*before.get_or_insert(open), open, "in round {round}");
    }
}

#[test]
fn nothing_is_left_behind() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let (status, stderr, left) = run_alone("left_behind::leak_entry");
    assert!(status.success(), "{stderr}");
    assert_eq!(left, 0, "temporary files are left");
}
