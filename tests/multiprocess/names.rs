//! Names that become ids, wherever they do: two with one id are an error, and traces show them as
//! one scheduler does.

use std::sync::{Arc, Mutex};

use maslite_core::internal::AgentIdInternals;
use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

use crate::test_placement::{ALL, PlacedOn, TestPlacement};

#[derive(Clone, Serialize, Deserialize, Message)]
enum Msg {
    Go,
    Letter,
}

/// What an agent does with a name. It is written backwards, so that only the process where the
/// agent lives hears of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Clerk {
    Write(String),
    WriteTo(AgentId),
    WriteLater(String),
    Listen(String),
    Dismiss(String),
    /// Listens to letters.
    Archive,
    Idle,
}

fn backwards(name: &str) -> String {
    name.chars().rev().collect()
}

impl Agent<Msg> for Clerk {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        if matches!(self, Self::Archive) {
            ctx.subscribe(Pattern::topic("Letter"));
        }
    }

    fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match self {
            Self::Write(name) => ctx.send(backwards(name), Msg::Letter),
            Self::WriteTo(id) => ctx.send(*id, Msg::Letter),
            Self::WriteLater(name) => {
                let alarm = Alarm::after(SimDuration::from_secs(1)).to(backwards(name));
                ctx.set_alarm(alarm, Msg::Letter);
            }
            Self::Listen(name) => ctx.subscribe(Pattern::sender(backwards(name))),
            Self::Dismiss(name) => ctx.remove(backwards(name)),
            Self::Archive | Self::Idle => {}
        }
    }
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Clerk>()
        .entered_by_test("names::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// Names that have one id, two by two: each story has its own, since this process remembers what it
/// has heard of.
const PAIRS: [[&str; 2]; 7] = [
    ["apohncfjpiddnbmb", "jfgeafnkinfhhijg"],
    ["eiepdfepaidfiiid", "pfkhgkigkfnljgka"],
    ["gekijhokjaliaoaa", "igogffjmljlfldla"],
    ["ciahoadgjjlkhnnh", "nfbccmlhemkecege"],
    ["bdniocajdiknoaag", "idilfpnmndagallh"],
    ["fodminppahenbcib", "kmbkhjnjkcncmpld"],
    ["ebcipcinpenmcdlb", "fcemaekdjjchldid"],
];

/// Two more with one id.
const ONE: &str = "eeikbjcakhhemhmk";
const OTHER: &str = "lhdboacdggbpmdli";

fn go(clerks: usize) -> impl Iterator<Item = Mail<Msg>> {
    (1..=clerks).map(|number| Mail::new(AgentId::MAIN, number, Msg::Go))
}

/// What a run of these clerks ends with, a cluster each, and the lines of its trace. `named`: the
/// name of the last one.
fn run(
    placement: Option<TestPlacement>,
    clerks: &[Clerk],
    named: Option<&str>,
) -> (String, Vec<String>) {
    let ids = (1..=clerks.len()).map(|number| match named {
        Some(name) if number == clerks.len() => AgentId::from(name),
        _ => AgentId::from(number),
    });
    let trace = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&trace);
    let result = match placement {
        None => {
            let mut scheduler = Scheduler::builder()
                .observe(Box::new(move |delivery: &Delivery<'_, Msg>| {
                    let mut line = String::new();
                    delivery.write_json(&mut line);
                    lines.lock().unwrap().push(line);
                }) as maslite_core::Observer<Msg>)
                .build();
            for (id, clerk) in ids.zip(clerks) {
                if let Err(error) = scheduler.add(id, clerk.clone()) {
                    return (error.to_string(), Vec::new());
                }
            }
            go(clerks.len()).for_each(|mail| scheduler.send_mail(mail));
            let report = scheduler.run(Run::until_idle());
            report
                .map(|report| report.stopped_by.to_string())
                .map_err(|error| error.to_string())
        }
        Some(placement) => {
            let settings = MpMain::builder(agents()).on(placement);
            let trace = move |line: &str| lines.lock().unwrap().push(line.to_owned());
            let mut main = settings.trace(trace).build().unwrap();
            for (id, clerk) in ids.zip(clerks) {
                let cluster = main.new_cluster();
                if let Err(error) = main.add_to(cluster, id, clerk.clone()) {
                    return (error.to_string(), Vec::new());
                }
            }
            go(clerks.len()).for_each(|mail| main.send_mail(mail));
            let report = main.run(Run::until_idle());
            report
                .map(|report| report.stopped_by.to_string())
                .map_err(|error| error.to_string())
        }
    };
    let trace = trace.lock().unwrap().clone();
    (result.unwrap_or_else(|error| error), trace)
}

