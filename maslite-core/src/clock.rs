//! How simulated time relates to wall time: independent of it, at a multiple of it, or equal to it.

use std::time::{Duration, Instant};

use crate::{SimDuration, SimTime};

/// Reads the wall clock. All of the kernel reads it here, and only for timeouts, reports and real
/// time. Nothing that agents see under a simulated clock depends on it.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
pub fn wall() -> Instant {
    Instant::now()
}

/// Selects what drives simulated time.
///
/// ```
/// use maslite_core::clock::Speed;
/// use maslite_core::{Clock, Scheduler};
/// # #[derive(Clone, maslite_core::Message)] enum Msg { Tick }
/// let as_fast_as_it_goes = Scheduler::<Msg>::new();
/// let an_hour_in_a_minute = Scheduler::<Msg>::builder().clock(Clock::Paced(Speed::new(60.0)?)).build();
/// let live = Scheduler::<Msg>::builder().clock(Clock::RealTime).build();
/// # let _ = (as_fast_as_it_goes, an_hour_in_a_minute, live);
/// # Ok::<(), maslite_core::BadSpeed>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Clock {
    /// Time jumps from alarm to alarm, independent of wall time.
    #[default]
    Simulated,
    /// Time jumps from alarm to alarm, but an alarm fires only when wall time, multiplied by the
    /// speed, has reached its time. Time stands still within an instant.
    Paced(Speed),
    /// Time is wall time since the start of the first run, and passes between runs, too. Time
    /// stands still within a superstep. An idle run waits for required alarms only.
    RealTime,
}

/// Simulated seconds per second of wall time: finite and above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed(f64);

/// The error for a number that is no valid speed.
#[derive(Clone, Copy, PartialEq, thiserror::Error)]
#[error(
    "time cannot pass at {factor} times the speed of the wall: it takes a finite number above 0"
)]
pub struct BadSpeed {
    factor: f64,
}

crate::readable_debug!(struct BadSpeed { factor });

impl Speed {
    /// Lets simulated time pass `factor` times as fast as wall time.
    ///
    /// # Errors
    /// [`BadSpeed`] if the factor is not finite or not above 0.
    pub fn new(factor: f64) -> Result<Self, BadSpeed> {
        if factor.is_finite() && factor > 0.0 {
            Ok(Self(factor))
        } else {
            Err(BadSpeed { factor })
        }
    }
}

/// Ties a simulated time to a moment of wall time, with the speed from there on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    wall: Instant,
    sim: SimTime,
    /// None means exactly the speed of wall time.
    speed: Option<f64>,
}

impl Pace {
    pub(crate) fn new(wall: Instant, sim: SimTime, speed: Speed) -> Self {
        let speed = Some(speed.0);
        Self { wall, sim, speed }
    }

    pub(crate) fn real_time(wall: Instant) -> Self {
        Self {
            wall,
            sim: SimTime::ZERO,
            speed: None,
        }
    }

    /// The simulated time that corresponds to the wall time `wall`.
    pub(crate) fn sim_at(&self, wall: Instant) -> SimTime {
        let passed = wall.saturating_duration_since(self.wall);
        let passed = match self.speed {
            None => passed.into(),
            Some(speed) => SimDuration::try_from_secs_f64(passed.as_secs_f64() * speed)
                .unwrap_or(SimDuration::MAX),
        };
        self.sim.saturating_add(passed)
    }

    /// The wall time that corresponds to `sim`; none if it is beyond the range of the wall clock.
    pub(crate) fn wall_at(&self, sim: SimTime) -> Option<Instant> {
        let ahead = sim.since(self.sim);
        let ahead = match self.speed {
            None => ahead.into(),
            // Rounded up, so that a thread that wakes then finds that the time has been reached.
            Some(speed) => Duration::try_from_secs_f64(ahead.as_secs_f64() / speed + 1e-9).ok()?,
        };
        self.wall.checked_add(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_goes_there_and_back() {
        let start = wall();
        for factor in [0.01, 1.0, 3.0, 1e6] {
            let pace = Pace::new(start, SimTime::from_secs(5), Speed::new(factor).unwrap());
            assert_eq!(pace.sim_at(start), SimTime::from_secs(5));
            for millis in [0, 1, 17, 4_750] {
                let sim = SimTime::from_secs(5) + SimDuration::from_millis(millis);
                assert!(
                    pace.sim_at(pace.wall_at(sim).unwrap()) >= sim,
                    "{factor} {millis}"
                );
            }
        }
    }

    #[test]
    fn numbers_that_are_no_speed_are_refused() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Speed::new(bad).is_err());
        }
    }
}
