//! Forecasts: alarms for agents of other schedulers, which get them when they are set and not when
//! they are due.
//!
//! The alarm itself stays where it was set: there it is listed, counted and cleared, and it fires
//! without effect. Its copy among the alarms of the receiver's scheduler fires at the same instant
//! and is mail then. Copies can be withdrawn at any time between two instants: the alarms then fire
//! as all others do. So forecasts never hold what is known nowhere else.

use super::Kernel;
use crate::alarm_queue::{AlarmId, Pending};
use crate::directory::Whereabouts;
use crate::message::{Envelope, FORECAST, FOREIGN, Import, Message, PERIODIC};
use crate::{AgentId, SimTime};

/// What a scheduler keeps of alarms that are forecast.
#[derive(Debug)]
pub(crate) struct Forecasts<M> {
    /// Alarms are forecast; otherwise there are only copies of others' alarms.
    pub(crate) are_made: bool,
    /// Alarms that were set since the host last took them, in that order, with the time at which
    /// they are due. Some may have fired since, ahead of what is final.
    pub(super) fresh: Vec<(SimTime, Envelope<M>)>,
    /// When the first of them is due.
    pub(crate) first_due: Option<SimTime>,
    /// How many alarms that are forecast are pending here.
    pub(super) pending: u64,
    /// How many copies of others' alarms are among the alarms.
    pub(super) copies: u64,
    /// A copy elsewhere is wrong: its alarm was cleared.
    pub(crate) are_wrong: bool,
    /// Nothing but alarms that are forecast has fired at the last instant.
    pub(super) was_silent: bool,
    /// How often they were withdrawn.
    withdrawn: u32,
}

impl<M> Default for Forecasts<M> {
    fn default() -> Self {
        Self {
            are_made: false,
            fresh: Vec::new(),
            first_due: None,
            pending: 0,
            copies: 0,
            are_wrong: false,
            was_silent: false,
            withdrawn: 0,
        }
    }
}

/// A model whose forecasts are wrong more often than that gets none.
const MOST_WITHDRAWN: u32 = 16;

impl<M: Message> Kernel<M> {
    /// Whether an alarm that is set now is forecast: nobody but its receiver may get it, and it is
    /// due at a later instant.
    pub(super) fn is_forecast(&self, time: SimTime, load: &Envelope<M>) -> bool {
        let is_for_one = load.is_direct() || !self.others_listen && self.mailing_list.is_empty();
        let forecasts = self.forecasts.as_ref();
        forecasts.is_some_and(|it| it.are_made && it.withdrawn <= MOST_WITHDRAWN)
            && time > self.now
            && is_for_one
            && !load.is(PERIODIC)
            && load.receiver().agent() != Some(AgentId::MAIN)
    }

    /// Notes an alarm that is forecast.
    pub(super) fn note_forecast(&mut self, time: SimTime, load: &Envelope<M>) {
        if let Some(forecasts) = &mut self.forecasts {
            forecasts.fresh.push((time, load.clone()));
            forecasts.pending += 1;
            let first = forecasts.first_due.map_or(time, |first| first.min(time));
            forecasts.first_due = Some(first);
        }
    }

    /// Notes what fires of what is forecast. True if it fires without effect here.
    #[cold]
    pub(super) fn fire_forecast(&mut self, envelope: &Envelope<M>) -> bool {
        let is_own = envelope.is(FORECAST);
        if let Some(forecasts) = &mut self.forecasts {
            match is_own {
                true => forecasts.pending -= 1,
                false => forecasts.copies -= 1,
            }
        }
        self.counters.alarms_fired += u64::from(is_own);
        is_own
    }

    /// Notes that some alarms that are forecast were cleared.
    pub(super) fn note_cleared_forecasts(&mut self, count: u64) {
        if let Some(forecasts) = self.forecasts.as_mut().filter(|_| count > 0) {
            forecasts.pending -= count;
            forecasts.are_wrong = true;
        }
    }

    /// Whether a pending alarm is forecast.
    pub(super) fn is_known_elsewhere(&mut self, id: AlarmId) -> bool {
        self.forecasts.as_ref().is_some_and(|it| it.pending > 0)
            && self
                .alarms
                .pending(id)
                .is_some_and(|it| it.load.is(FORECAST))
    }

    /// How many alarms were set here and are pending.
    pub(crate) fn alarms_pending(&self) -> u64 {
        let copies = self.forecasts.as_ref().map_or(0, |it| it.copies);
        self.alarms.len() as u64 - copies
    }

    /// Whether an alarm waits that may leave when it fires.
    pub(crate) fn has_alarms_elsewhere(&self) -> bool {
        let forecast = self.forecasts.as_ref().map_or(0, |it| it.pending);
        self.alarms.elsewhere() as u64 > forecast
    }

    /// Takes in the copy of an alarm that is due at `time`.
    pub(crate) fn take_forecast(&mut self, time: SimTime, import: Import<M>) {
        let mut load = import.into_envelope();
        if let Some(id) = load.receiver().agent()
            && let Whereabouts::Here(slot) = self.directory.find(id)
        {
            load.set_slot(slot);
        }
        self.forecasts.get_or_insert_default().copies += 1;
        self.alarms.set(Pending { time, load });
    }

    /// Shows the alarms that were forecast since the last time, in the order in which they were
    /// set, with the time at which they are due.
    pub(crate) fn show_forecasts(&mut self, mut visit: impl FnMut(&Envelope<M>, SimTime)) {
        let Some(forecasts) = &mut self.forecasts else {
            return;
        };
        for (due, load) in forecasts.fresh.drain(..) {
            visit(&load, due);
        }
        forecasts.first_due = None;
    }

    /// Withdraws all forecasts: drops the copies of others' alarms, and has those that were set here
    /// fire as all others do.
    pub(crate) fn withdraw_forecasts(&mut self) {
        let Some(forecasts) = &mut self.forecasts else {
            return;
        };
        **forecasts = Forecasts {
            are_made: forecasts.are_made,
            withdrawn: forecasts.withdrawn + 1,
            ..Forecasts::default()
        };
        self.alarms.drop_where(|load| {
            load.mark_if(FORECAST, false);
            load.is(FOREIGN)
        });
    }
}
