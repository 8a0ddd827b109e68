//! A cluster runs ahead of what is final: it holds back what would leave it, and goes back if
//! something comes.
//!
//! Main grants speculation between two instants. The cluster does instants of its own until one
//! of them has something for others, which is undone and left to main. Every later grant says
//! how far all is final; a grant of another task than speculation finds the cluster there.
//!
//! **Invariant:** nothing that is not final leaves the cluster, and what is told of it
//! ([`DoneAhead`]) may be forgotten: a cluster that went back does the same again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use maslite_core::SimTime;
use maslite_core::internal::{Budget, Engine, EngineHooks, Limits, LockEvenPoisoned, Stood};

use super::MpScheduler;
use super::forecasts::first_arrival;
use crate::cluster::answers::{fault, put};
use crate::cluster::gateway::Gateway;
use crate::cluster::registry::WireMessage;
use crate::cluster::state::TRACE_LIMIT;
use crate::error::message_fault::MessageFault;
use crate::protocol::wire::{DoneAhead, Fault, Grant, Task, TraceLine};

impl<M: WireMessage> MpScheduler<M> {
    /// Stands where the grant says.
    pub(super) fn stand(&mut self, grant: &Grant, mail: &[u8]) -> Result<(), Fault> {
        // Between runs all stand where main stands; within one each has its own time under a
        // lookahead.
        if self.gateway.ahead.is_some() {
            if matches!(grant.task, Task::Setup { .. } | Task::Answer) {
                self.check_time(grant.time)?;
                self.engine.advance_to(grant.time);
            }
            return Ok(());
        }
        let stays_ahead = self.speculates && self.stay_ahead(grant, mail)?;
        if !stays_ahead {
            self.check_time(grant.time)?;
            self.engine.stand_at(grant.time, grant.superstep);
        }
        Ok(())
    }

    /// Takes in how far all is final. What was done ahead stays only if the grant goes on with it;
    /// true if there is any.
    fn stay_ahead(&mut self, grant: &Grant, mail: &[u8]) -> Result<bool, Fault> {
        let place = (grant.time, grant.superstep);
        self.engine.make_final(place).map_err(fault)?;
        let goes_on = matches!(grant.task, Task::Speculate { .. });
        if !goes_on || !grant.news.leaves_all_as_it_is() {
            self.undone += self.go_back().map_err(fault)?;
        } else if let Some(first) = first_arrival(mail)? {
            self.undone += self.engine.go_back_before(first).map_err(fault)?;
            self.forget_lines();
        }
        self.kept = self.engine.instants_ahead().count() as u64;
        if self.kept > 0 {
            return Ok(true);
        }
        self.catch_up(place, grant.supersteps_per_instant)?;
        // Main has got the forecasts of what is final by now.
        self.engine.show_forecasts(|_, _| {});
        Ok(false)
    }

    /// Whether it can stand at that time: main may have been told what was not so.
    fn check_time(&mut self, time: SimTime) -> Result<(), Fault> {
        let now = self.engine.now();
        if time < now {
            return Err(self.refuse(MessageFault::TimeBack));
        }
        if time > now && self.engine.next_alarm().is_some_and(|alarm| alarm < time) {
            return Err(self.refuse(MessageFault::TimeBeyond));
        }
        Ok(())
    }

    /// Writes down the lines of the trace that are final.
    pub(super) fn take_lines(&mut self, stood: &Stood) -> Result<(), Fault> {
        self.lines.clear();
        let mut lines = self.trace.lock_even_poisoned();
        let is_ahead = self.engine.instants_ahead().next().is_some();
        let is_final = |line: &TraceLine| {
            !is_ahead || (line.time, line.superstep) < (stood.now, stood.superstep)
        };
        let count = lines.partition_point(is_final);
        for line in lines.drain(..count) {
            put(&line, &mut self.lines)?;
        }
        let is_full = lines.len() >= TRACE_LIMIT;
        self.gateway.full.store(is_full, Ordering::Relaxed);
        Ok(())
    }

    fn is_ahead(&self) -> bool {
        self.engine.instants_ahead().next().is_some()
    }

