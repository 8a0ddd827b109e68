//! Simulated time: integer nanoseconds, so that there is no drift and equal times are equal.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Rem, Sub, SubAssign};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment of simulated time \[ns since the start of the simulation\].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SimTime(u64);

/// A length of simulated time \[ns\].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SimDuration(u64);

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A number of seconds that is no length of simulated time.
#[derive(Clone, Copy, PartialEq, thiserror::Error)]
#[error(
    "{seconds} s is no simulated duration: it must be finite, not negative and below 584 years"
)]
pub struct BadDuration {
    seconds: f64,
}

crate::readable_debug!(struct BadDuration { seconds });

impl SimTime {
    /// The start of every simulation.
    pub const ZERO: Self = Self(0);
    /// The last moment there is, 584 years after the start.
    pub const MAX: Self = Self(u64::MAX);

    /// The moment `nanos` \[ns\] after the start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The moment `micros` \[µs\] after the start; the last moment there is, if that is later.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// The moment `millis` \[ms\] after the start; the last moment there is, if that is later.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// The moment `seconds` \[s\] after the start; the last moment there is, if that is later.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(NANOS_PER_SECOND))
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds since the start, for people: rounded.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "rounded for people")]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The moment `delay` later, unless there is none.
    #[must_use]
    pub const fn checked_add(self, delay: SimDuration) -> Option<Self> {
        match self.0.checked_add(delay.0) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }

    /// The moment `delay` later, or the last moment there is.
    #[must_use]
    pub const fn saturating_add(self, delay: SimDuration) -> Self {
        Self(self.0.saturating_add(delay.0))
    }

    /// This much earlier, or the start of time.
    #[must_use]
    pub const fn saturating_sub(self, delay: SimDuration) -> Self {
        Self(self.0.saturating_sub(delay.0))
    }

    /// How long after `earlier` this is; zero if it is before it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> SimDuration {
        SimDuration(self.0.saturating_sub(earlier.0))
    }
}

impl SimDuration {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// The longest duration there is.
    pub const MAX: Self = Self(u64::MAX);

    /// `nanos` \[ns\].
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// `micros` \[µs\]; the longest duration there is, if that is longer.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// `millis` \[ms\]; the longest duration there is, if that is longer.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// `seconds` \[s\]; the longest duration there is, if that is longer.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(NANOS_PER_SECOND))
    }

    /// `seconds` \[s\], rounded to the nearest nanosecond.
    ///
    /// # Errors
    /// [`BadDuration`] if `seconds` is not finite, negative, or too long.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the range is checked first"
    )]
    pub fn try_from_secs_f64(seconds: f64) -> Result<Self, BadDuration> {
        let nanos = (seconds * 1e9).round();
        if nanos >= 0.0 && nanos < u64::MAX as f64 {
            Ok(Self(nanos as u64))
        } else {
            Err(BadDuration { seconds })
        }
    }

    /// Nanoseconds.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole microseconds; what is left is dropped.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// Whole milliseconds; what is left is dropped.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Whole seconds; what is left is dropped.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / NANOS_PER_SECOND
    }

    /// Whether it is no time at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Seconds, for people: rounded.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        SimTime(self.0).as_secs_f64()
    }

    /// This much longer, unless there is no such duration.
    #[must_use]
    pub const fn checked_add(self, more: Self) -> Option<Self> {
        match self.0.checked_add(more.0) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }

    /// This much shorter, unless that is less than nothing.
    #[must_use]
    pub const fn checked_sub(self, less: Self) -> Option<Self> {
        match self.0.checked_sub(less.0) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }

    /// This much longer, or the longest duration there is.
    #[must_use]
    pub const fn saturating_add(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }

    /// This much shorter, or zero.
    #[must_use]
    pub const fn saturating_sub(self, less: Self) -> Self {
        Self(self.0.saturating_sub(less.0))
    }
}

