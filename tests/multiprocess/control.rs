//! A simulation that others speak to through its control socket: every request in every placement,
//! and nothing that comes out of the socket harms the run.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use maslite_core::{AgentRng, Digest};
use maslite_mp::clock::wall;
use maslite_mp::control::protocol::{REQUEST_LIMIT, Reply, Request};
use maslite_mp::control::{AskError, ask, simulations};
use maslite_mp::prelude::*;
use maslite_mp::{Error, RunState, Status};
use rand::RngExt;

use crate::commands::{Msg, PLAYERS, game, token};
use crate::test_placement::{ALL, TestPlacement};
use crate::workers::{self, Gate, Worker, clusters, go};

/// Longer than anything here takes on the busiest machine, and shorter than a test may hang.
const LIMIT: Option<Duration> = Some(Duration::from_secs(600));

/// The digest of a run until it is idle. If the thread that steers it is gone, it does not stay
/// paused for ever.
fn digest_of(main: &mut MpMain<Msg>) -> Option<Digest> {
    let report = main.run(Run::until_idle().timeout(LIMIT.unwrap())).unwrap();
    assert_eq!(report.stopped_by, StopReason::Idle);
    report.digest
}

/// Tokens in three clusters, a socket, and a run that begins with a pause.
fn open(placement: TestPlacement, name: &str, hops: u64) -> (MpMain<Msg>, PathBuf) {
    let mut main = game(placement, 3, 0);
    (1..=4).for_each(|player| main.send_mail(token(player, hops)));
    let path = main.open_control(name).unwrap();
    (main, path)
}

fn undisturbed(placement: TestPlacement, hops: u64) -> Option<Digest> {
    let mut main = game(placement, 3, 0);
    (1..=4).for_each(|player| main.send_mail(token(player, hops)));
    main.run(Run::until_idle()).unwrap().digest
}

fn must(path: &Path, request: Request) -> Reply {
    ask(path, request, LIMIT).unwrap()
}

fn status(path: &Path) -> Status {
    match must(path, Request::Status) {
        Reply::Status(status) => status,
        other => panic!("{other:?}"),
    }
}

/// Sends bytes as they are, and returns the lines that are answered until the other side closes, or
/// `lines` of them have come.
fn raw(path: &Path, bytes: &[u8], lines: usize) -> Vec<String> {
    let mut socket = UnixStream::connect(path).unwrap();
    socket.set_read_timeout(LIMIT).unwrap();
    // It may have been sent away before it has said all.
    let _ = socket.write_all(bytes);
    let answers = BufReader::new(socket).lines().take(lines);
    answers.map_while(Result::ok).collect()
}

/// Asks a paused simulation for its status, and steps it.
fn steps_are_answered(path: &Path) {
    let Reply::Paused { time } = must(path, Request::Step { supersteps: 3 }) else {
        panic!("it is not paused");
    };
    let seen = status(path);
    assert_eq!(
        (seen.state, seen.time, seen.supersteps),
        (RunState::Paused, time, 3)
    );
    assert_eq!(seen.clusters.len(), 3);
    assert!(matches!(
        must(path, Request::StepInstant),
        Reply::Paused { .. }
    ));
    let until = SimTime::from_millis(8);
    let paused = Reply::Paused { time: until };
    assert_eq!(must(path, Request::RunUntil { time: until }), paused);
    assert_eq!(must(path, Request::Pause), paused);
}

