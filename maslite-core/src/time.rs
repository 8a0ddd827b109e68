//! Simulated time: integer nanoseconds, so that there is no drift and equal times are equal.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Rem, RemAssign, Sub, SubAssign};
use std::str::FromStr;
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

/// A text that is no simulated time or duration.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no simulated time: {why}; write it as `4.75 s` or `250ms`")]
pub struct ParseTimeError {
    text: String,
    why: &'static str,
}

crate::readable_debug!(struct ParseTimeError { text, why });

/// The conversions that a moment and a length of time have in common.
macro_rules! units {
    ($($from:ident $as:ident $unit:literal $nanos:expr;)*) => {$(
        #[doc = concat!("This many ", $unit, "; the largest value there is, if that is more.")]
        #[must_use]
        pub const fn $from(count: u64) -> Self {
            Self(count.saturating_mul($nanos))
        }

        #[doc = concat!("Whole ", $unit, "; what is left is dropped.")]
        #[must_use]
        pub const fn $as(self) -> u64 {
            self.0 / $nanos
        }
    )*};
    (f64: $($from:ident $as:ident $unit:literal $nanos:expr;)*) => {$(
        #[doc = concat!("This many ", $unit, ", rounded to the nearest nanosecond.")]
        ///
        /// # Errors
        #[doc = concat!("[`BadDuration`] if the number of ", $unit, " is not finite, negative, or too large.")]
        pub fn $from(count: f64) -> Result<Self, BadDuration> {
            nanos_of(count, $nanos).map(Self)
        }

        #[doc = concat!("The number of ", $unit, ", rounded to the nearest `f64`.")]
        #[must_use]
        #[expect(clippy::cast_precision_loss, reason = "it is rounded, as documented")]
        pub fn $as(self) -> f64 {
            self.0 as f64 / $nanos
        }
    )*};
}

/// Implements the common methods of times and durations.
macro_rules! conversions {
    ($type:ident) => {
        impl $type {
            units! {
                from_micros as_micros "microseconds" 1_000;
                from_millis as_millis "milliseconds" 1_000_000;
                from_secs as_secs "seconds" NANOS_PER_SECOND;
                from_minutes as_minutes "minutes" 60 * NANOS_PER_SECOND;
                from_hours as_hours "hours" 3_600 * NANOS_PER_SECOND;
                from_days as_days "days of 24 hours" 86_400 * NANOS_PER_SECOND;
            }
            units! { f64:
                try_from_micros_f64 as_micros_f64 "microseconds" 1e3;
                try_from_millis_f64 as_millis_f64 "milliseconds" 1e6;
                try_from_secs_f64 as_secs_f64 "seconds" 1e9;
                try_from_minutes_f64 as_minutes_f64 "minutes" 60e9;
                try_from_hours_f64 as_hours_f64 "hours" 3_600e9;
                try_from_days_f64 as_days_f64 "days of 24 hours" 86_400e9;
            }

            /// This many nanoseconds.
            #[must_use]
            pub const fn from_nanos(nanos: u64) -> Self {
                Self(nanos)
            }

            /// The number of nanoseconds.
            #[must_use]
            pub const fn as_nanos(self) -> u64 {
                self.0
            }
        }

        /// Seconds, with as many decimals as it takes and no more: `4.75 s`. [`str::parse`] reads
        /// it again, without loss.
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_seconds(self.0, f)
            }
        }

        /// A decimal number and a unit, with or without a space between: `4.75 s`, `250ms`,
        /// `1.5 h`. The units are `ns`, `us` or `µs`, `ms`, `s`, `min`, `h` and `d`. What is no
        /// whole number of nanoseconds is refused.
        impl FromStr for $type {
            type Err = ParseTimeError;

            fn from_str(text: &str) -> Result<Self, ParseTimeError> {
                match parse_nanos(text) {
                    Ok(nanos) => Ok(Self(nanos)),
                    Err(why) => Err(ParseTimeError {
                        text: text.to_owned(),
                        why,
                    }),
                }
            }
        }
    };
}

conversions!(SimTime);
conversions!(SimDuration);

impl SimTime {
    /// The start of every simulation.
    pub const ZERO: Self = Self(0);
    /// The last moment there is, 584 years after the start.
    pub const MAX: Self = Self(u64::MAX);

    /// Returns the time `delay` later; none if it is beyond the end of simulated time.
    #[must_use]
    pub const fn checked_add(self, delay: SimDuration) -> Option<Self> {
        match self.0.checked_add(delay.0) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }

    /// The moment `delay` earlier, unless that is before the start.
    #[must_use]
    pub const fn checked_sub(self, delay: SimDuration) -> Option<Self> {
        match self.0.checked_sub(delay.0) {
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

    /// Whether it is no time at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
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

    /// Returns this duration times a factor; none if the result is too long.
    #[must_use]
    pub const fn checked_mul(self, times: u64) -> Option<Self> {
        match self.0.checked_mul(times) {
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

/// A number of units as whole nanoseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the range is checked first"
)]
fn nanos_of(count: f64, unit: f64) -> Result<u64, BadDuration> {
    let nanos = (count * unit).round();
    if nanos >= 0.0 && nanos < u64::MAX as f64 {
        Ok(nanos as u64)
    } else {
        Err(BadDuration {
            seconds: count * (unit / 1e9),
        })
    }
}

/// The units that a text can name, in nanoseconds.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", NANOS_PER_SECOND),
    ("min", 60 * NANOS_PER_SECOND),
    ("h", 3_600 * NANOS_PER_SECOND),
    ("d", 86_400 * NANOS_PER_SECOND),
];

/// The nanoseconds that a text names, exactly.
fn parse_nanos(text: &str) -> Result<u64, &'static str> {
    let end = text.find(|c: char| c != '.' && !c.is_ascii_digit());
    let end = end.ok_or("a unit is missing: ns, us, ms, s, min, h or d")?;
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let unit = UNITS.iter().find(|(name, _)| *name == unit);
    let (_, unit) = unit.ok_or("the unit is none of ns, us, ms, s, min, h and d")?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.len() > LONGEST_FRACTION {
        return Err("it has too many decimals");
    }
    let digits = || "it does not begin with a decimal number";
    let nanos = whole.parse::<u64>().map_err(|_| digits())?;
    let nanos = u128::from(nanos) * u128::from(*unit);
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let parts = fraction.parse::<u64>().map_err(|_| digits())?;
    let parts = u128::from(parts) * u128::from(*unit);
    if !parts.is_multiple_of(scale) {
        return Err("it is no whole number of nanoseconds");
    }
    u64::try_from(nanos + parts / scale).map_err(|_| "it is longer than 584 years")
}

/// More decimals than a day in nanoseconds has say nothing.
const LONGEST_FRACTION: usize = 18;

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

/// The duration multiplied by the factor, or the longest duration there is.
impl Mul<u64> for SimDuration {
    type Output = Self;
    fn mul(self, times: u64) -> Self {
        Self(self.0.saturating_mul(times))
    }
}

/// The duration multiplied by the factor, or the longest duration there is.
impl Mul<SimDuration> for u64 {
    type Output = SimDuration;
    fn mul(self, duration: SimDuration) -> SimDuration {
        duration * self
    }
}

/// The duration multiplied by the factor, or the longest duration there is.
impl MulAssign<u64> for SimDuration {
    fn mul_assign(&mut self, times: u64) {
        *self = *self * times;
    }
}

/// The duration divided by the number, in whole nanoseconds, rounded down.
///
/// # Panics
/// On division by zero, as integers do.
impl Div<u64> for SimDuration {
    type Output = Self;
    fn div(self, parts: u64) -> Self {
        Self(self.0 / parts)
    }
}

/// The duration divided by the number, in whole nanoseconds, rounded down.
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

/// What is left when the other is taken as often as it goes into this one.
///
/// # Panics
/// On division by zero, as integers do.
impl RemAssign for SimDuration {
    fn rem_assign(&mut self, part: Self) {
        *self = *self % part;
    }
}

/// How long after the last multiple of a period this moment is.
///
/// # Panics
/// On division by zero, as integers do.
impl Rem<SimDuration> for SimTime {
    type Output = SimDuration;
    fn rem(self, period: SimDuration) -> SimDuration {
        SimDuration(self.0 % period.0)
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

fn write_seconds(nanos: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (seconds, rest) = (nanos / NANOS_PER_SECOND, nanos % NANOS_PER_SECOND);
    let text = format!("{seconds}.{rest:09}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    f.pad(&format!("{text} s"))
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
    fn every_unit_goes_both_ways() {
        let day = SimDuration::from_days(1);
        assert_eq!(day, SimDuration::from_hours(24));
        assert_eq!(day, SimDuration::from_minutes(1_440));
        assert_eq!(day, SimDuration::from_secs(86_400));
        let whole = |it: SimDuration| (it.as_days(), it.as_hours(), it.as_minutes());
        assert_eq!(whole(day), (1, 24, 1_440));
        assert_eq!(whole(day - SimDuration::from_nanos(1)), (0, 23, 1_439));

        let time = SimTime::from_minutes(90) + SimDuration::from_micros(1_500);
        assert_eq!((time.as_hours(), time.as_minutes()), (1, 90));
        assert_eq!((time.as_secs(), time.as_millis()), (5_400, 5_400_001));
        assert_eq!(time.as_micros(), 5_400_001_500);
        assert_eq!(SimTime::from_days(2), SimTime::from_hours(48));
        assert_eq!(SimTime::from_days(u64::MAX), SimTime::MAX);

        for (duration, expected) in [
            (
                SimDuration::try_from_days_f64(0.5),
                SimDuration::from_hours(12),
            ),
            (
                SimDuration::try_from_hours_f64(0.25),
                SimDuration::from_minutes(15),
            ),
            (
                SimDuration::try_from_minutes_f64(1.5),
                SimDuration::from_secs(90),
            ),
            (
                SimDuration::try_from_secs_f64(0.002),
                SimDuration::from_millis(2),
            ),
            (
                SimDuration::try_from_millis_f64(0.75),
                SimDuration::from_micros(750),
            ),
            (
                SimDuration::try_from_micros_f64(1.25),
                SimDuration::from_nanos(1_250),
            ),
        ] {
            assert_eq!(duration, Ok(expected));
        }
        assert_eq!(
            SimTime::try_from_secs_f64(1.5),
            Ok(SimTime::from_millis(1_500))
        );
        let floats = |it: SimDuration| {
            let seconds = (it.as_secs_f64(), it.as_millis_f64(), it.as_micros_f64());
            (
                it.as_days_f64(),
                it.as_hours_f64(),
                it.as_minutes_f64(),
                seconds,
            )
        };
        let expected = (0.5, 12.0, 720.0, (43_200.0, 43_200_000.0, 43_200_000_000.0));
        assert_eq!(floats(day / 2), expected);
    }

    #[test]
    fn what_is_printed_can_be_parsed() {
        for nanos in [
            0,
            1,
            999,
            1_000_000_000,
            4_750_000_000,
            u64::MAX - 1,
            u64::MAX,
        ] {
            let (time, duration) = (SimTime::from_nanos(nanos), SimDuration::from_nanos(nanos));
            assert_eq!(time.to_string().parse(), Ok(time));
            assert_eq!(duration.to_string().parse(), Ok(duration));
        }
        for (text, nanos) in [
            ("250ms", 250_000_000),
            ("250 ms", 250_000_000),
            ("0.5 ms", 500_000),
            ("1.5 h", 5_400_000_000_000),
            ("2 min", 120_000_000_000),
            ("1 d", 86_400_000_000_000),
            ("3 us", 3_000),
            ("3 µs", 3_000),
            ("007 ns", 7),
        ] {
            assert_eq!(text.parse(), Ok(SimTime::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_time_are_refused_with_a_reason() {
        let unit = "a unit is missing: ns, us, ms, s, min, h or d";
        let other = "the unit is none of ns, us, ms, s, min, h and d";
        let number = "it does not begin with a decimal number";
        let fraction = "it is no whole number of nanoseconds";
        for (text, why) in [
            ("", unit),
            ("12", unit),
            ("s", number),
            (".5 s", number),
            ("5. s", number),
            ("1.2.3 s", number),
            ("-1 s", other),
            ("1 parsec", other),
            ("1  s", other),
            ("0.5 ns", fraction),
            ("0.0000000001 s", fraction),
            ("0.0000000000000000001 s", "it has too many decimals"),
            ("213504 d", "it is longer than 584 years"),
        ] {
            let error = text
                .parse::<SimDuration>()
                .map_err(|error| error.to_string());
            let expected =
                format!("{text:?} is no simulated time: {why}; write it as `4.75 s` or `250ms`");
            assert_eq!(error, Err(expected));
        }
    }

    #[test]
    fn remainders_and_checked_steps() {
        let period = SimDuration::from_secs(3);
        assert_eq!(SimTime::from_secs(10) % period, SimDuration::from_secs(1));
        let mut left = SimDuration::from_secs(10);
        left %= period;
        assert_eq!(left, SimDuration::from_secs(1));
        assert_eq!(period.checked_mul(2), Some(SimDuration::from_secs(6)));
        assert_eq!(SimDuration::MAX.checked_mul(2), None);
        assert_eq!(SimTime::ZERO.checked_sub(period), None);
        let later = SimTime::from_secs(4);
        assert_eq!(later.checked_sub(period), Some(SimTime::from_secs(1)));
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
