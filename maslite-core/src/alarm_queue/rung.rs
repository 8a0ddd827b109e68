//! A rung of the ladder: a span of time, divided into buckets.

use super::pool::{Bucket, Pool};

/// Entries wanted in a bucket.
const WANTED: u32 = 64;
/// A rung is divided into about this number of buckets at most: the ends of all shall stay in the
/// cache.
const MOST_BUCKETS: u32 = 4_096;

#[derive(Debug, Default)]
pub(super) struct Rung {
    /// The last time it covers [ns].
    pub(super) last: u64,
    scale: Scale,
    /// Buckets before this one are empty and closed.
    pub(super) next: usize,
    buckets: Vec<Bucket>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Scale {
    /// The first time [ns].
    start: u64,
    /// A bucket is 2^shift ns wide, but for the last one, which takes all that comes later.
    shift: u32,
    last_bucket: u64,
}

impl Scale {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a rung has few buckets")]
    fn bucket_of(&self, time: u64) -> usize {
        ((time - self.start) >> self.shift).min(self.last_bucket) as usize
    }
}

impl Rung {
    /// Lays the rung out for this number of entries between `first` and `last`, and for what will
    /// be set up to `reach`.
    pub(super) fn lay_out(&mut self, (first, last, count): (u64, u64, u32), reach: u64) {
        let wanted = u64::from((count / WANTED).clamp(2, MOST_BUCKETS));
        let span = last - first;
        let shift = (span / wanted).max(1).ilog2();
        // As far again as the entries reach, so that what is set meanwhile finds its bucket. One
        // outlier must not make a million buckets: whatever comes later shares the last one.
        let fine = last.saturating_add(span).min(reach);
        let fine = ((fine - first) >> shift) + 1;
        let has_rest = (reach - first) >> shift >= fine;
        let last_bucket = if has_rest { fine } else { fine - 1 };
        self.scale = Scale {
            start: first,
            shift,
            last_bucket,
        };
        self.last = reach;
        self.next = 0;
        self.buckets.clear();
        let buckets = usize::try_from(last_bucket + 1).expect("few buckets");
        self.buckets.resize(buckets, Bucket::EMPTY);
    }

    /// The bucket of a time that the rung covers.
    #[inline]
    pub(super) fn bucket_of(&mut self, time: u64) -> &mut Bucket {
        &mut self.buckets[self.scale.bucket_of(time)]
    }

    /// Spreads the entries of a bucket over those of the rung.
    pub(super) fn fill<P>(&mut self, pool: &mut Pool<P>, from: Bucket) {
        let Self { buckets, scale, .. } = self;
        pool.spread(from, buckets, |time| scale.bucket_of(time));
    }

    /// The last time of the next bucket [ns].
    pub(super) fn reach_of_next(&self) -> u64 {
        if self.next + 1 == self.buckets.len() {
            return self.last;
        }
        let width = (self.next as u64 + 1) << self.scale.shift;
        self.scale.start + (width - 1)
    }

    /// Takes what is in the next bucket, which stays open.
    pub(super) fn take_next(&mut self) -> Bucket {
        std::mem::replace(&mut self.buckets[self.next], Bucket::EMPTY)
    }

    pub(super) fn filled_buckets(&mut self) -> impl Iterator<Item = &mut Bucket> {
        let buckets = self.buckets.iter_mut();
        buckets.filter(|bucket| !bucket.is_empty())
    }

    /// Whether all buckets are closed.
    pub(super) fn is_over(&self) -> bool {
        self.next == self.buckets.len()
    }

    /// Closes buckets until one has entries.
    pub(super) fn skip_empty(&mut self) {
        let open = &self.buckets[self.next..];
        let empty = open.iter().take_while(|bucket| bucket.is_empty());
        self.next += empty.count();
    }
}