impl From<Duration> for SimDuration {
    /// Durations beyond 584 years become the longest simulated one.
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<SimDuration> for Duration {
    fn from(duration: SimDuration) -> Self {
        Self::from_nanos(duration.0)
    }
}

/// # Panics
/// On overflow, as integers do in debug builds; use [`SimTime::checked_add`] where that can happen.
impl Add<SimDuration> for SimTime {
    type Output = Self;
    fn add(self, delay: SimDuration) -> Self {
        self.checked_add(delay)
            .expect("simulated time ends 584 years after its start")
    }
}

/// # Panics
/// On overflow, as integers do in debug builds; use [`SimTime::checked_add`] where that can happen.
impl AddAssign<SimDuration> for SimTime {
    fn add_assign(&mut self, delay: SimDuration) {
        *self = *self + delay;
    }
}

/// How long after the other this is; zero if it is before it.
impl Sub for SimTime {
    type Output = SimDuration;
    fn sub(self, earlier: Self) -> SimDuration {
        self.since(earlier)
    }
}

/// This much earlier, or the start of time.
impl Sub<SimDuration> for SimTime {
    type Output = Self;
    fn sub(self, delay: SimDuration) -> Self {
        self.saturating_sub(delay)
    }
}

/// This much earlier, or the start of time.
impl SubAssign<SimDuration> for SimTime {
    fn sub_assign(&mut self, delay: SimDuration) {
        *self = *self - delay;
    }
}

/// This much longer, or the longest duration there is.
impl Add for SimDuration {
    type Output = Self;
    fn add(self, more: Self) -> Self {
        self.saturating_add(more)
    }
}

/// This much longer, or the longest duration there is.
impl AddAssign for SimDuration {
    fn add_assign(&mut self, more: Self) {
        *self = *self + more;
    }
}

/// This much shorter, or zero.
impl Sub for SimDuration {
    type Output = Self;
    fn sub(self, less: Self) -> Self {
        self.saturating_sub(less)
    }
}

/// This much shorter, or zero.
impl SubAssign for SimDuration {
    fn sub_assign(&mut self, less: Self) {
        *self = *self - less;
    }
}

/// So many times as long, or the longest duration there is.
impl Mul<u64> for SimDuration {
    type Output = Self;
    fn mul(self, times: u64) -> Self {
        Self(self.0.saturating_mul(times))
    }
}

/// So many times as long, or the longest duration there is.
impl Mul<SimDuration> for u64 {
    type Output = SimDuration;
    fn mul(self, duration: SimDuration) -> SimDuration {
        duration * self
    }
}

/// So many times as long, or the longest duration there is.
impl MulAssign<u64> for SimDuration {
    fn mul_assign(&mut self, times: u64) {
        *self = *self * times;
    }
}

/// One of so many equal parts, in whole nanoseconds; what is left is dropped.
///
/// # Panics
/// On division by zero, as integers do.
impl Div<u64> for SimDuration {
    type Output = Self;
    fn div(self, parts: u64) -> Self {
        Self(self.0 / parts)
    }
}

/// One of so many equal parts, in whole nanoseconds; what is left is dropped.
///
/// # Panics
/// On division by zero, as integers do.
impl DivAssign<u64> for SimDuration {
    fn div_assign(&mut self, parts: u64) {
        *self = *self / parts;
    }
}

/// How often the other goes into this one, in whole times.
///
/// # Panics
/// On division by zero, as integers do.
impl Div for SimDuration {
    type Output = u64;
    fn div(self, part: Self) -> u64 {
        self.0 / part.0
    }
}

/// What is left when the other is taken as often as it goes into this one.
///
/// # Panics
/// On division by zero, as integers do.
impl Rem for SimDuration {
    type Output = Self;
    fn rem(self, part: Self) -> Self {
        Self(self.0 % part.0)
    }
}

/// All of them one after the other, or the longest duration there is.
impl Sum for SimDuration {
    fn sum<I: Iterator<Item = Self>>(durations: I) -> Self {
        durations.fold(Self::ZERO, Self::saturating_add)
    }
}

/// All of them one after the other, or the longest duration there is.
impl<'a> Sum<&'a Self> for SimDuration {
    fn sum<I: Iterator<Item = &'a Self>>(durations: I) -> Self {
        durations.copied().sum()
    }
}

/// Seconds, with as many decimals as it takes and no more: `4.75 s`.
fn write_seconds(nanos: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (seconds, rest) = (nanos / NANOS_PER_SECOND, nanos % NANOS_PER_SECOND);
    let text = format!("{seconds}.{rest:09}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    f.pad(&format!("{text} s"))
}

impl fmt::Display for SimTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_seconds(self.0, f)
    }
}

impl fmt::Display for SimDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_seconds(self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_and_read_well() {
        let t = SimTime::ZERO + SimDuration::from_millis(4_750);
        assert_eq!(t, SimTime::from_nanos(4_750_000_000));
        assert_eq!(t.to_string(), "4.75 s");
        assert_eq!(SimTime::from_secs(3).to_string(), "3 s");
        assert_eq!(SimDuration::from_nanos(1).to_string(), "0.000000001 s");
        assert_eq!(t - SimTime::from_secs(4), SimDuration::from_millis(750));
        assert_eq!(SimTime::ZERO - t, SimDuration::ZERO);
    }

    #[test]
    fn durations_and_times_are_reckoned_with_like_numbers() {
        let second = SimDuration::from_secs(1);
        let mut sum = second;
        sum += second;
        sum *= 3;
        sum -= SimDuration::from_millis(500);
        assert_eq!(
            (sum, sum.to_string()),
            (11 * second / 2, "5.5 s".to_owned())
        );
        sum /= 2;
        assert_eq!(
            (sum / second, sum % second),
            (2, SimDuration::from_millis(750))
        );
        assert_eq!(
            (sum.as_secs(), sum.as_millis(), sum.as_micros()),
            (2, 2_750, 2_750_000)
        );
        assert_eq!(
            [second, second, sum].iter().sum::<SimDuration>(),
            second + second + sum
        );
        assert_eq!(second - sum, SimDuration::ZERO);
        assert!(second.checked_sub(sum).is_none() && (second - second).is_zero());
        assert_eq!(SimDuration::MAX.checked_add(second), None);
        assert_eq!(SimDuration::MAX + second, SimDuration::MAX);

        let mut time = SimTime::from_micros(2_000_000) - second;
        time += second * 2;
        time -= SimDuration::from_millis(1);
        assert_eq!(time, SimTime::from_millis(2_999));
        assert_eq!(SimTime::ZERO - second, SimTime::ZERO);
    }

    #[test]
    fn tenths_of_a_second_add_up() {
        let tenth = SimDuration::try_from_secs_f64(0.1).unwrap();
        assert_eq!(
            tenth + tenth + tenth,
            SimDuration::try_from_secs_f64(0.3).unwrap()
        );
    }

    #[test]
    fn numbers_that_are_no_time_are_refused() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1e-9, 1e300] {
            assert!(SimDuration::try_from_secs_f64(bad).is_err(), "{bad}");
        }
        assert_eq!(SimDuration::try_from_secs_f64(-0.0), Ok(SimDuration::ZERO));
        assert_eq!(SimTime::MAX.checked_add(SimDuration::from_nanos(1)), None);
    }
}
