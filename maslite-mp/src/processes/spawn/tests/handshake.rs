//! Starts that fail: children that say nothing, lie, or cannot set themselves up.

use super::*;

#[test]
#[ignore = "entry of a child that forgets the entry"]
fn forgetful_entry() {
    exit(0);
}

#[test]
fn a_child_that_ends_before_its_hello() {
    let error = refused("handshake::forgetful_entry", 3);
    let SpawnError::ExitedBeforeHello { exit, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*exit, ExitKind::Success);
    let test = "no ignored test of this program has the name \
        \"processes::spawn::tests::handshake::forgetful_entry\"";
    assert!(error.to_string().contains(test), "{error}");
}

#[test]
#[ignore = "entry of a child that never says hello"]
fn silent_entry() {
    loop {
        thread::park();
    }
}

#[test]
fn a_child_that_says_nothing_is_given_up() {
    let supervisor = supervisor();
    let mut plan = plan("handshake::silent_entry", 2);
    plan.deadline = Duration::from_millis(50);
    let begin = now();
    let error = start(&supervisor, plan).err().expect("it fails");
    assert!(
        matches!(error, SpawnError::HandshakeTimeout { cluster: 1, .. }),
        "{error:?}"
    );
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "took {:?}",
        begin.elapsed()
    );
    assert!(supervisor.pids().is_empty());
}

#[test]
#[ignore = "entry of a child that may open one more file"]
fn crowded_entry() {
    let limit = Rlimit {
        current: Some(64),
        maximum: Some(64),
    };
    setrlimit(Resource::Nofile, limit).expect("it is lowered");
    let mut open: Vec<fs::File> = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        open.push(file);
    }
    open.pop();
    let Arrival::Failed(error) = arrive(&point(7), Wait::default()) else {
        panic!("there is no room for the control line and /dev/null");
    };
    exit(error.exit_code());
}

#[test]
fn a_child_that_cannot_set_itself_up_says_why() {
    for output in [Output::Inherit, Output::Null, Output::Prefixed] {
        let supervisor = supervisor();
        let mut plan = plan("handshake::crowded_entry", 1);
        plan.output = output;
        let error = start(&supervisor, plan).err().expect("it fails");
        assert_eq!(
            error.to_string(),
            "the process of cluster c1 (1) could not become a cluster: /dev/null cannot be opened: Too many open files (os error 24)"
        );
    }
}

/// Does the same and waits for its end.
fn lie(change: impl FnOnce(&mut Hello)) -> ! {
    let (mut stdin, _) = introduce(change);
    let _ = stdin.read_exact(&mut [0]);
    exit(0);
}

#[test]
#[ignore = "entry of a child with a wrong nonce"]
fn wrong_nonce_entry() {
    lie(|hello| hello.nonce[3] ^= 1);
}

#[test]
#[ignore = "entry of a child with a wrong process id"]
fn wrong_pid_entry() {
    lie(|hello| hello.pid += 1);
}

#[test]
#[ignore = "entry of a child of another version"]
fn wrong_version_entry() {
    lie(|hello| hello.version = "0.0.0".to_owned());
}

#[test]
#[ignore = "entry of a child with another schema"]
fn wrong_schema_entry() {
    lie(|hello| hello.schema = 1);
}

#[test]
#[ignore = "entry of a child that says what no child says"]
fn babbling_entry() {
    let mut stdin = take_stdin().expect("there is one");
    Invitation::read(&stdin).expect("it was written");
    stdin.write_all(&[3, 0, 1, 2, 3, 4]).expect("main is there");
    let _ = stdin.read_exact(&mut [0]);
    exit(0);
}

#[test]
#[ignore = "entry of a child that accepts a link, and does nothing for it"]
fn idle_entry() {
    lie(|_| {});
}

/// Refuses the link of the invitation, and hears that there is another.
fn refuse() -> UnixStream {
    let (stdin, _) = introduce(|hello| hello.refusal = Some("no room".to_owned()));
    NextOffer::read(&stdin).expect("main offers another kind");
    stdin
}