/// Asks a paused simulation for its agents.
fn agents_are_answered(path: &Path) {
    let agents = |from, limit| match must(path, Request::Agents { from, limit }) {
        Reply::Agents(agents) => agents,
        other => panic!("{other:?}"),
    };
    let all = agents(0, u64::MAX);
    assert_eq!(all.len() as u64, PLAYERS + 1);
    let rest = agents(3, 2);
    assert_eq!(rest, all[3..5]);
    let fan = all.last().unwrap();
    assert_eq!((fan.id.as_str(), fan.cluster.as_str()), ("fan", "3"));

    let Reply::Agent(fan) = must(path, Request::Agent { id: "fan".into() }) else {
        panic!("no agent");
    };
    assert_eq!(fan.state, Some(serde_json::json!({ "hat": "blue" })));
    assert!(fan.type_name.ends_with("commands::Spectator"));
    let Reply::Agent(one) = must(path, Request::Agent { id: "1".into() }) else {
        panic!("no agent");
    };
    assert!(one.state.unwrap()["seen"].is_u64());
    assert_eq!((one.cluster.as_str(), one.index), ("2", 0));
    assert_eq!(one.subscriptions.len(), 1, "{:?}", one.subscriptions);
    let error = ask(
        path,
        Request::Agent {
            id: "nobody".into(),
        },
        LIMIT,
    )
    .unwrap_err();
    let expected = "there is no agent nobody, or it was removed";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn all_that_can_be_asked_is_answered_and_changes_nothing() {
    for placement in ALL {
        let name = format!("all-{placement:?}");
        let (mut main, path) = open(placement, &name, 60);
        main.pause();
        let (there, called) = (path.clone(), name.clone());
        let asker = thread::spawn(move || {
            let known = simulations().unwrap();
            let is_known = known.iter().any(|it| it.path == there && it.name == called);
            assert!(is_known);
            steps_are_answered(&there);
            agents_are_answered(&there);
            assert_eq!(must(&there, Request::Resume), Reply::Done);
        });
        let digest = digest_of(&mut main);
        asker.join().unwrap();
        assert_eq!(digest, undisturbed(placement, 60), "{placement:?}");

        assert_eq!(status(&path).state, RunState::Resting);
        drop(main);
        assert!(!path.exists());
        let error = ask(&path, Request::Status, LIMIT).unwrap_err();
        assert!(matches!(error, AskError::Connect(_)), "{error}");
    }
}

/// How long each of `requests` requests takes while an agent is at work for `work` \[ms\], the
/// shortest first; and what became of the run, which is then stopped.
fn waits(
    placement: TestPlacement,
    work: u64,
    requests: usize,
) -> (Vec<Duration>, Result<StopReason, Error>) {
    let (mut main, path) = open(placement, &format!("stop-{work}-{placement:?}"), 0);
    let only_to = Receiver::Direct(AgentId::from(1));
    main.send(only_to, Msg::Work(work));
    let asker = thread::spawn(move || {
        // The agent is at work, and says so.
        while !status(&path).clusters.iter().any(|it| it.agent.is_some()) {}
        let mut times = Vec::new();
        for _ in 0..requests {
            let begin = wall();
            assert_eq!(status(&path).state, RunState::Running);
            times.push(begin.elapsed());
        }
        assert_eq!(must(&path, Request::Stop), Reply::Done);
        times.sort();
        times
    });
    let run = main.run(Run::until_idle());
    (asker.join().unwrap(), run.map(|report| report.stopped_by))
}

/// The agent is at work until all have been answered, and no longer.
#[test]
fn a_run_is_stopped_and_an_agent_at_work_keeps_nobody_waiting() {
    for placement in ALL {
        let gate = Gate::new(&format!("control-{placement:?}"));
        let worker = gate.worker(SimDuration::from_millis(1));
        // It would panic a second later, if the run went on.
        let later = Worker::Gate(SimDuration::from_secs(1), PathBuf::from("/nowhere"));
        let mut main = clusters(placement, &[&[worker], &[later]]);
        let path = main.open_control(&format!("stop-{placement:?}")).unwrap();
        main.send_mail(go(1));
        main.send_mail(go(2));
        let asker = thread::spawn(move || {
            let at_work = gate.somebody();
            for _ in 0..200 {
                assert_eq!(status(&path).state, RunState::Running);
            }
            assert_eq!(must(&path, Request::Stop), Reply::Done);
            drop(at_work);
        });
        let run = main.run(Run::until_idle());
        asker.join().unwrap();
        assert_eq!(
            run.unwrap().stopped_by,
            StopReason::Interrupted,
            "{placement:?}"
        );
    }
}

#[test]
#[ignore = "a figure of a machine that does nothing else"]
fn a_thousand_requests_are_answered_within_ten_milliseconds() {
    for placement in ALL {
        let (times, run) = waits(placement, 5_000, 1_000);
        match placement {
            TestPlacement::Inline | TestPlacement::Forgetful => {
                assert_eq!(run.unwrap(), StopReason::Interrupted);
            }
            // It was still at work two seconds later.
            _ => assert!(matches!(run, Err(Error::Stuck { .. })), "{run:?}"),
        }
        let [median, late] = [times[500], times[989]];
        println!("{placement:?}: median {median:?}, 99 of 100 within {late:?}");
        assert!(late < Duration::from_millis(10), "{placement:?}: {late:?}");
    }
}

#[test]
fn only_its_user_may_enter() {
    let (main, path) = open(TestPlacement::Inline, "private", 0);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let mut other = game(TestPlacement::Inline, 1, 0);
    let error = other.open_control("private").unwrap_err();
    assert!(error.to_string().contains("\"private\""), "{error}");
    assert!(other.open_control("no/name").is_err());
    // The one that was there first is still there.
    assert_eq!(status(&path).state, RunState::Resting);
    drop(main);
}

#[test]
fn what_is_no_request_is_refused() {
    let (main, path) = open(TestPlacement::Inline, "malformed", 0);
    for (line, reason) in [
        (&b"\n"[..], "this is not a request"),
        (b"{}\n", "missing field `version`"),
        (
            b"{\"version\":2,\"request\":\"dance\"}\n",
            "unknown variant `dance`",
        ),
        (
            b"{\"version\":2,\"request\":\"pause\",\"more\":1}\n",
            "unknown field `more`",
        ),
        (
            b"{\"version\":1,\"request\":{\"new\":7}}\n",
            "speaks version 2",
        ),
        (b"\xff\xfe\n", "this is not a request"),
    ] {
        let answers = raw(&path, line, 1);
        assert!(answers[0].contains("refused"), "{answers:?}");
        assert!(answers[0].contains(reason), "{answers:?}");
    }
    // One that is too long is sent away; several requests at once are answered one by one.
    let long = vec![b'x'; REQUEST_LIMIT * 3];
    let answers = raw(&path, &long, usize::MAX);
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers[0].contains("at most 4096 bytes"), "{answers:?}");
    let three =
        b"{\"version\":2,\"request\":\"status\"}\nx\n{\"version\":2,\"request\":\"resume\"}\n";
    let answers = raw(&path, three, 3);
    assert!(answers[0].contains("\"state\":\"resting\""), "{answers:?}");
    assert!(answers[1].contains("refused"), "{answers:?}");
    assert!(answers[2].contains("done"), "{answers:?}");
    drop(main);
}

