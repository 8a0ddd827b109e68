//! Who gets copies: all seven patterns, from when to when, and no agent twice.

use maslite_core::{AgentId, Mail, Pattern, Receiver};

use crate::actor::{Say, World};

/// A world in which 1 and 2 exist and `patterns[n]` is what agent 11 + n listens to.
fn spied_on(patterns: &[Vec<Pattern>]) -> World {
    let mut world = World::new();
    world.add_idle(1);
    world.add_idle(2);
    for (id, patterns) in (11_u64..).zip(patterns) {
        let patterns = patterns.clone();
        let spy = world.actor().setup(move |ctx| {
            for pattern in &patterns {
                ctx.subscribe(*pattern);
            }
        });
        world.add(id, spy);
    }
    world.run_until_idle();
    world.log.take();
    world
}

/// Who gets one mail, in the order they get it.
fn readers(world: &mut World, from: u64, to: impl Into<Receiver>, topic: &'static str) -> Vec<u64> {
    world.scheduler.send_mail(Mail::new(from, to, Say(topic)));
    world.run_until_idle();
    let lines = world.log.take();
    let reader = |line: &String| line.split(' ').nth(1).and_then(|id| id.parse().ok());
    lines.iter().map(|line| reader(line).unwrap()).collect()
}

#[test]
fn all_seven_patterns_match_what_they_name() {
    let patterns: Vec<_> = [
        Pattern::sender(1),
        Pattern::receiver(2),
        Pattern::topic("T"),
        Pattern::sender(1).sent_to(2),
        Pattern::sender(1).about("T"),
        Pattern::receiver(2).about("T"),
        Pattern::sender(1).sent_to(2).about("T"),
    ]
    .map(|pattern| vec![pattern])
    .into();
    let mut world = spied_on(&patterns);
    let (one, two) = (AgentId::from(1), AgentId::from(2));
    let all = Receiver::Subscribers;
    for (from, to, topic, expected) in [
        (1, two.into(), "T", vec![2, 11, 12, 13, 14, 15, 16, 17]),
        (1, two.into(), "U", vec![2, 11, 12, 14]),
        (1, one.into(), "T", vec![1, 11, 13, 15]),
        (1, one.into(), "U", vec![1, 11]),
        (2, two.into(), "T", vec![2, 12, 13, 16]),
        (2, two.into(), "U", vec![2, 12]),
        (2, one.into(), "T", vec![1, 13]),
        (2, one.into(), "U", vec![1]),
        (1, all, "T", vec![11, 13, 15]),
        (1, all, "U", vec![11]),
        (2, all, "T", vec![13]),
        (2, all, "U", vec![]),
        (1, Receiver::Direct(two), "T", vec![2]),
    ] {
        let got = readers(&mut world, from, to, topic);
        assert_eq!(got, expected, "{topic} from {from} to {to:?}");
    }
}

#[test]
fn nobody_gets_a_mail_twice() {
    let mut world = spied_on(&[
        vec![
            Pattern::sender(1),
            Pattern::receiver(2),
            Pattern::topic("T"),
        ],
        vec![Pattern::receiver(12), Pattern::topic("T")],
    ]);
    assert_eq!(readers(&mut world, 1, AgentId::from(2), "T"), [2, 11, 12]);
    // 12 is the receiver and listens to its own mail.
    assert_eq!(readers(&mut world, 1, AgentId::from(12), "T"), [11, 12]);
    // A sender that listens hears itself.
    assert_eq!(
        readers(&mut world, 12, Receiver::Subscribers, "T"),
        [11, 12]
    );
}

#[test]
fn copies_are_made_of_mail_whose_receiver_exists_nowhere() {
    let mut world = spied_on(&[vec![Pattern::receiver(77)]]);
    assert_eq!(readers(&mut world, 1, AgentId::from(77), "T"), [11]);
    let counters = world.scheduler.counters();
    let expected = (2, 1, 1);
    assert_eq!(
        (counters.sent, counters.delivered, counters.undeliverable),
        expected
    );
}

#[test]
fn a_broadcast_that_nobody_hears_is_counted_and_not_sent() {
    let mut world = spied_on(&[]);
    assert_eq!(
        readers(&mut world, 1, Receiver::Subscribers, "T"),
        [] as [u64; 0]
    );
    let counters = world.scheduler.counters();
    assert_eq!((counters.sent, counters.unheard), (0, 1));
}

