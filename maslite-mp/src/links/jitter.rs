//! Links with jitter: a tool for tests. What a run gives must not depend on when messages arrive.
//!
//! A seed says which links delay messages in which direction, and for how long. Between processes
//! both ends do, so that main's messages to its clusters overtake each other, and so do the
//! answers. In one thread it is not time that counts but the order of work: there the seed says
//! which scheduler works as soon as it is told and which one when its answer is awaited.
//!
//! **Invariant:** a link without jitter has nothing of this around it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use maslite_core::{AgentId, AgentRng};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::error::link::LinkError;
use crate::links::transport::{Draft, Transport, Wait};

/// Delays that are not pauses are shorter than this [µs].
const DELAY: u64 = 200;

/// Pauses are shorter than this [µs].
const PAUSE: u64 = 3_000;

/// Where the chance of one end of one link comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Jitter {
    seed: u64,
    end: u64,
}

impl Jitter {
    /// Of main's end of its link to a cluster.
    pub(crate) fn main_side(seed: u64, cluster: usize) -> Self {
        let end = 2 * cluster as u64;
        Self { seed, end }
    }

    /// Of the other end.
    pub(crate) fn child_side(seed: u64, cluster: usize) -> Self {
        let end = 2 * cluster as u64 + 1;
        Self { seed, end }
    }

    fn rng(self) -> AgentRng {
        AgentRng::new(self.seed, AgentId::from(self.end))
    }
}

/// An end of a link between processes that holds up messages.
pub(crate) struct JitterLink {
    link: Box<dyn Transport>,
    rng: AgentRng,
    delays_sent: bool,
    delays_received: bool,
    /// Lets time pass: nothing is ever sent on it, so a receiver waits for its whole timeout.
    silence: Receiver<Infallible>,
    /// Held only so that the channel stays open.
    _silent: Sender<Infallible>,
}

impl JitterLink {
    pub(crate) fn new(link: Box<dyn Transport>, jitter: Jitter) -> Self {
        let (silent, silence) = mpsc::channel();
        let mut rng = jitter.rng();
        Self {
            link,
            delays_sent: rng.random(),
            delays_received: rng.random(),
            rng,
            silence,
            _silent: silent,
        }
    }

    fn delay(&mut self) {
        let delay = match self.rng.random_range(0..64_u32) {
            0 => self.rng.random_range(DELAY..PAUSE),
            1..32 => self.rng.random_range(0..DELAY),
            _ => return,
        };
        let _ = self.silence.recv_timeout(Duration::from_micros(delay));
    }
}

impl Transport for JitterLink {
    fn draft(&mut self) -> Result<Draft<'_>, LinkError> {
        self.link.draft()
    }

    fn salvage(&mut self) -> Vec<u8> {
        self.link.salvage()
    }

    fn send(&mut self) -> Result<(), LinkError> {
        if self.delays_sent {
            self.delay();
        }
        self.link.send()
    }

    fn recv(&mut self) -> Result<&[u8], LinkError> {
        // The delay comes before the look for a message, not after one was found: the caller sees
        // no difference.
        if self.delays_received {
            self.delay();
        }
        self.link.recv()
    }

    fn recv_to_answer(&mut self) -> Result<(&[u8], Draft<'_>), LinkError> {
        if self.delays_received {
            self.delay();
        }
        self.link.recv_to_answer()
    }

    fn wait_as(&mut self, wait: Wait) {
        self.link.wait_as(wait);
    }
}

/// Main's end of a link to a scheduler in the same thread, which now and then works out of turn.
pub(crate) struct InlineJitterLink {
    link: Box<dyn Transport>,
    rng: AgentRng,
    /// What it has answered before it was asked.
    answers: VecDeque<Vec<u8>>,
    /// The answer last asked for, if it was one of these.
    answer: Vec<u8>,
}

impl InlineJitterLink {
    pub(crate) fn new(link: Box<dyn Transport>, jitter: Jitter) -> Self {
        Self {
            link,
            rng: jitter.rng(),
            answers: VecDeque::new(),
            answer: Vec::new(),
        }
    }
}

