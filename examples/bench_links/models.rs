//! The side of maslite: two clusters in a process each, and what their agents say to each other.

use std::sync::Arc;

use maslite_mp::Error;
use maslite_mp::prelude::*;
use maslite_testkit::measuring::spin;
use rand::RngExt;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
pub(crate) enum Msg {
    /// To oneself: it is time.
    Tick,
    Word(u64),
    Question(u64),
    Answer(u64),
}

/// Between two instants in which something happens.
pub(crate) const PERIOD: SimDuration = SimDuration::from_millis(1);

/// Every period it sends one message to its peer.
#[derive(Serialize, Deserialize)]
pub(crate) struct Pacer {
    pub(crate) peer: AgentId,
    /// What it has sent, and what it has heard.
    pub(crate) sent: u64,
    pub(crate) heard: u64,
}

impl Agent<Msg> for Pacer {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.alarm_in(PERIOD, Msg::Tick);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Tick => {
                self.sent += 1;
                ctx.send(self.peer, Msg::Word(self.sent));
                ctx.alarm_in(PERIOD, Msg::Tick);
            }
            Msg::Word(number) => {
                self.heard += 1;
                assert_eq!(number, self.heard, "a message was lost");
            }
            Msg::Question(_) | Msg::Answer(_) => {}
        }
    }
}

/// Every period it asks `trips` questions, each when the one before is answered.
#[derive(Serialize, Deserialize)]
pub(crate) struct Asker {
    pub(crate) answerer: AgentId,
    pub(crate) trips: u64,
    /// How many questions of this instant have been asked.
    pub(crate) asked: u64,
}

impl Agent<Msg> for Asker {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.alarm_in(PERIOD, Msg::Tick);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Answer(number) => assert_eq!(number, !self.asked, "an answer was lost"),
            _ => self.asked = 0,
        }
        if self.asked < self.trips {
            self.asked += 1;
            ctx.send(self.answerer, Msg::Question(self.asked));
        } else {
            ctx.alarm_in(PERIOD, Msg::Tick);
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Answerer;

impl Agent<Msg> for Answerer {
    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if let Msg::Question(number) = mail.body {
            ctx.send(mail.sender, Msg::Answer(!number));
        }
    }
}

/// Every period it sends a stream of messages, a fixed number in each superstep, to all receivers
/// in turn.
#[derive(Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) mails: u64,
    pub(crate) next: u64,
    pub(crate) bursts: u64,
}

/// Supersteps of a stream: while the receivers take one in, the next is under way.
pub(crate) const BURSTS: u64 = 20;

/// Agents that messages cross to: enough to be many, few enough not to be what is measured.
pub(crate) const SINKS: u64 = 100;

impl Agent<Msg> for Source {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.alarm_in(PERIOD, Msg::Tick);
    }

    fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        for number in self.next..self.next + self.mails {
            ctx.send(2 + number % SINKS, Msg::Word(number));
        }
        self.next += self.mails;
        self.bursts += 1;
        if self.bursts.is_multiple_of(BURSTS) {
            ctx.alarm_in(PERIOD, Msg::Tick);
        } else {
            ctx.send(ctx.id(), Msg::Tick);
        }
    }
}

/// Gets its share of the messages of the source.
#[derive(Serialize, Deserialize)]
pub(crate) struct Sink {
    pub(crate) next: u64,
}

impl Agent<Msg> for Sink {
    fn receive(&mut self, mail: Mail<Msg>, _: &mut Context<'_, Msg>) {
        if let Msg::Word(number) = mail.body {
            assert_eq!(number, self.next, "a message was lost");
            self.next += SINKS;
        }
    }
}

/// Agents that keep a processor busy and rarely tell another cluster of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Busy {
    /// Of each cluster.
    pub(crate) agents: u64,
    /// Events of each agent that are under way.
    pub(crate) population: u64,
    /// The mean time that an event is under way.
    pub(crate) mean: SimDuration,
    /// What is added to that for an event that goes elsewhere.
    pub(crate) lookahead: SimDuration,
    /// The share of events that go to an agent drawn from the other cluster.
    pub(crate) crossing: f64,
    /// Rounds of busy work per event.
    pub(crate) work: u64,
}

impl Busy {
    fn delay(&self, rng: &mut AgentRng) -> SimDuration {
        SimDuration::from_nanos(rng.random_range(1..=self.mean.as_nanos() * 2))
    }
}

struct Worker {
    busy: Arc<Busy>,
    /// The first id in the other cluster.
    others: u64,
}

