//! What goes wrong silently is in the report, and the same in every placement: mail that no agent
//! gets, topics that no agent sends, alarms for the past.

use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::test_placement::{ALL_AND_FORGETFUL, PlacedOn, TestPlacement};

#[derive(Clone, Serialize, Deserialize, Message)]
enum Msg {
    Go,
    Order,
    Bill,
    Closing,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Clerk {
    /// Orders from an agent whose name has a slip.
    Customer,
    /// Listens to topics that no agent sends, and to one that an agent sends.
    Archive,
    /// Leaves without reading what it was sent.
    Leaver,
    /// Sends a bill, by a later alarm, to an agent that is not there.
    Accountant,
    /// Sets alarms for the past.
    Late,
}

impl Agent<Msg> for Clerk {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        if let Self::Archive = self {
            ctx.subscribe(Pattern::topic("Order"));
            ctx.subscribe(Pattern::topic("Ordr"));
            ctx.subscribe(Pattern::topic("Closing"));
        }
    }

    fn update(&mut self, ctx: &mut Context<'_, Msg>) {
        if let Self::Leaver = self {
            return ctx.remove(ctx.id());
        }
        while let Some(mail) = ctx.next_mail() {
            self.receive(mail, ctx);
        }
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match (self, mail.body) {
            (Self::Customer, Msg::Go) => {
                ctx.send("bakr", Msg::Order);
                ctx.send(AgentId::MAIN, Msg::Order);
                let later = Alarm::after(SimDuration::from_secs(2));
                ctx.set_alarm(later.to("leaver"), Msg::Bill);
                ctx.send_direct("nobody", Msg::Closing);
            }
            (Self::Accountant, Msg::Go) => {
                let later = Alarm::after(SimDuration::from_secs(1));
                ctx.set_alarm(later.to(99), Msg::Bill);
            }
            (Self::Late, Msg::Go) => {
                ctx.alarm_in(SimDuration::from_secs(1), Msg::Bill);
            }
            (Self::Late, Msg::Bill) => {
                ctx.alarm_at(SimTime::ZERO, Msg::Order);
                ctx.alarm_at(ctx.now(), Msg::Order);
            }
            _ => {}
        }
    }
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Clerk>()
        .entered_by_test("lost_mail::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

fn clerks() -> [(AgentId, Clerk); 5] {
    [
        ("customer".into(), Clerk::Customer),
        ("archive".into(), Clerk::Archive),
        ("leaver".into(), Clerk::Leaver),
        ("accountant".into(), Clerk::Accountant),
        ("late".into(), Clerk::Late),
    ]
}

/// The owner's mail: to all, and to one that is not there.
fn mails() -> impl Iterator<Item = Mail<Msg>> {
    let all = clerks().map(|(id, _)| id).into_iter();
    all.chain([AgentId::from(7)])
        .map(|id| Mail::new(AgentId::MAIN, id, Msg::Go))
}

fn alone() -> Report {
    let mut scheduler = Scheduler::new();
    for (id, clerk) in clerks() {
        scheduler.add(id, clerk).unwrap();
    }
    mails().for_each(|mail| scheduler.send_mail(mail));
    scheduler.run(Run::until_idle()).unwrap()
}

/// With the agents in `clusters` clusters.
fn divided(placement: TestPlacement, clusters: usize) -> MpReport {
    let mut main = MpMain::builder(agents()).on(placement).build().unwrap();
    let clusters: Vec<_> = (0..clusters).map(|_| main.new_cluster()).collect();
    for ((id, clerk), cluster) in clerks().into_iter().zip(clusters.into_iter().cycle()) {
        main.add_to(cluster, id, clerk).unwrap();
    }
    mails().for_each(|mail| main.send_mail(mail));
    main.run(Run::until_idle()).unwrap()
}

fn shown(report: &Report) -> Vec<String> {
    report.lost.iter().map(ToString::to_string).collect()
}

const LOST: [&str; 7] = [
    "Go from main to 7 at 0 s",
    "Order from customer to bakr at 0 s",
    "Order from customer to main at 0 s",
    "Closing from customer to nobody at 0 s",
    "Go from main to leaver at 0 s",
    "Bill from accountant to 99 at 1 s",
    "Bill from customer to leaver at 2 s",
];

#[test]
fn mail_for_nobody_topics_without_mail_and_alarms_for_the_past_are_reported() {
    let report = alone();
    assert_eq!(shown(&report), LOST);
    assert_eq!(report.total.undeliverable, 7);
    assert_eq!(report.silent, ["Closing", "Ordr"].map(Topic::new));
    assert_eq!((report.total.alarms_late, report.total.alarms_set), (1, 5));
    let text = report.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[1].ends_with("; alarms set for the past: 1"), "{text}");
    let lost = format!(
        "undeliverable: {}; {}; {}; and 4 more",
        LOST[0], LOST[1], LOST[2]
    );
    assert_eq!(
        lines[2..],
        [lost.as_str(), "listened to, but never sent: Closing, Ordr"]
    );

    for placement in ALL_AND_FORGETFUL {
        for clusters in [1, 2, 5] {
            let divided = divided(placement, clusters);
            assert_eq!(shown(&divided), LOST, "{placement:?}, {clusters}");
            assert_eq!(divided.silent, report.silent, "{placement:?}, {clusters}");
            assert_eq!(divided.total, report.total, "{placement:?}, {clusters}");
        }
    }
}

#[test]
fn programs_read_it_too() {
    let json: Value = serde_json::from_str(&divided(TestPlacement::Ring, 2).to_json()).unwrap();
    let last =
        json!({"time_ns": 2_000_000_000_u64, "from": "customer", "to": "leaver", "topic": "Bill"});
    assert_eq!(json["undeliverable"][6], last);
    assert_eq!(json["never_sent"], json!(["Closing", "Ordr"]));
    assert_eq!(json["counters"]["alarms_late"], 1);
}
