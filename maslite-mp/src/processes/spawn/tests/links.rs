//! What crosses the link of a real child: messages, interrupts, probes.

use super::*;

#[test]
fn messages_of_all_sizes_come_back() {
    let (mut supervisor, mut sides) = started("echo_entry", 2);
    for (side, number) in sides.iter_mut().zip(1_u32..) {
        assert_eq!(side.cluster, number);
        assert_eq!(
            asked(side, b"cluster").expect("alive"),
            number.to_le_bytes()
        );
        for length in [0, 1, 1000, 65_536, 250_000, 20_000_000] {
            let message = vec![7; length];
            assert!(
                asked(side, &message).expect("alive") == message,
                "{length} bytes"
            );
        }
    }
    supervisor.expect_exits();
    for side in &mut sides {
        side.link.say(b"stop").expect("alive");
    }
    assert!(
        supervisor
            .wait_all(LONG)
            .iter()
            .all(|end| end.how == EndKind::Clean)
    );
}

#[test]
fn a_ring_that_cannot_be_is_replaced_or_an_error() {
    if !cfg!(target_os = "linux") {
        return;
    }
    for (carrier, expected) in [(Link::Auto, Some(Link::Channel)), (Link::Ring, None)] {
        let supervisor = supervisor();
        let mut plan = plan("links::no_ring_entry", 2);
        plan.carrier = carrier;
        match (start(&supervisor, plan), expected) {
            (Ok(mut sides), Some(expected)) => {
                assert!(sides.iter().all(|side| side.carrier == expected));
                assert_eq!(asked(&mut sides[1], b"hello").expect("alive"), b"hello");
            }
            (Err(error), None) => {
                assert_eq!(
                    format!("{error:?}"),
                    "the process of cluster c1 (1) and main cannot have a ring as their link: allow another kind of link, \
                     or all kinds with `Link::Auto`: no room"
                );
                assert!(supervisor.pids().is_empty());
            }
            (started, _) => panic!("{carrier:?}: {:?}", started.err()),
        }
    }
}

#[test]
#[ignore = "entry of a child that cannot map memory"]
fn no_ring_entry() {
    let (stdin, _) = introduce(|hello| hello.refusal = Some("no room".to_owned()));
    let (NextOffer(kind), sent) = NextOffer::read(&stdin).expect("main offers another kind");
    let kind = numbered(kind).expect("it is known");
    let sent = sent.expect("it comes with the offer");
    let mut link = kind.accept(sent, Wait::default()).expect("there is room");
    Word::Answer(None).write(&stdin).expect("main is there");
    let mut message = Vec::new();
    while link.hear(&mut message).is_ok() && link.say(&message).is_ok() {}
    exit(0);
}

#[test]
fn a_child_has_no_use_for_stdin_and_its_children_are_none_of_ours() {
    let (_supervisor, mut sides) = started("echo_entry", 1);
    assert_eq!(asked(&mut sides[0], b"stdin").expect("alive"), b"");
    assert_eq!(asked(&mut sides[0], b"grandchild").expect("alive"), [1]);
}

#[test]
fn a_hold_reaches_a_busy_child() {
    let (supervisor, mut sides) = started("echo_entry", 1);
    let grants = supervisor.grants();
    for _ in 0..40 {
        grants.issue();
    }
    let last = grants.issue();
    supervisor.interrupt_at(now().checked_add(Duration::from_millis(1)));
    let told = asked(&mut sides[0], b"interrupt").expect("alive");
    assert_eq!(told, last.to_le_bytes());
    assert!(grants.interrupted());
    supervisor.disarm();
}

#[test]
fn the_control_line_answers_questions_between_holds() {
    let (main, child) = UnixStream::pair().expect("a socket can be had");
    main.set_read_timeout(Some(LONG)).expect("not zero");
    let (interrupts, cluster_activity) = (AtomicU64::new(0), ClusterActivity::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            // It ends when main's end is closed.
            let _ = obey(&MainWatch::new(child), &interrupts, &cluster_activity);
            assert_eq!(interrupts.load(Ordering::SeqCst), 7);
        });
        let main = main;
        let mut said = Vec::new();
        Answer::write(&cluster_activity, &mut said).expect("a vector takes all");
        for commands in [&b"?"[..], b"H\x07\0\0\0\0\0\0\0?"] {
            (&main).write_all(commands).expect("the child reads");
            let mut answer = vec![0; said.len()];
            (&main).read_exact(&mut answer).expect("the child answers");
            assert_eq!(answer, said);
        }
    });
}

#[test]
fn a_busy_child_answers_and_a_stopped_one_does_not() {
    let (supervisor, mut sides) = started("echo_entry", 2);
    sides[0].link.say(b"interrupt").expect("alive");
    let ask = || {
        let probes = supervisor
            .run_job(|watch| watch.ask_all(Duration::from_millis(250)))
            .expect("it lives");
        [0, 1].map(|place| probes[place].answer)
    };
    let fine = ClusterActivity::default().answer();
    assert_eq!(ask(), [fine, fine]);
    let stopped = sides[1].pid;
    signal(stopped, Signal::STOP);
    await_stop(stopped);
    let silent = [fine, ProbeAnswer::Silent(Activity::Stopped)];
    assert_eq!(ask(), silent);
    assert_eq!(ask(), silent, "still");
    signal(stopped, Signal::CONT);
    let late = supervisor.run_job(|watch| watch.await_late_answer(1));
    assert_eq!(late, Some(true));
    assert_eq!(ask(), [fine, fine]);
}