impl Agent<Msg> for Worker {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        for _ in 0..self.busy.population {
            let delay = self.busy.delay(ctx.rng());
            ctx.alarm_in(delay, Msg::Tick);
        }
    }

    fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        spin(self.busy.work);
        let delay = self.busy.delay(ctx.rng());
        if ctx.rng().random::<f64>() < self.busy.crossing {
            let to = self.others + ctx.rng().random_range(0..self.busy.agents);
            let delay = delay.saturating_add(self.busy.lookahead);
            ctx.set_alarm(Alarm::after(delay).to(AgentId::from(to)), Msg::Tick);
        } else {
            ctx.alarm_in(delay, Msg::Tick);
        }
    }
}

/// Agents that have a message each at all times, and hand it on in every superstep.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Tokens {
    /// Of each cluster.
    pub(crate) agents: u64,
    pub(crate) clusters: u64,
    /// Rounds of busy work per message.
    pub(crate) work: u64,
    /// The share of messages that go to an agent of the next cluster.
    pub(crate) crossing: f64,
}

struct Hand {
    tokens: Arc<Tokens>,
    cluster: u64,
}

impl Agent<Msg> for Hand {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.send(ctx.id(), Msg::Word(0));
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        let tokens = &*self.tokens;
        spin(tokens.work);
        let rng = ctx.rng();
        let crosses = rng.random::<f64>() < tokens.crossing;
        let cluster = (self.cluster + u64::from(crosses)) % tokens.clusters;
        let to = 1 + cluster * tokens.agents + rng.random_range(0..tokens.agents);
        ctx.send(to, mail.body);
    }
}

/// The registry of this program. A cluster's process goes no further.
pub(crate) fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Pacer>()
        .with::<Asker>()
        .with::<Answerer>()
        .with::<Source>()
        .with::<Sink>()
        .with_builder("workers", |(busy, cluster): (Busy, u64), agents| {
            let firsts = [1, 1 + busy.agents];
            let (first, others) = match cluster {
                0 => (firsts[0], firsts[1]),
                _ => (firsts[1], firsts[0]),
            };
            let busy = Arc::new(busy);
            for id in first..first + busy.agents {
                let busy = Arc::clone(&busy);
                agents.add(id, Worker { busy, others });
            }
        })
        .with_builder("tokens", |(tokens, cluster): (Tokens, u64), agents| {
            let tokens = Arc::new(tokens);
            let first = 1 + cluster * tokens.agents;
            for id in first..first + tokens.agents {
                let tokens = Arc::clone(&tokens);
                agents.add(id, Hand { tokens, cluster });
            }
        })
        .enter()
}

/// Clusters with an agent each that sends the next one a message in every period.
pub(crate) fn lockstep(main: &mut MpMain<Msg>, clusters: u64) -> Result<(), Error> {
    for id in 1..=clusters {
        let cluster = main.new_cluster();
        let peer = AgentId::from(id % clusters + 1);
        let (sent, heard) = (0, 0);
        main.add_to(cluster, id, Pacer { peer, sent, heard })?;
    }
    Ok(())
}

/// An agent that asks `trips` questions in every period, and one in another cluster that answers.
pub(crate) fn round_trip(main: &mut MpMain<Msg>, trips: u64) -> Result<(), Error> {
    let (one, two) = (main.new_cluster(), main.new_cluster());
    let asker = Asker {
        answerer: AgentId::from(2),
        trips,
        asked: 0,
    };
    main.add_to(one, 1, asker)?;
    main.add_to(two, 2, Answerer)
}

/// Adds an agent that sends `mails` messages a superstep, and agents in another cluster that get
/// them.
pub(crate) fn crossing(main: &mut MpMain<Msg>, mails: u64) -> Result<(), Error> {
    let (one, two) = (main.new_cluster(), main.new_cluster());
    let (next, bursts) = (0, 0);
    main.add_to(
        one,
        1,
        Source {
            mails,
            next,
            bursts,
        },
    )?;
    for next in 0..SINKS {
        main.add_to(two, 2 + next, Sink { next })?;
    }
    Ok(())
}

/// Clusters of agents that hand on what they get, or all of them in one cluster.
pub(crate) fn tokens(main: &mut MpMain<Msg>, tokens: Tokens, in_one: bool) -> Result<(), Error> {
    let mut cluster = main.new_cluster();
    for number in 0..tokens.clusters {
        if number > 0 && !in_one {
            cluster = main.new_cluster();
        }
        main.build(cluster, "tokens", (tokens, number))?;
    }
    Ok(())
}

/// Two clusters of workers.
pub(crate) fn workers(main: &mut MpMain<Msg>, busy: Busy) -> Result<(), Error> {
    for number in 0..2_u64 {
        let cluster = main.new_cluster();
        main.build(cluster, "workers", (busy, number))?;
    }
    Ok(())
}
