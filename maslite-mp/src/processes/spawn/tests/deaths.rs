//! Children that are killed, exit, or cannot be killed: main hears of it, even if another process
//! holds the ends of the link.

use super::*;

#[test]
fn a_kill_while_main_waits_for_that_child() {
    kill_during(b"deaf", 1);
}

#[test]
fn a_kill_while_main_waits_for_another_child() {
    kill_during(b"deaf", 0);
}

#[test]
fn a_kill_in_the_middle_of_a_message() {
    kill_during(b"endless", 1);
}

/// Waits for the end of a link.
fn breaks(mut side: MainSide) {
    let (say, said) = mpsc::channel();
    thread::spawn(move || {
        let error = loop {
            if let Err(error) = side.link.recv() {
                break error;
            }
        };
        say.send(error)
    });
    let error = said.recv_timeout(LONG).expect("the wait for the link ends");
    assert!(matches!(error, LinkError::Disconnected), "{error:?}");
}

/// Holds the sockets of a child, as a process does that it has forked. None if the system does not
/// allow it.
fn held_sockets(pid: u32) -> Option<Vec<OwnedFd>> {
    let process = pidfd_open(pid_of(pid), PidfdFlags::empty()).ok()?;
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let numbers = files.filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok());
    let files = numbers.map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()));
    let files = files.collect::<Result<Vec<_>, _>>().ok()?;
    Some(files)
}

#[test]
fn a_link_breaks_although_others_hold_the_childs_ends() {
    if !cfg!(target_os = "linux") {
        return;
    }
    for carrier in CARRIERS {
        let (supervisor, mut sides) = started_over(carrier, 2);
        let Some(_held) = held_sockets(sides[1].pid) else {
            return;
        };
        sides[1].link.say(b"exit 7").expect("alive");
        let side = sides.pop().expect("there are two");
        breaks(side);
        let Some(Failure::Died { cluster, exit, .. }) = supervisor.first_death(LONG) else {
            panic!("nobody died");
        };
        assert_eq!((cluster, exit), (2, ExitKind::Code(7)));
    }
}

#[test]
fn what_a_child_said_before_its_end_is_heard_although_others_hold_its_ends() {
    if !cfg!(target_os = "linux") {
        return;
    }
    for carrier in CARRIERS {
        let (mut supervisor, mut sides) = started_over(carrier, 1);
        let mut side = sides.pop().expect("there is one");
        let Some(_held) = held_sockets(side.pid) else {
            return;
        };
        supervisor.expect_exits();
        for said in [&b"last"[..], b"stop"] {
            side.link.say(said).expect("alive");
        }
        assert_eq!(supervisor.wait_all(LONG)[0].how, EndKind::Clean);
        assert_eq!(side.link.recv().expect("it was sent"), b"last");
        breaks(side);
    }
}

/// A frozen process, or one that waits in the kernel for a device that does not answer.
#[test]
fn a_child_that_cannot_be_killed_keeps_nobody() {
    if !cfg!(target_os = "linux") {
        return;
    }
    for carrier in CARRIERS {
        let (mut supervisor, sides) = started_over(carrier, 2);
        supervisor.run_job(|watch| watch.make_immortal(0));
        let frozen = sides[0].pid;
        signal(frozen, Signal::STOP);
        await_stop(frozen);
        supervisor.interrupter().kill_all();
        sides.into_iter().for_each(breaks);
        assert!(matches!(
            supervisor.first_death(LONG),
            Some(Failure::Interrupted)
        ));
        let ends = supervisor.wait_all(Duration::ZERO);
        let ends = ends.iter().map(|end| end.how).collect::<Vec<_>>();
        assert_eq!(ends, [EndKind::Leaked, EndKind::Killed]);
    }
}

#[test]
fn an_exit_and_an_abort_are_told_apart() {
    for (question, expected) in [
        (&b"exit 7"[..], ExitKind::Code(7)),
        (b"abort", ExitKind::Signal(6)),
        // Between reserving bytes and publishing them.
        (b"half", ExitKind::Signal(6)),
    ] {
        let (supervisor, mut sides) = started("echo_entry", 1);
        assert!(matches!(
            asked(&mut sides[0], question),
            Err(LinkError::Disconnected)
        ));
        let Some(Failure::Died { exit, .. }) = supervisor.first_death(LONG) else {
            panic!("nobody died");
        };
        assert_eq!(exit, expected);
    }
}

#[test]
fn a_shutdown_does_not_wait_for_a_child_that_ignores_it() {
    let (mut supervisor, mut sides) = started("echo_entry", 2);
    sides[0].link.say(b"deaf").expect("alive");
    supervisor.expect_exits();
    for side in &mut sides {
        side.link.say(b"stop").expect("alive");
    }
    let begin = now();
    let ends = supervisor.wait_all(Duration::from_millis(50));
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "took {:?}",
        begin.elapsed()
    );
    assert_eq!(ends[0].how, EndKind::Killed);
    assert_eq!(ends[1].how, EndKind::Clean);
}

#[test]
fn dropping_the_links_ends_the_children() {
    let (mut supervisor, sides) = started("echo_entry", 2);
    supervisor.expect_exits();
    drop(sides);
    assert!(
        supervisor
            .wait_all(LONG)
            .iter()
            .all(|end| end.how == EndKind::Clean)
    );
}