#[test]
#[ignore = "entry of a child that ends before it answers an offer"]
fn timid_entry() {
    refuse();
    exit(7);
}

#[test]
#[ignore = "entry of a child that does not answer an offer"]
fn hesitant_entry() {
    let _ = refuse().read_exact(&mut [0]);
    exit(0);
}

#[test]
#[ignore = "entry of a child that refuses all kinds of link"]
fn stubborn_entry() {
    let mut stdin = refuse();
    let refusal = Word::Answer(Some("no sockets".to_owned()));
    refusal.write(&stdin).expect("main is there");
    let _ = stdin.read_exact(&mut [0]);
    exit(0);
}

#[test]
#[ignore = "entry of a child that answers what main has not asked"]
fn hasty_entry() {
    let (mut stdin, _) = introduce(|hello| hello.refusal = Some("no room".to_owned()));
    for _ in 0..2 {
        let _ = Word::Answer(None).write(&stdin);
    }
    let _ = stdin.read_exact(&mut [0]);
    exit(0);
}

#[test]
fn what_goes_wrong_while_a_link_is_made_is_told_apart() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let error = refused_over(Link::Channel, "handshake::idle_entry", 2);
    assert!(matches!(error, SpawnError::Handshake { .. }), "{error:?}");
    let error = refused("handshake::hasty_entry", 2);
    assert!(matches!(error, SpawnError::Handshake { .. }), "{error:?}");
    let error = refused("handshake::timid_entry", 2);
    let SpawnError::ExitedBeforeHello { exit, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(exit, ExitKind::Code(7));
    let error = refused("handshake::stubborn_entry", 1);
    assert_eq!(
        format!("{error:?}"),
        "the process of cluster c1 (1) and main cannot have a channel as their link: allow another kind of link, or all \
         kinds with `Link::Auto`: no sockets"
    );
    let supervisor = supervisor();
    let mut plan = plan("handshake::hesitant_entry", 2);
    plan.deadline = Duration::from_secs(1);
    let error = start(&supervisor, plan).err().expect("it fails");
    assert!(
        matches!(error, SpawnError::HandshakeTimeout { cluster: 1, .. }),
        "{error:?}"
    );
    assert!(supervisor.pids().is_empty());
}

#[test]
fn a_false_hello_is_refused() {
    let error = refused("handshake::babbling_entry", 2);
    assert!(matches!(error, SpawnError::Handshake { .. }), "{error:?}");
    let error = refused("handshake::wrong_nonce_entry", 2);
    assert!(matches!(error, SpawnError::Stranger { .. }), "{error:?}");
    for (entry, differs) in [
        ("handshake::wrong_pid_entry", "the process id"),
        ("handshake::wrong_version_entry", "maslite"),
        ("handshake::wrong_schema_entry", "the schema"),
    ] {
        let error = refused(entry, 2);
        let SpawnError::Mismatch { what, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(what, differs);
    }
}

#[test]
fn a_program_that_is_not_there() {
    let supervisor = supervisor();
    let mut plan = plan("echo_entry", 2);
    plan.program.exe = Some("/nowhere/at/all".into());
    let error = start(&supervisor, plan).err().expect("it fails");
    assert!(
        matches!(error, SpawnError::Spawn { cluster: 1, .. }),
        "{error:?}"
    );
}

#[test]
fn a_start_that_fails_harms_no_earlier_one() {
    let (supervisor, mut sides) = started("echo_entry", 1);
    assert!(start(&supervisor, plan("handshake::forgetful_entry", 2)).is_err());
    assert_eq!(
        asked(&mut sides[0], b"still here").expect("alive"),
        b"still here"
    );
    let mut more = start(&supervisor, plan("echo_entry", 1)).expect("the children start");
    assert_eq!(asked(&mut more[0], b"me too").expect("alive"), b"me too");
    assert!(supervisor.first_death(Duration::ZERO).is_none());
}
