//! Alarms for agents of other engines are forecast: told when they are set.

use super::{Engine, Outgoing};
use crate::SimTime;
use crate::error::Error;
use crate::message::{Import, Message};

impl<M: Message> Engine<M> {
    /// From now on alarms for agents elsewhere are forecast: the host takes them with
    /// [`show_forecasts`](Self::show_forecasts), and has them in the receivers' engines before they
    /// are due.
    pub fn forecast_alarms(&mut self) {
        self.kernel.forecasts.get_or_insert_default().are_made = true;
    }

    /// Shows the alarms that were forecast since the last time, in the order in which they were
    /// set, with the time at which they are due.
    pub fn show_forecasts(&mut self, mut visit: impl FnMut(&Outgoing<'_, M>, SimTime)) {
        self.kernel.show_forecasts(|envelope, due| {
            if let Some(body) = &envelope.body {
                let mail = Outgoing {
                    key: envelope.key,
                    sender: envelope.sender,
                    receiver: envelope.receiver(),
                    body,
                    receiver_is_elsewhere: true,
                };
                visit(&mail, due);
            }
        });
    }

    /// When the first of the alarms is due that are yet to be shown.
    #[must_use]
    pub fn first_forecast(&self) -> Option<SimTime> {
        self.kernel.forecasts.as_ref()?.first_due
    }

    /// Takes in an alarm of another engine that is due at `time`.
    ///
    /// # Panics
    /// If the engine has passed that time: the caller that grants time has broken its promise.
    pub fn take_forecast(&mut self, time: SimTime, import: Import<M>) {
        assert!(
            time >= self.kernel.now,
            "a forecast comes for a time that is past"
        );
        self.kernel.take_forecast(time, import);
    }

    /// Whether a copy elsewhere is wrong since the last time: its alarm was cleared here.
    pub fn take_wrong_forecasts(&mut self) -> bool {
        let forecasts = self.kernel.forecasts.as_mut();
        forecasts.is_some_and(|it| std::mem::take(&mut it.are_wrong))
    }

    /// Withdraws all forecasts: those of others, and those of this engine, which fire as all other
    /// alarms do.
    pub fn withdraw_forecasts(&mut self) {
        self.kernel.withdraw_forecasts();
    }

    /// Undoes what is not final and happened at `time` or later. Tells how many deliveries that
    /// were.
    ///
    /// # Errors
    /// As [`run_ahead`](Self::run_ahead).
    pub fn go_back_before(&mut self, time: SimTime) -> Result<u64, Error> {
        let marks = self.kernel.marks();
        let mark = marks.partition_point(|mark| mark.instant < time);
        self.go_back_to(mark)
    }
}
