//! The digest of contents is the same wherever the clusters run, and another one if anything else
//! is said.

use maslite_mp::prelude::*;
use maslite_mp::{Covers, Marks};
use serde::{Deserialize, Serialize};

use crate::test_placement::{ALL_AND_FORGETFUL, PlacedOn, TestPlacement};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Offer { cents: u32, text: String },
    News(Vec<u8>),
}

const TRADERS: u64 = 9;

/// Passes an offer on to others, with a price that depends on how much is added, tells all who
/// listen, and at last main.
#[derive(Serialize, Deserialize)]
struct Trader {
    surcharge: u32,
}

impl Agent<Msg> for Trader {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        if ctx.id() == AgentId::from(3) {
            ctx.subscribe(Pattern::topic("News"));
        }
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        let Msg::Offer { cents, text } = mail.body else {
            return;
        };
        ctx.broadcast(Msg::News(text.clone().into_bytes()));
        let to = match text.len() {
            0..20 => AgentId::from((ctx.id().as_u64() + 4) % TRADERS),
            _ => AgentId::MAIN,
        };
        let offer = Msg::Offer {
            cents: cents + self.surcharge,
            text: text + "!",
        };
        ctx.set_alarm(Alarm::after(SimDuration::from_millis(1)).to(to), offer);
    }
}

fn agents() -> Entered<Msg> {
    let registry = Registry::new().with::<Trader>().with_bodies_in_trace();
    registry.entered_by_test("content_digest::child").enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

fn offers() -> impl Iterator<Item = Mail<Msg>> {
    (0..3_u64).map(|to| {
        let text = "it is cheap".to_owned();
        Mail::new(
            AgentId::MAIN,
            AgentId::from(to),
            Msg::Offer { cents: 5, text },
        )
    })
}

/// The digests, the trace, and the content digest in pieces.
type Told = ([Option<Digest>; 2], Vec<String>, Marks);

/// Marks of a run with these digests.
fn checked(marks: Option<Marks>, digests: [Option<Digest>; 2]) -> Marks {
    let marks = marks.unwrap();
    assert_eq!(Some(marks.digest()), digests[1]);
    assert_eq!(marks.covers(), Covers::Contents);
    marks
}

fn alone(surcharge: u32) -> Told {
    let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let into = std::sync::Arc::clone(&lines);
    let observer: maslite_core::Observer<Msg> = Box::new(move |delivery| {
        let mut line = String::new();
        delivery.write_json_with_body(&mut line);
        into.lock().unwrap().push(line);
    });
    let mut scheduler = Scheduler::builder()
        .content_digest()
        .observe(observer)
        .build();
    for id in 0..TRADERS {
        scheduler.add(id, Trader { surcharge }).unwrap();
    }
    offers().for_each(|offer| scheduler.send_mail(offer));
    let report = scheduler.run_with(Run::until_idle(), |_, _| {}).unwrap();
    let lines = lines.lock().unwrap().clone();
    let digests = [report.digest, report.content_digest];
    (digests, lines, checked(scheduler.marks(), digests))
}

fn in_clusters(placement: TestPlacement, clusters: usize, surcharge: u32) -> Told {
    ahead(placement, clusters, surcharge, SimDuration::ZERO)
}

/// Of clusters that run ahead of each other, unless the lookahead is zero.
fn ahead(
    placement: TestPlacement,
    clusters: usize,
    surcharge: u32,
    lookahead: SimDuration,
) -> Told {
    let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let into = std::sync::Arc::clone(&lines);
    let mut main = MpMain::builder(agents())
        .on(placement)
        .content_digest()
        .lookahead(lookahead)
        .trace(move |line| into.lock().unwrap().push(line.to_owned()))
        .build()
        .unwrap();
    let clusters: Vec<_> = (0..clusters).map(|_| main.new_cluster()).collect();
    for (id, cluster) in (0..TRADERS).zip(clusters.into_iter().cycle()) {
        main.add_to(cluster, id, Trader { surcharge }).unwrap();
    }
    offers().for_each(|offer| main.send_mail(offer));
    let report = main.run_with(Run::until_idle(), |_, _| {}).unwrap();
    let lines = lines.lock().unwrap().clone();
    let json = report.to_json();
    let digest = report.content_digest.unwrap();
    assert!(
        json.contains(&format!("\"content_digest\":\"{digest}\"")),
        "{json}"
    );
    let digests = [report.digest, report.content_digest];
    (digests, lines, checked(main.marks().unwrap(), digests))
}

#[test]
fn it_is_the_same_on_every_placement() {
    let expected = alone(7);
    let last = r#"{"t_ns":10000000,"superstep":0,"to":"main","from":0,"receiver":"main","topic":"Offer","body":{"Offer":{"cents":75,"text":"it is cheap!!!!!!!!!!"}}}"#;
    assert!(
        expected.1.iter().any(|line| line == last),
        "{:?}",
        expected.1
    );
    for placement in ALL_AND_FORGETFUL {
        for clusters in 1..=3 {
            let told = in_clusters(placement, clusters, 7);
            assert_eq!(told, expected, "{placement:?}, {clusters} clusters");
        }
    }
}

#[test]
fn it_tells_runs_apart_in_which_other_things_are_said() {
    let (seven, _, marks) = alone(7);
    let (eight, _, other_marks) = alone(8);
    let piece = marks.first_difference(&other_marks).unwrap();
    assert!(piece.contains(&SimTime::from_millis(1)), "{piece:?}");
    assert_eq!(seven[0], eight[0]);
    assert_ne!(seven[1], eight[1]);
    for placement in ALL_AND_FORGETFUL {
        assert_eq!(in_clusters(placement, 2, 8).0, eight, "{placement:?}");
    }
}

/// News that cross are held back, so each division into clusters has digests of its own, and one
/// cluster has those of a lone scheduler.
#[test]
fn under_a_lookahead_it_is_the_same_on_every_placement() {
    let lookahead = SimDuration::from_millis(1);
    let alone = alone(7);
    let mut seen = Vec::new();
    for clusters in 1..=3 {
        let inline = ahead(TestPlacement::Inline, clusters, 7, lookahead);
        for placement in ALL_AND_FORGETFUL {
            let told = ahead(placement, clusters, 7, lookahead);
            assert_eq!(told, inline, "{placement:?}, {clusters} clusters");
        }
        let said_otherwise = ahead(TestPlacement::Inline, clusters, 8, lookahead);
        assert_eq!(said_otherwise.0[0], inline.0[0], "{clusters} clusters");
        assert_ne!(said_otherwise.0[1], inline.0[1], "{clusters} clusters");
        seen.push(inline.0);
    }
    assert_eq!(seen[0], alone.0);
    assert_ne!(seen[1], alone.0);
}