    /// Does again what is final by now and was forgotten meanwhile.
    fn catch_up(
        &mut self,
        (time, superstep): (SimTime, u64),
        supersteps_per_instant: u64,
    ) -> Result<(), Fault> {
        while let Some(next) = self.engine.next_alarm() {
            let is_begun = next == time && superstep > 0 && next > self.engine.now();
            let Some(after) = next.checked_add(ONE) else {
                break;
            };
            if next >= time && !is_begun {
                break;
            }
            let limits = Limits {
                horizon: Some(after),
                supersteps: u64::MAX,
                supersteps_per_instant,
            };
            let before = self.engine.now();
            self.engine.run(&limits, &mut Known).map_err(fault)?;
            if self.engine.now() == before {
                break;
            }
        }
        Ok(())
    }

    /// Runs ahead.
    pub(super) fn speculate(
        &mut self,
        task: Task,
        number: u64,
        supersteps_per_instant: u64,
    ) -> Result<(), Fault> {
        let Task::Speculate {
            until,
            instants,
            bytes,
        } = task
        else {
            return Ok(());
        };
        self.gateway.grant = number;
        self.gateway.passes = 0;
        let mut is_blocked = !self.engine.can_run_ahead();
        if !is_blocked {
            let limits = Limits {
                horizon: Some(until.unwrap_or(SimTime::MAX)),
                supersteps: u64::MAX,
                supersteps_per_instant,
            };
            let codec = Arc::clone(&self.registry);
            let mut hooks = Outlook(&mut self.gateway);
            let budget = Budget { instants, bytes };
            let halted = self.engine.run_ahead(&limits, budget, codec, &mut hooks);
            let halted = halted.map_err(fault)?;
            self.undone += halted.undone;
            is_blocked = halted.is_blocked;
            self.forget_lines();
        }
        self.ahead = DoneAhead {
            instants: self.engine.instants_ahead().collect(),
            then: self.engine.next_alarm(),
            is_blocked,
            kept: self.kept,
        };
        Ok(())
    }

    /// Undoes what is not final. Tells how many deliveries that were.
    pub(super) fn go_back(&mut self) -> Result<u64, maslite_core::Error> {
        let undone = self.engine.go_back()?;
        self.forget_lines();
        Ok(undone)
    }

    /// The same before something that needs the cluster as it is for good.
    pub(super) fn give_up_ahead(&mut self) -> Result<(), Fault> {
        if self.speculates && self.is_ahead() {
            self.undone += self.go_back().map_err(fault)?;
        }
        Ok(())
    }

    /// Forgets the lines of the trace that were undone.
    fn forget_lines(&self) {
        let stands = (self.engine.now(), self.engine.superstep());
        let mut lines = self.trace.lock_even_poisoned();
        let count = lines.partition_point(|line| (line.time, line.superstep) < stands);
        lines.truncate(count);
    }
}

const ONE: maslite_core::SimDuration = maslite_core::SimDuration::from_nanos(1);

/// Looks whether anything would leave, and has the instant undone then.
struct Outlook<'g, M>(&'g mut Gateway<M>);

impl<M: WireMessage> EngineHooks<M> for Outlook<'_, M> {
    fn before_posting(&mut self, engine: &mut Engine<M>) -> bool {
        if engine.is_stray() {
            return true;
        }
        let gateway = &mut *self.0;
        let mut leaves = false;
        engine.outgoing(|mail| {
            let (to, is_heard) = gateway.destinations(&mail);
            leaves |= to.is_some() || is_heard;
            is_heard
        });
        if gateway.local_trips > 0 && !leaves {
            gateway.try_local(engine);
        }
        // What is wrong with a message is found again where it counts.
        leaves | gateway.failure.take().is_some()
    }

    fn after_posting(&mut self, _: &mut Engine<M>) -> bool {
        self.0.passes += 1;
        false
    }

    fn wants_attention(&self) -> bool {
        self.0.is_interrupted() || self.0.full.load(Ordering::Relaxed)
    }
}

/// Where all is known: nothing leaves, and nothing is asked.
struct Known;

impl<M: WireMessage> EngineHooks<M> for Known {
    fn before_posting(&mut self, _: &mut Engine<M>) -> bool {
        false
    }

    fn after_posting(&mut self, _: &mut Engine<M>) -> bool {
        false
    }

    fn wants_attention(&self) -> bool {
        false
    }
}