#[test]
fn two_names_with_one_id_are_an_error_wherever_they_are_used() {
    type Story = fn([&str; 2]) -> Vec<Clerk>;
    // Whether the last of them has the first name.
    let stories: [(Story, bool); 7] = [
        (
            |names| names.map(|name| Clerk::Write(backwards(name))).to_vec(),
            false,
        ),
        (
            |names| {
                names
                    .map(|name| Clerk::WriteLater(backwards(name)))
                    .to_vec()
            },
            false,
        ),
        (
            |[_, other]| vec![Clerk::Write(backwards(other)), Clerk::Idle, Clerk::Idle],
            true,
        ),
        (
            |[_, other]| vec![Clerk::WriteLater(backwards(other)), Clerk::Idle],
            true,
        ),
        (
            |[_, other]| vec![Clerk::Listen(backwards(other)), Clerk::Idle],
            true,
        ),
        (
            |[_, other]| vec![Clerk::Dismiss(backwards(other)), Clerk::Idle],
            true,
        ),
        // One cluster hears of the second name, another one sends to the id.
        (
            |[one, other]| {
                let id = AgentId::of_name(one);
                vec![
                    Clerk::Write(backwards(other)),
                    Clerk::WriteTo(id),
                    Clerk::Idle,
                ]
            },
            true,
        ),
    ];
    for ((story, is_named), names) in stories.into_iter().zip(PAIRS) {
        let [one, other] = names;
        let both = format!("the names {one:?} and {other:?} have the same id: rename one of them");
        // First where this process hears of them from the others alone.
        for placement in [
            Some(TestPlacement::Channel),
            Some(TestPlacement::Ring),
            Some(TestPlacement::Inline),
            None,
        ] {
            let clerks = story(names);
            let (end, _) = run(placement, &clerks, is_named.then_some(one));
            assert_eq!(end, both, "{placement:?} {clerks:?}");
        }
    }
}

#[test]
fn what_the_owner_stores_sends_or_removes_by_the_wrong_name_is_the_same_error() {
    let both = format!("the names {ONE:?} and {OTHER:?} have the same id: rename one of them");
    let clerks = [Clerk::WriteTo(AgentId::from(OTHER)), Clerk::Idle];
    for placement in ALL.map(Some).into_iter().chain([None]) {
        // It is made known here, so already the agent with that id is one too many.
        let id = AgentId::from(ONE);
        assert_eq!(id.check().unwrap_err().to_string(), both);
        let (end, _) = run(placement, &clerks, None);
        assert_eq!(end, both, "{placement:?}");
    }
    let mut main = MpMain::builder(agents())
        .on(TestPlacement::Inline)
        .build()
        .unwrap();
    let cluster = main.new_cluster();
    let added = main.add_to(cluster, ONE, Clerk::Idle).unwrap_err();
    let removed = main.remove(OTHER).unwrap_err();
    assert_eq!([added.to_string(), removed.to_string()], [both.as_str(); 2]);
    main.add_to(cluster, 1, Clerk::Idle).unwrap();
    main.send(ONE, Msg::Go);
    assert_eq!(main.run(Run::until_idle()).unwrap_err().to_string(), both);
}

#[test]
fn a_trace_shows_names_that_nobody_has_as_one_scheduler_does() {
    let clerks = [
        Clerk::Write(backwards("nobody at all")),
        Clerk::Archive,
        Clerk::WriteLater(backwards("nobody later")),
    ];
    let (end, alone) = run(None, &clerks, None);
    assert_eq!((end.as_str(), alone.len()), ("idle", 5));
    let letter =
        r#"{"t_ns":0,"superstep":1,"to":2,"from":1,"receiver":"nobody at all","topic":"Letter"}"#;
    assert_eq!(alone[3], letter);
    for placement in ALL {
        assert_eq!(
            run(Some(placement), &clerks, None).1,
            alone,
            "{placement:?}"
        );
    }
}