#[test]
fn a_subscription_holds_for_the_mail_of_its_own_superstep() {
    let mut world = World::new();
    let news = world.actor().on("Go", |_, ctx| ctx.broadcast(Say("News")));
    world.add(1, news);
    let fickle = world
        .actor()
        .on("Go", |_, ctx| ctx.subscribe(Pattern::topic("News")));
    let fickle = fickle.on("Stop", |_, ctx| ctx.unsubscribe(Pattern::topic("News")));
    world.add(2, fickle);
    world.mail(9, 1, "Go");
    world.mail(9, 2, "Go");
    world.run_until_idle();
    world.mail(9, 1, "Go");
    world.mail(9, 2, "Stop");
    let report = world.run_until_idle();
    // Both times it acts after the sender, and yet before the mail is posted.
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 2 is set up",
        "0/0 1 gets Go from 9",
        "0/0 2 gets Go from 9",
        "0/1 2 gets News from 1 to all",
        "0/2 1 gets Go from 9",
        "0/2 2 gets Stop from 9",
    ]);
    assert_eq!(report.total.unheard, 1);
}

#[test]
fn subscribing_and_unsubscribing_again_changes_nothing() {
    let mut world = World::new();
    let spy = world.actor().setup(|ctx| {
        for _ in 0..3 {
            ctx.subscribe(Pattern::topic("T"));
        }
        ctx.unsubscribe(Pattern::topic("Never had"));
    });
    let spy = spy.on("Stop", |_, ctx| {
        ctx.unsubscribe(Pattern::topic("T"));
        ctx.unsubscribe(Pattern::topic("T"));
    });
    world.add(1, spy);
    world.run_until_idle();
    world.log.take();
    assert_eq!(readers(&mut world, 9, Receiver::Subscribers, "T"), [1]);
    world.mail(9, 1, "Stop");
    world.run_until_idle();
    world.log.take();
    assert_eq!(
        readers(&mut world, 9, Receiver::Subscribers, "T"),
        [] as [u64; 0]
    );
    assert_eq!(world.scheduler.subscriptions(1), []);
}

#[test]
fn one_may_ask_who_listens_and_to_what() {
    let (news, from_two) = (Pattern::topic("News"), Pattern::sender(2).about("News"));
    let mut world = spied_on(&[vec![news, from_two], vec![news], vec![from_two]]);
    assert_eq!(
        world.scheduler.subscribers(news),
        [11, 12].map(AgentId::from)
    );
    assert_eq!(
        world.scheduler.subscribers(from_two),
        [11, 13].map(AgentId::from)
    );
    assert_eq!(world.scheduler.subscribers(Pattern::sender(2)), []);
    let mut of_first = world.scheduler.subscriptions(11);
    of_first.sort();
    let mut expected = vec![news, from_two];
    expected.sort();
    assert_eq!(of_first, expected);
    assert_eq!(world.scheduler.subscriptions(1), []);
}

#[test]
fn unsubscribe_all_leaves_nothing() {
    let mut world = World::new();
    let spy = world.actor().setup(|ctx| {
        ctx.subscribe(Pattern::topic("T"));
        ctx.subscribe(Pattern::sender(9));
    });
    world.add(1, spy.on("Stop", |_, ctx| ctx.unsubscribe_all()));
    world.run_until_idle();
    world.mail(8, 1, "Stop");
    world.run_until_idle();
    world.log.take();
    assert_eq!(
        readers(&mut world, 9, Receiver::Subscribers, "T"),
        [] as [u64; 0]
    );
}

#[test]
fn removing_an_agent_removes_its_subscriptions() {
    let mut world = spied_on(&[
        vec![Pattern::topic("T"), Pattern::receiver(2)],
        vec![Pattern::topic("T")],
    ]);
    world.scheduler.remove(11).unwrap();
    world.run_until_idle();
    world.log.take();
    let subscribers = world.scheduler.subscribers(Pattern::topic("T"));
    assert_eq!(subscribers, [AgentId::from(12)]);
    assert_eq!(world.scheduler.subscribers(Pattern::receiver(2)), []);
    assert_eq!(world.scheduler.subscriptions(11), []);
    assert_eq!(readers(&mut world, 1, AgentId::from(2), "T"), [2, 12]);
}

#[test]
fn a_pattern_that_names_nothing_is_an_error() {
    assert_eq!(
        Pattern::new(None, None, None).unwrap_err().to_string(),
        "a subscription must name a sender, a receiver or a topic, and this one names none"
    );
}
