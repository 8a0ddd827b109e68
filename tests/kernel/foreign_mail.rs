//! Mail that other engines bring is counted, whatever its address: also a garbled address of no
//! agent.

use maslite_core::internal::{Engine, Import, MailKey};
use maslite_core::{Agent, AgentId, Context, Mail, SimTime};

use crate::actor::Say;

struct Reader;

impl Agent<Say> for Reader {
    fn receive(&mut self, _: Mail<Say>, _: &mut Context<'_, Say>) {}
}

/// An engine among others, with agent 1, to which this mail is brought in one superstep.
fn with_mail(mails: [(AgentId, bool); 2]) -> Engine<Say> {
    let mut engine = Engine::new(0);
    engine.join_neighbours();
    engine.add(AgentId::from(1), Box::new(Reader)).unwrap();
    engine.setup().unwrap();
    let mails = (0..)
        .zip(mails)
        .map(|(sequence, (receiver, is_copy))| Import {
            key: MailKey::of_agent(SimTime::ZERO, 5, sequence),
            mail: Mail::new(9, receiver, Say("Hello")),
            is_copy,
        });
    engine.import(mails);
    engine.post();
    engine.step(10).unwrap();
    engine
}

#[test]
fn mail_to_nobody_is_undeliverable_where_it_is_brought() {
    let (one, nobody) = (AgentId::from(1), AgentId::from(1_u64 << 40));
    let mut engine = with_mail([(one, false), (nobody, false)]);
    let counters = engine.counters();
    assert_eq!((counters.sent, counters.delivered), (2, 1));
    assert_eq!((counters.undeliverable, counters.queued), (1, 0));
    let lost = engine.take_lost();
    let [(_, lost)] = &lost[..] else {
        panic!("{lost:?}");
    };
    assert_eq!((lost.from, lost.to), (AgentId::from(9), nobody));
}

/// The engine of its receiver counts it, also if no agent here listens to it any more.
#[test]
fn a_copy_is_counted_where_its_receiver_is() {
    let (one, elsewhere) = (AgentId::from(1), AgentId::from(2));
    let engine = with_mail([(one, false), (elsewhere, true)]);
    let counters = engine.counters();
    assert_eq!((counters.sent, counters.undeliverable), (1, 0));
}
