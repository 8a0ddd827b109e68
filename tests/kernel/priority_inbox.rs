//! Taking first what matters first.

use crate::actor::World;

#[test]
fn the_smallest_key_comes_first_and_of_equal_ones_the_oldest() {
    let mut world = World::new();
    let triage = world.actor().update(
        |ctx| {
            while ctx.next_mail_by_key(|say| say.0.len()).is_some() {}
        },
    );
    world.add(1, triage);
    for topic in ["ccc", "bb", "aaa", "b", "aa", "cc", "a"] {
        world.mail(9, 1, topic);
    }
    world.run_until_idle();
    let topics: Vec<_> = world
        .log
        .take()
        .iter()
        .filter_map(|line| topic_of(line))
        .collect();
    assert_eq!(topics, ["b", "a", "bb", "aa", "cc", "ccc", "aaa"]);
}

#[test]
fn what_does_not_matter_now_stays_in_order() {
    let mut world = World::new();
    let mut turn = 0;
    let triage = world.actor().update(move |ctx| {
        turn += 1;
        if turn == 1 {
            // One from the middle, the last, the first; then new mail comes behind the rest.
            for wanted in ["c", "e", "a"] {
                ctx.next_mail_by_key(|say| say.0 != wanted);
            }
            ctx.send(1, crate::actor::Say("f"));
            assert_eq!(ctx.inbox().count(), 2);
            return;
        }
        while ctx.next_mail().is_some() {}
    });
    world.add(1, triage);
    for topic in ["a", "b", "c", "d", "e"] {
        world.mail(9, 1, topic);
    }
    world.run_until_idle();
    let topics: Vec<_> = world
        .log
        .take()
        .iter()
        .filter_map(|line| topic_of(line))
        .collect();
    assert_eq!(topics, ["c", "e", "a", "b", "d", "f"]);
}

fn topic_of(line: &str) -> Option<String> {
    let mut words = line.split(' ').skip(2);
    (words.next() == Some("gets")).then(|| words.next().unwrap().to_owned())
}
