//! The bucket at hand: its alarms stay where they lie, words that stand for them are sorted.

use super::pool::{CHUNK, Pool};

/// What stands for an alarm at hand: its time after `base`, coarsely, above its number.
pub(super) const NUMBER: u32 = 32;

/// Alarms that come next, earliest first.
#[derive(Debug, Default)]
pub(super) struct Hand {
    /// A word for each alarm. Words of those that fired come first; their numbers are used again.
    order: Vec<u64>,
    /// How many words stand before the first alarm that has not fired.
    fired: usize,
    /// Words before this one stand for numbers that others have now.
    reused: usize,
    /// Number `n` is in chunk `n / CHUNK`.
    chunks: Vec<u32>,
    numbers: u32,
    base: u64,
    /// Times that differ in these lower bits alone have the same word, but for the number.
    coarse: u32,
}

/// Alarms of which more than these would have to make room are too many for one bucket.
const CROWD: usize = 256;
/// Words of alarms that fired, and whose numbers are used again, are dropped when there are more.
const USED: usize = 1_024;

impl Hand {
    /// Begins with the entries in these chunks, of which all but the last are full. Their times are
    /// in `first..=last`.
    pub(super) fn begin<P>(
        &mut self,
        pool: &Pool<P>,
        (numbers, first, last): (u32, u64, u64),
        fill: impl FnOnce(&mut Vec<u32>),
    ) {
        debug_assert!(self.chunks.is_empty(), "the bucket before was given back");
        fill(&mut self.chunks);
        self.numbers = numbers;
        self.base = first;
        self.coarse = (u64::BITS - (last - first).leading_zeros()).saturating_sub(NUMBER);
        for (nth, (chunk, len)) in (0..).zip(super::pool::filled(&self.chunks, numbers)) {
            for offset in 0..len {
                let time = pool.at(chunk * CHUNK + offset).time;
                let word = self.coarse_time(time) << NUMBER | u64::from(nth * CHUNK + offset);
                self.order.push(word);
            }
        }
        self.order.sort_unstable();
    }

    /// Gives back what lay in it. Every alarm has fired, or was taken.
    pub(super) fn end<P>(&mut self, pool: &mut Pool<P>) {
        pool.release(&mut self.chunks);
        self.order.clear();
        (self.fired, self.reused, self.numbers) = (0, 0, 0);
    }

    /// Words compare as this does, and all is in order where it is the same for several.
    #[inline]
    fn coarse_time(&self, time: u64) -> u64 {
        (time.saturating_sub(self.base) >> self.coarse).min(u64::from(u32::MAX))
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    fn place_of_word(&self, word: u64) -> u32 {
        let number = word as u32;
        self.chunks[(number / CHUNK) as usize] * CHUNK + number % CHUNK
    }

    /// The place of the alarm at this distance behind the next one.
    #[inline]
    pub(super) fn place(&self, ahead: usize) -> Option<u32> {
        let word = self.order.get(self.fired + ahead)?;
        Some(self.place_of_word(*word))
    }

    /// The place of the next alarm, unless it is due after `time`: then mostly none.
    #[inline]
    pub(super) fn place_until(&self, time: u64) -> Option<u32> {
        let word = self.order.get(self.fired)?;
        (word >> NUMBER <= self.coarse_time(time)).then(|| self.place_of_word(*word))
    }

    /// The next alarm was taken.
    #[inline]
    pub(super) fn advance(&mut self) {
        self.fired += 1;
    }

    /// Puts words in order that have the same coarse time, by the rank of what they stand for.
    pub(super) fn settle_ties<K: Ord>(
        &mut self,
        ties: &mut Vec<(K, u64)>,
        rank: impl Fn(u32) -> K,
    ) {
        let mut start = 0;
        while start + 1 < self.order.len() {
            let time = self.order[start] >> NUMBER;
            if self.order[start + 1] >> NUMBER != time {
                start += 1;
                continue;
            }
            let run = self.order[start..].iter();
            let run = run.take_while(|word| **word >> NUMBER == time).count();
            let end = start + run;
            let words = &self.order[start..end];
            let is_settled = words.is_sorted_by_key(|word| rank(self.place_of_word(*word)));
            if !is_settled {
                ties.clear();
                ties.extend(
                    words
                        .iter()
                        .map(|word| (rank(self.place_of_word(*word)), *word)),
                );
                ties.sort_unstable();
                for (word, (_, settled)) in self.order[start..end].iter_mut().zip(ties.iter()) {
                    *word = *settled;
                }
            }
            start = end;
        }
    }

    /// Gives an alarm that is set now its place among those at hand, by its rank; tells where it is
    /// to lie. None if too many would have to make room.
    pub(super) fn insert<P, K: Ord>(
        &mut self,
        pool: &mut Pool<P>,
        time: u64,
        own: impl Fn() -> K,
        rank: impl Fn(&Pool<P>, u32) -> K,
    ) -> Option<u32> {
        let coarse = self.coarse_time(time);
        let waiting = &self.order[self.fired..];
        let comes_before = |word: &u64| {
            let other = word >> NUMBER;
            other < coarse || other == coarse && rank(pool, self.place_of_word(*word)) < own()
        };
        // Mostly it comes first or last.
        let before = match waiting {
            [first, ..] if !comes_before(first) => 0,
            [.., last] if comes_before(last) => waiting.len(),
            waiting => waiting.partition_point(comes_before),
        };
        let behind = waiting.len() - before;
        if before.min(behind) > CROWD {
            return None;
        }
        if self.fired > 0 && before <= behind {
            let number = if self.fired > self.reused {
                self.order[self.fired - 1] & u64::from(u32::MAX)
            } else {
                self.reused -= 1;
                self.new_number(pool)
            };
            let word = coarse << NUMBER | number;
            self.order
                .copy_within(self.fired..self.fired + before, self.fired - 1);
            self.fired -= 1;
            self.order[self.fired + before] = word;
            return Some(self.place_of_word(word));
        }
        let number = if self.fired > self.reused {
            self.reused += 1;
            self.order[self.reused - 1] & u64::from(u32::MAX)
        } else {
            self.new_number(pool)
        };
        let word = coarse << NUMBER | number;
        self.order.insert(self.fired + before, word);
        if self.reused >= USED && self.reused > self.order.len() / 2 {
            self.order.drain(..self.reused);
            self.fired -= self.reused;
            self.reused = 0;
        }
        Some(self.place_of_word(word))
    }

    fn new_number<P>(&mut self, pool: &mut Pool<P>) -> u64 {
        if self.numbers.is_multiple_of(CHUNK) {
            self.chunks.push(pool.new_chunk());
        }
        self.numbers += 1;
        u64::from(self.numbers - 1)
    }

    /// Drops the words of alarms that are not to be kept.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(u32) -> bool) {
        let mut kept = self.fired;
        for nth in self.fired..self.order.len() {
            let word = self.order[nth];
            if keep(self.place_of_word(word)) {
                self.order[kept] = word;
                kept += 1;
            }
        }
        self.order.truncate(kept);
    }

    /// The places of all that has not fired, in order.
    pub(super) fn places(&self) -> impl Iterator<Item = u32> + '_ {
        let waiting = &self.order[self.fired..];
        waiting.iter().map(|word| self.place_of_word(*word))
    }
}