/// Requests with bytes changed, left out and put in, by chance from a seed.
#[test]
fn mutilated_requests_harm_nothing() {
    let requests: [&[u8]; 6] = [
        b"{\"version\":2,\"request\":\"status\"}\n",
        b"{\"version\":2,\"request\":\"pause\"}\n",
        b"{\"version\":2,\"request\":{\"step\":{\"supersteps\":3}}}\n",
        b"{\"version\":2,\"request\":{\"agents\":{\"from\":0,\"limit\":9}}}\n",
        b"{\"version\":2,\"request\":{\"agent\":{\"id\":\"fan\"}}}\n",
        b"{\"version\":2,\"request\":{\"run_until\":{\"time_ns\":9}}}\n",
    ];
    for placement in [TestPlacement::Inline, TestPlacement::Ring] {
        let (mut main, path) = open(placement, &format!("mutilated-{placement:?}"), 400);
        main.pause();
        let sender = thread::spawn(move || {
            let mut rng = AgentRng::new(3, AgentId::from(1));
            let mut answered = 0;
            for _ in 0..400 {
                let mut line = requests[rng.random_range(0..requests.len())].to_vec();
                for _ in 0..rng.random_range(1..6) {
                    let place = rng.random_range(0..line.len());
                    match rng.random_range(0..3) {
                        0 => line[place] = rng.random(),
                        1 => drop(line.remove(place)),
                        _ => line.insert(place, rng.random()),
                    }
                }
                let mut socket = UnixStream::connect(&path).unwrap();
                socket.write_all(&line).unwrap();
                if rng.random() {
                    // A client that says no more is answered, or not, and leaves.
                    socket.shutdown(std::net::Shutdown::Write).unwrap();
                    let mut answer = Vec::new();
                    let _ = socket.read_to_end(&mut answer);
                    answered += usize::from(!answer.is_empty());
                }
            }
            assert!(matches!(must(&path, Request::Pause), Reply::Paused { .. }));
            must(&path, Request::Resume);
            answered
        });
        let digest = digest_of(&mut main);
        assert!(sender.join().unwrap() > 20);
        assert_eq!(digest, undisturbed(placement, 400), "{placement:?}");
    }
}

#[test]
fn a_thousand_silent_clients_do_not_keep_others_out() {
    let (mut main, path) = open(TestPlacement::Ring, "silent", 200);
    main.pause();
    let asker = thread::spawn(move || {
        // As many as there are descriptors for; the rest take the places of the first.
        let mut silent = std::collections::VecDeque::new();
        for number in 0..1_000 {
            let mut socket = UnixStream::connect(&path).unwrap();
            if number % 3 == 0 {
                socket.write_all(b"{\"version\":2,").unwrap();
            }
            silent.push_back(socket);
            if silent.len() > 200 {
                silent.pop_front();
            }
        }
        assert!(matches!(
            must(&path, Request::Step { supersteps: 2 }),
            Reply::Paused { .. }
        ));
        assert_eq!(status(&path).state, RunState::Paused);
        must(&path, Request::Resume);
        drop(silent);
    });
    let digest = digest_of(&mut main);
    asker.join().unwrap();
    assert_eq!(digest, undisturbed(TestPlacement::Ring, 200));
}

