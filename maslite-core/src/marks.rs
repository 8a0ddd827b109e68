//! Marks: the digest of a run in pieces of simulated time, in bounded memory.

use serde::{Deserialize, Serialize};

use crate::{Digest, SimDuration, SimTime};

/// The largest number of pieces. A whole run has more than half of this number, unless it is
/// shorter than as many nanoseconds.
const MOST: usize = 512;

/// The widest pieces are 2⁵⁵ ns: there are `MOST` of them in all of simulated time.
const WIDEST: u32 = 64 - MOST.ilog2();

/// The version of the encoding.
const SCHEMA: u32 = 1;

/// The digests of a run, one for each piece of simulated time. All pieces have the same width, a
/// power of two of nanoseconds. They begin at time 0 and cover the whole run. When there would be
/// more than 512, each two of them become one, so a long run has wide pieces and takes no more
/// memory than a short one.
///
/// Two runs with the same deliveries have the same marks, in every placement. So the first piece in
/// which two runs differ is where their first difference is.
///
/// ```
/// use maslite_core::{Agent, Message, Run, Scheduler, SimDuration, SimTime};
/// #[derive(Clone, Message)]
/// enum Msg { Tick, Tock }
/// struct Clock { strays_at: SimTime }
/// impl Agent<Msg> for Clock {
///     fn setup(&mut self, ctx: &mut maslite_core::Context<'_, Msg>) {
///         ctx.alarm_in(SimDuration::from_secs(1), Msg::Tick);
///     }
///     fn receive(&mut self, _: maslite_core::Mail<Msg>, ctx: &mut maslite_core::Context<'_, Msg>) {
///         let strays = ctx.now() == self.strays_at;
///         ctx.alarm_in(SimDuration::from_secs(1), if strays { Msg::Tock } else { Msg::Tick });
///     }
/// }
/// let marks = |strays_at| {
///     let mut scheduler = Scheduler::builder().digest().build();
///     scheduler.add("clock", Clock { strays_at }).unwrap();
///     scheduler.run(Run::until(SimTime::from_secs(1000))).unwrap();
///     scheduler.marks().unwrap()
/// };
/// let (one, other) = (marks(SimTime::MAX), marks(SimTime::from_secs(700)));
/// let piece = one.first_difference(&other).unwrap();
/// assert!(piece.contains(&SimTime::from_secs(701)));
/// assert!(one.width() < SimDuration::from_secs(4));
/// ```
///
/// As JSON, marks are an object, which a program may keep in a file. `schema` is 1, `covers` tells
/// whether the digests are those of the trace or of the contents, too, `width_ns` is the width of
/// the pieces, and `marks` has the digest and the number of deliveries of each piece, from time 0.
///
/// ```json
/// {"schema":1,"covers":"trace","width_ns":1073741824,"marks":[["00c0ffee00c0ffee",3],["0000000000000000",0]]}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct Marks {
    covers: Covers,
    /// The width of the pieces is 2 to the power of this \[ns\].
    shift: u32,
    /// Up to the last piece with a delivery.
    marks: Vec<Mark>,
}

/// What marks are sums of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Covers {
    /// Of what the digest covers.
    #[default]
    Trace,
    /// Of what the content digest covers.
    Contents,
}

/// One piece of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mark {
    /// The digest of the deliveries in this piece.
    pub digest: Digest,
    /// How many deliveries there were in it.
    pub deliveries: u64,
}

impl Mark {
    fn with(self, other: Self) -> Self {
        Self {
            digest: self.digest.with(other.digest),
            deliveries: self.deliveries.saturating_add(other.deliveries),
        }
    }
}

impl Default for Marks {
    fn default() -> Self {
        Self::new(Covers::default())
    }
}

impl Marks {
    /// No marks yet.
    #[doc(hidden)]
    #[must_use]
    pub fn new(covers: Covers) -> Self {
        Self {
            covers,
            shift: 0,
            marks: Vec::new(),
        }
    }

