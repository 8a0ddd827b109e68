//! What is kept of the trace of one run: a chain of hashes in bounded memory, or a few lines.

use std::ops::Range;

/// How many hashes are kept at most.
const MOST: usize = 1 << 20;

/// Keeps what is wanted of the lines of a trace, as they come.
#[derive(Debug)]
pub(super) struct Recorder {
    /// How many lines there were.
    pub(super) lines: u64,
    chain: u64,
    /// How many lines lie between two kept hashes of the chain.
    stride: u64,
    links: Vec<u64>,
    most: usize,
    /// The lines with these numbers are kept.
    wanted: Range<u64>,
    pub(super) kept: Vec<String>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::hashing(MOST)
    }
}

impl Recorder {
    /// Keeps hashes alone, and no more than this number of them.
    fn hashing(most: usize) -> Self {
        Self {
            lines: 0,
            chain: 0,
            stride: 1,
            links: Vec::new(),
            most,
            wanted: 0..0,
            kept: Vec::new(),
        }
    }

    /// Keeps the lines with these numbers, counted from 0.
    pub(super) fn keeping(wanted: Range<u64>) -> Self {
        Self {
            wanted,
            ..Self::default()
        }
    }

    /// Takes in the next line.
    pub(super) fn note(&mut self, line: &str) {
        if self.wanted.contains(&self.lines) {
            self.kept.push(line.to_owned());
        }
        self.chain = fold(self.chain, line.as_bytes());
        self.lines += 1;
        if self.lines.is_multiple_of(self.stride) {
            self.links.push(self.chain);
            if self.links.len() == self.most {
                self.thin();
            }
        }
    }

    /// Keeps every second hash.
    fn thin(&mut self) {
        self.stride *= 2;
        self.links = self.links.iter().skip(1).step_by(2).copied().collect();
    }

    /// The numbers of lines among which the first line is that differs from that of another run.
    pub(super) fn first_difference(&mut self, other: &mut Self) -> Option<Range<u64>> {
        while self.stride < other.stride {
            self.thin();
        }
        while other.stride < self.stride {
            other.thin();
        }
        let pairs = self.links.iter().zip(&other.links);
        let same = pairs.take_while(|(one, other)| one == other).count() as u64;
        let start = same * self.stride;
        let is_same = self.lines == other.lines && self.chain == other.chain;
        (!is_same).then_some(start..start + self.stride)
    }
}

/// Hashes a line with all before it.
fn fold(chain: u64, line: &[u8]) -> u64 {
    let mut hash = chain ^ (line.len() as u64).rotate_left(32);
    let (words, rest) = line.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    for word in words.iter().chain([&last]) {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(lines: impl Iterator<Item = u64>, most: usize) -> Recorder {
        let mut recorder = Recorder::hashing(most);
        lines.for_each(|line| recorder.note(&format!("a line that says {line}")));
        recorder
    }

    #[test]
    fn the_first_line_that_differs_is_found_in_bounded_memory() {
        for place in [0_u64, 1, 7, 500, 998, 999] {
            for (one, other) in [(2_000, 2_000), (16, 16), (16, 2_000)] {
                let planted = |line| if line == place { 5_000 } else { line };
                let mut one = recorded(0..1_000, one);
                let mut other = recorded((0..1_000).map(planted), other);
                let found = one.first_difference(&mut other).unwrap();
                assert!(found.contains(&place), "{place} {found:?}");
                assert!(found.end - found.start <= 128 && one.links.len() <= 1_000);
            }
        }
        let mut all = recorded(0..1_000, 16);
        assert_eq!(all.first_difference(&mut recorded(0..1_000, 16)), None);
        let found = all.first_difference(&mut recorded(0..990, 16)).unwrap();
        assert!(found.contains(&990), "{found:?}");
    }

    #[test]
    fn lines_with_wanted_numbers_are_kept() {
        let mut recorder = Recorder::keeping(3..5);
        (0..9).for_each(|line| recorder.note(&line.to_string()));
        assert_eq!((recorder.lines, recorder.kept.join(" ")), (9, "3 4".into()));
    }
}
