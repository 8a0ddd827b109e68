//! How much the processes of a cluster have printed, so that one that comes back does not print it
//! again.
//!
//! Whole lines count, for each stream, and records of `tracing`. What the runtime says of the end of
//! a process is no line of its agents, and the next process will not say it.

use crate::error::death::ExitKind;

/// Where a line goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamKind {
    Out,
    Err,
}

/// How many lines the runtime prints at most before it ends a process, a backtrace included.
const LAST_WORDS: u64 = 1_000;

/// Lines and records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Printed {
    out: u64,
    err: u64,
    records: u64,
    /// Lines of stderr before those in which the runtime seems to tell of the end of the process.
    before_the_end: Option<u64>,
    /// The last line of stderr was empty.
    is_after_empty_line: bool,
}

/// How the runtime begins to tell of an end.
fn tells_of_an_end(line: &[u8]) -> bool {
    let is_of_thread = line.starts_with(b"thread '");
    let contains = |what: &[u8]| line.windows(what.len()).any(|part| part == what);
    is_of_thread && (contains(b"panicked") || contains(b"overflowed"))
        || line.starts_with(b"memory allocation of ")
        || line.starts_with(b"fatal runtime error")
}

impl Printed {
    fn lines(&mut self, kind: StreamKind) -> &mut u64 {
        match kind {
            StreamKind::Out => &mut self.out,
            StreamKind::Err => &mut self.err,
        }
    }

    /// Whether there are lines left.
    pub(crate) fn has(&mut self, kind: StreamKind) -> bool {
        *self.lines(kind) > 0
    }

    /// Counts a line.
    pub(crate) fn note_line(&mut self, kind: StreamKind, line: &[u8]) {
        if kind == StreamKind::Err {
            let is_told = self
                .before_the_end
                .is_some_and(|lines| self.err - lines < LAST_WORDS);
            if !is_told && tells_of_an_end(line) {
                self.before_the_end = Some(self.err - u64::from(self.is_after_empty_line));
            }
            self.is_after_empty_line = line == b"\n";
        }
        *self.lines(kind) += 1;
    }

    /// Takes one line off.
    pub(crate) fn forget_line(&mut self, kind: StreamKind) {
        let lines = self.lines(kind);
        *lines = lines.saturating_sub(1);
    }

    /// Counts a record, if it is one.
    pub(crate) fn note_record(&mut self, is_record: bool) {
        self.records += u64::from(is_record);
    }

    /// Takes one record off. True if there was one.
    pub(crate) fn forget_record(&mut self) -> bool {
        let is_known = self.records > 0;
        self.records -= u64::from(is_known);
        is_known
    }

    /// What is beyond this.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            out: self.out.saturating_sub(before.out),
            err: self.err.saturating_sub(before.err),
            records: self.records.saturating_sub(before.records),
            ..Self::default()
        }
    }

    /// The more of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            out: self.out.max(other.out),
            err: self.err.max(other.err),
            records: self.records.max(other.records),
            ..Self::default()
        }
    }

    /// What the agents of a process printed that ended like this.
    pub(crate) fn by_agents(mut self, exit: ExitKind) -> Self {
        let is_silent = matches!(
            exit,
            ExitKind::Signal(9) | ExitKind::NoAnswer | ExitKind::OutOfMemory { .. }
        );
        if let Some(lines) = self.before_the_end.take()
            && !is_silent
        {
            self.err = lines;
        }
        self.is_after_empty_line = false;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(out: u64, err: u64, records: u64) -> Printed {
        Printed {
            out,
            err,
            records,
            ..Printed::default()
        }
    }

    #[test]
    fn each_stream_has_a_count_of_its_own() {
        let (before, after) = (counted(1, 2, 3), counted(5, 7, 9));
        assert_eq!(after.since(before), counted(4, 5, 6));
        // A process that prints less has not come so far.
        assert_eq!(before.since(after), counted(0, 0, 0));
        assert_eq!(counted(5, 2, 3).max(counted(1, 7, 9)), counted(5, 7, 9));
    }

    /// A panic that was caught, long before the process ended.
    #[test]
    fn an_end_that_was_told_of_long_ago_was_none() {
        let mut printed = Printed::default();
        printed.note_line(
            StreamKind::Err,
            b"thread 'main' (7) panicked at src/main.rs:1:1:\n",
        );
        for _ in 0..LAST_WORDS {
            printed.note_line(StreamKind::Err, b"on it goes\n");
        }
        printed.note_line(StreamKind::Err, b"fatal runtime error: stack\n");
        let agents = printed.by_agents(ExitKind::StackOverflow);
        assert_eq!(agents.err, LAST_WORDS + 1);
    }

    #[test]
    fn the_last_words_of_a_process_are_not_its_agents() {
        let mut printed = Printed::default();
        for line in [
            "one\n",
            "\n",
            "thread 'main' (7) has overflowed its stack\n",
            "fatal runtime error: stack\n",
        ] {
            printed.note_line(StreamKind::Err, line.as_bytes());
        }
        printed.note_line(StreamKind::Out, b"two\n");
        printed.note_record(true);
        let agents = printed.by_agents(ExitKind::StackOverflow);
        assert_eq!((agents.out, agents.err, agents.records), (1, 1, 1));
        assert_eq!(printed.by_agents(ExitKind::Signal(9)).err, 4);
    }
}