    /// Adds a delivery, whose hash is part of the digest.
    #[doc(hidden)]
    #[inline]
    pub fn add(&mut self, time: SimTime, hash: u64) {
        // Time is mostly in the last piece, so this is in the cache.
        let place = usize::try_from(time.as_nanos() >> self.shift).unwrap_or(usize::MAX);
        if place >= self.marks.len() {
            self.lengthen(time);
            return self.add(time, hash);
        }
        let mark = &mut self.marks[place];
        mark.digest = mark.digest.with(hash.into());
        mark.deliveries += 1;
    }

    /// Makes room for a time.
    #[cold]
    #[inline(never)]
    fn lengthen(&mut self, time: SimTime) {
        self.widen(Self::shift_for(time).max(self.shift));
        let place = usize::try_from(time.as_nanos() >> self.shift).unwrap_or(MOST);
        self.marks.resize(place + 1, Mark::default());
    }

    /// The narrowest pieces that reach up to a time.
    fn shift_for(time: SimTime) -> u32 {
        let digits = 64 - time.as_nanos().leading_zeros();
        digits.saturating_sub(MOST.ilog2())
    }

    /// Makes the pieces wider.
    fn widen(&mut self, shift: u32) {
        let together = 1_usize << (shift - self.shift).min(MOST.ilog2());
        if together > 1 {
            let wide = self.marks.chunks(together);
            let wide = wide.map(|narrow| narrow.iter().copied().fold(Mark::default(), Mark::with));
            self.marks = wide.collect();
        }
        self.shift = shift;
    }

    /// The marks of the deliveries of both together: of two clusters of one run, for example.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let (mut all, mut other) = (self.clone(), other.clone());
        all.match_width(&mut other);
        all.marks
            .resize(all.marks.len().max(other.marks.len()), Mark::default());
        for (mark, other) in all.marks.iter_mut().zip(other.marks) {
            *mark = mark.with(other);
        }
        all
    }

    /// Brings both to the width of the wider ones.
    fn match_width(&mut self, other: &mut Self) {
        let shift = self.shift.max(other.shift);
        self.widen(shift);
        other.widen(shift);
    }

    /// What the digests cover. Marks that cover different things cannot be compared.
    #[must_use]
    pub fn covers(&self) -> Covers {
        self.covers
    }

    /// The width of a piece \[simulated\].
    #[must_use]
    pub fn width(&self) -> SimDuration {
        SimDuration::from_nanos(1 << self.shift)
    }

    /// The pieces from time 0 on, each with the instant at which it begins.
    pub fn iter(&self) -> impl Iterator<Item = (SimTime, Mark)> + '_ {
        let shift = self.shift;
        let starts = (0_u64..).map(move |place| SimTime::from_nanos(place << shift));
        starts.zip(self.marks.iter().copied())
    }

    /// The digest of the whole run: the sum of all pieces.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let digests = self.marks.iter().map(|mark| mark.digest);
        digests.fold(Digest::default(), Digest::with)
    }

    /// The first piece in which two runs differ, if there is one: the instants of it. The first
    /// delivery that is not the same in both is in this piece. If one of the runs was longer, the
    /// pieces of both are as wide as those of the longer one.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<std::ops::RangeInclusive<SimTime>> {
        let (mut one, mut other) = (self.clone(), other.clone());
        one.match_width(&mut other);
        let longest = one.marks.len().max(other.marks.len());
        let mark = |marks: &Self, place: usize| marks.marks.get(place).copied().unwrap_or_default();
        let place = (0..longest).find(|place| mark(&one, *place) != mark(&other, *place))?;
        let first = (place as u64) << one.shift;
        let last = first + ((1 << one.shift) - 1);
        Some(SimTime::from_nanos(first)..=SimTime::from_nanos(last))
    }
}

/// Marks as they are written.
#[derive(Serialize, Deserialize)]
struct Written {
    schema: u32,
    covers: Covers,
    width_ns: u64,
    marks: Vec<(Digest, u64)>,
}

impl From<Marks> for Written {
    fn from(marks: Marks) -> Self {
        let pairs = marks.marks.iter().map(|it| (it.digest, it.deliveries));
        Self {
            schema: SCHEMA,
            covers: marks.covers,
            width_ns: 1 << marks.shift,
            marks: pairs.collect(),
        }
    }
}