#[test]
fn who_waits_is_told_when_the_simulation_ends() {
    for placement in ALL {
        let (main, path) = open(placement, &format!("ended-{placement:?}"), 0);
        let (begun, waits) = std::sync::mpsc::channel();
        let asker = thread::spawn(move || {
            let mut socket = UnixStream::connect(&path).unwrap();
            // The second request is only read when the first was.
            let two =
                b"{\"version\":2,\"request\":\"status\"}\n{\"version\":2,\"request\":\"pause\"}\n";
            socket.write_all(two).unwrap();
            let mut answers = BufReader::new(socket).lines().map_while(Result::ok);
            answers.next().unwrap();
            begun.send(()).unwrap();
            answers.next()
        });
        waits.recv().unwrap();
        drop(main);
        // It may have come too late to be heard at all.
        if let Some(answer) = asker.join().unwrap() {
            assert!(answer.contains("this simulation has ended"), "{answer}");
        }
    }
}

const STEP: &[u8] = b"{\"version\":2,\"request\":{\"step\":{\"supersteps\":1}}}\n";
const RUN_ON: &[u8] =
    b"{\"version\":2,\"request\":{\"run_until\":{\"time_ns\":18446744073709551615}}}\n";

#[test]
fn those_who_have_left_keep_nobody_out() {
    for placement in ALL {
        let gate = Gate::new(&format!("left-{placement:?}"));
        let worker = gate.worker(SimDuration::ZERO);
        let mut main = clusters(placement, &[&[worker], &[Worker::Forever]]);
        let path = main.open_control(&format!("left-{placement:?}")).unwrap();
        let begin = workers::Msg::Word("begin".to_owned());
        main.send_mail(Mail::new(AgentId::MAIN, AgentId::from(1), begin));
        main.send_mail(go(2));
        let asker = thread::spawn(move || {
            // While an agent is at work nothing is answered but what needs no run.
            let at_work = gate.somebody();
            for _ in 0..40 {
                let mut socket = UnixStream::connect(&path).unwrap();
                socket.write_all(STEP).unwrap();
            }
            drop(at_work);
            let paused = must(&path, Request::Pause);
            assert!(matches!(paused, Reply::Paused { .. }), "{paused:?}");
            must(&path, Request::Stop);
        });
        let run = Run::until_idle().timeout(LIMIT.unwrap());
        let report = main.run(run.supersteps_per_instant(u64::MAX)).unwrap();
        assert!(asker.join().is_ok(), "{placement:?}");
        assert_eq!(report.stopped_by, StopReason::Interrupted, "{placement:?}");
    }
}

#[test]
fn a_pause_ends_the_wait_of_all_who_wait_for_one() {
    for placement in ALL {
        let (mut main, path) = open(placement, &format!("eight-{placement:?}"), u64::MAX);
        main.pause();
        let asker = thread::spawn(move || {
            let waiting: Vec<_> = (0..8)
                .map(|_| {
                    let mut socket = UnixStream::connect(&path).unwrap();
                    socket.write_all(RUN_ON).unwrap();
                    socket
                })
                .collect();
            // All of them have been heard once a ninth is too many.
            let refusal = loop {
                match ask(&path, Request::Step { supersteps: 1 }, LIMIT) {
                    Err(AskError::Refused(message)) => break message,
                    other => assert!(matches!(other, Ok(Reply::Paused { .. })), "{other:?}"),
                }
            };
            assert_eq!(refusal, "8 requests wait already: ask later");
            assert!(matches!(must(&path, Request::Pause), Reply::Paused { .. }));
            for socket in waiting {
                let mut answer = String::new();
                BufReader::new(socket).read_line(&mut answer).unwrap();
                assert!(answer.contains("paused"), "{answer}");
            }
            must(&path, Request::Stop);
        });
        let report = main.run(Run::until_idle().timeout(LIMIT.unwrap())).unwrap();
        assert!(asker.join().is_ok(), "{placement:?}");
        assert_eq!(report.stopped_by, StopReason::Interrupted);
    }
}

/// Process ids repeat: in a container main may always be process 1.
#[test]
fn what_a_dead_process_of_the_same_number_has_left_is_in_nobodys_way() {
    let (main, path) = open(TestPlacement::Inline, "again", 0);
    drop(main);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    assert!(simulations().unwrap().iter().all(|it| it.path != path));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    std::fs::write(path.with_extension("lock"), "").unwrap();
    let (main, again) = open(TestPlacement::Inline, "again", 0);
    assert_eq!(again, path);
    assert_eq!(status(&path).state, RunState::Resting);
    drop(main);
    assert!(!path.exists() && !path.with_extension("lock").exists());
}