impl Transport for InlineJitterLink {
    fn draft(&mut self) -> Result<Draft<'_>, LinkError> {
        self.link.draft()
    }

    fn send(&mut self) -> Result<(), LinkError> {
        self.link.send()?;
        if self.rng.random() {
            match self.link.recv() {
                Ok(answer) => self.answers.push_back(answer.to_vec()),
                // It has worked, and there was nothing to answer.
                Err(LinkError::Disconnected) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn recv(&mut self) -> Result<&[u8], LinkError> {
        match self.answers.pop_front() {
            Some(answer) => {
                self.answer = answer;
                Ok(&self.answer)
            }
            None => self.link.recv(),
        }
    }

    fn recv_to_answer(&mut self) -> Result<(&[u8], Draft<'_>), LinkError> {
        match self.answers.pop_front() {
            Some(answer) => {
                self.answer = answer;
                Ok((&self.answer, self.link.draft()?))
            }
            None => self.link.recv_to_answer(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::links::transport::{DraftBuffer, now};

    /// Answers what begins with a question mark, with what it has heard; writes down when.
    struct Echo {
        name: u8,
        draft: DraftBuffer,
        waiting: VecDeque<Vec<u8>>,
        answer: Vec<u8>,
        order: Arc<Mutex<Vec<u8>>>,
    }

    impl Transport for Echo {
        fn draft(&mut self) -> Result<Draft<'_>, LinkError> {
            Ok(Draft::in_buffer(&mut self.draft))
        }

        fn send(&mut self) -> Result<(), LinkError> {
            self.waiting.push_back(self.draft.replace(Vec::new()));
            Ok(())
        }

        fn recv(&mut self) -> Result<&[u8], LinkError> {
            while let Some(message) = self.waiting.pop_front() {
                self.order.lock().unwrap().push(self.name);
                if message[0] == b'?' {
                    self.answer = message;
                    return Ok(&self.answer);
                }
            }
            Err(LinkError::Disconnected)
        }

        fn recv_to_answer(&mut self) -> Result<(&[u8], Draft<'_>), LinkError> {
            self.recv()?;
            Ok((&self.answer, Draft::in_buffer(&mut self.draft)))
        }
    }

    fn echo(name: u8, order: &Arc<Mutex<Vec<u8>>>) -> Box<dyn Transport> {
        Box::new(Echo {
            name,
            draft: DraftBuffer::default(),
            waiting: VecDeque::new(),
            answer: Vec::new(),
            order: Arc::clone(order),
        })
    }

    /// Tells two schedulers something in each of 40 rounds, asks both, and returns the orders in
    /// which they have worked.
    fn orders(seed: u64) -> Vec<Vec<u8>> {
        let order = Arc::default();
        let mut links = [0, 1].map(|name: u8| {
            let jitter = Jitter::main_side(seed, usize::from(name));
            InlineJitterLink::new(echo(name, &order), jitter)
        });
        let rounds = (0..40_u8).map(|round| {
            let question = [b'?', round];
            for link in &mut links {
                link.say(b"news").unwrap();
                link.say(&question).unwrap();
            }
            for link in &mut links {
                assert_eq!(link.recv().unwrap(), question);
            }
            std::mem::take(&mut *order.lock().unwrap())
        });
        rounds.collect()
    }

    #[test]
    fn schedulers_in_one_thread_work_in_an_order_that_the_seed_gives() {
        let first = orders(1);
        assert!(first.contains(&vec![0, 0, 1, 1]) && first.contains(&vec![1, 1, 0, 0]));
        assert_eq!(first, orders(1));
        assert_ne!(first, orders(2));
    }

    /// Sends many questions before it looks for the answers, which come all and in order.
    fn converse(mut link: impl Transport) {
        for number in 0..32_u8 {
            link.say(&[b'?', number]).unwrap();
        }
        for number in 0..32_u8 {
            assert_eq!(link.recv().unwrap(), [b'?', number]);
        }
    }

    #[test]
    fn no_message_is_lost_or_overtaken() {
        let (begin, order) = (now(), Arc::default());
        for cluster in 0..8 {
            let jitter = Jitter::child_side(3, cluster);
            converse(JitterLink::new(echo(0, &order), jitter));
            converse(InlineJitterLink::new(echo(0, &order), jitter));
        }
        assert!(begin.elapsed() > Duration::from_millis(5), "nothing waited");
    }
}