impl TryFrom<Written> for Marks {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written {
            schema,
            covers,
            width_ns,
            marks,
        } = written;
        if schema != SCHEMA {
            return Err(format!(
                "its schema is {schema}, and this program reads schema {SCHEMA}"
            ));
        }
        if !width_ns.is_power_of_two() || width_ns.ilog2() > WIDEST {
            return Err(format!(
                "its width of {width_ns} ns is no power of two up to 2^{WIDEST}"
            ));
        }
        if marks.len() > MOST {
            return Err(format!(
                "it has {} marks, and there are at most {MOST}",
                marks.len()
            ));
        }
        let marks = marks
            .into_iter()
            .map(|(digest, deliveries)| Mark { digest, deliveries });
        Ok(Self {
            covers,
            shift: width_ns.ilog2(),
            marks: marks.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(deliveries: &[(u64, u64)]) -> Marks {
        let mut marks = Marks::new(Covers::Trace);
        for (nanos, hash) in deliveries {
            marks.add(SimTime::from_nanos(*nanos), *hash);
        }
        marks
    }

    #[test]
    fn pieces_become_wide_enough_for_the_last_instant_of_time() {
        let all = marks(&[(0, 1), (511, 2), (512, 4), (u64::MAX, 8)]);
        assert_eq!((all.marks.len(), all.shift), (MOST, WIDEST));
        let (first, last) = (all.marks[0], all.marks[MOST - 1]);
        assert_eq!((first.digest.as_u64(), first.deliveries), (7, 3));
        assert_eq!((last.digest.as_u64(), last.deliveries), (8, 1));
        let short = marks(&[(0, 1), (511, 2)]);
        assert_eq!((short.marks.len(), short.shift), (MOST, 0));
        let long = marks(&[(0, 1), (511, 2), (512, 4)]);
        assert_eq!((long.marks.len(), long.shift), (257, 1));
    }

    #[test]
    fn marks_do_not_depend_on_who_made_which_delivery() {
        let all: Vec<_> = (0..2_000).map(|it| (it * it * 7, it + 1)).collect();
        let whole = marks(&all);
        for parts in 1..5 {
            let part = |part| {
                let its = all.iter().skip(part).step_by(parts);
                marks(&its.copied().collect::<Vec<_>>())
            };
            let together = (1..parts).fold(part(0), |sum, next| part(next).with(&sum));
            assert_eq!(together, whole, "{parts}");
        }
        assert_eq!(whole.digest(), Digest::from(2_000 * 2_001 / 2));
    }

    #[test]
    fn the_first_piece_that_differs_has_the_first_difference() {
        let all: Vec<_> = (0..2_000).map(|it| (it * 1_000, it + 1)).collect();
        let whole = marks(&all);
        assert_eq!(whole.first_difference(&whole), None);
        for place in (0..2_000).step_by(37) {
            let mut other = all.clone();
            other[place].1 += 1 << 40;
            let piece = whole.first_difference(&marks(&other)).unwrap();
            assert!(piece.contains(&SimTime::from_nanos(all[place].0)));
            let shorter = marks(&all[..place]);
            let piece = shorter.first_difference(&whole).unwrap();
            assert!(
                piece.contains(&SimTime::from_nanos(all[place].0)),
                "{place}"
            );
        }
    }

    #[test]
    fn marks_are_read_as_they_were_written_and_others_are_refused() {
        let marks = marks(&[(3, 0xc0ffee), (4, 1), (2_000, 7)]);
        let json = serde_json::to_string(&marks).unwrap();
        let start = r#"{"schema":1,"covers":"trace","width_ns":4,"marks":[["0000000000c0ffee",1],["0000000000000001",1],"#;
        assert!(json.starts_with(start), "{json}");
        assert_eq!(serde_json::from_str::<Marks>(&json).unwrap(), marks);
        let bytes = postcard::to_stdvec(&marks).unwrap();
        assert_eq!(postcard::from_bytes::<Marks>(&bytes).unwrap(), marks);
        for (from, to, why) in [
            ("\"schema\":1", "\"schema\":2", "its schema is 2"),
            ("\"width_ns\":4", "\"width_ns\":5", "no power of two"),
            (
                "\"width_ns\":4",
                "\"width_ns\":72057594037927936",
                "no power of two",
            ),
        ] {
            let error = serde_json::from_str::<Marks>(&json.replace(from, to)).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
