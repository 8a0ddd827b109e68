//! What main told one cluster since it was started, as a replay needs it.
//!
//! **Invariant:** at most one message waits for its answer, and it is the last one.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufReader, Seek};
use std::path::{Path, PathBuf};

use crate::error::snapshot::SnapshotError;
use crate::protocol::replay::{Outcome, RECORD_HEAD};
use crate::snapshot::blocks::{self, Kind};

/// About this number of bytes of records are replayed in one message \[bytes\].
const CHUNK: usize = 256 * 1024;

/// The messages of main to one cluster, and what became of them.
#[derive(Debug)]
pub(crate) struct Log {
    /// The first message of all, which is no part of a replay.
    settings: Vec<u8>,
    /// The state of the cluster before the records, if it was asked for.
    base: Option<Base>,
    /// Records, one behind the other.
    chunks: Vec<Vec<u8>>,
    /// Chunks from before a cut: memory that has its pages.
    spare: Vec<Vec<u8>>,
    /// Where in the last chunk the record of the message is that waits for its answer.
    awaiting: Option<usize>,
    bytes: usize,
    limit: usize,
    messages: u64,
    /// The limit was reached, and nothing is kept.
    is_full: bool,
    /// Only the last message is kept: there is no replay.
    keeps_last: bool,
}

/// The state of a cluster from which a replay begins.
#[derive(Debug)]
enum Base {
    State(Vec<u8>),
    /// In a file of a snapshot, which is held open: the file may be removed meanwhile.
    File(File, PathBuf),
}

impl Log {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            settings: Vec::new(),
            base: None,
            chunks: Vec::new(),
            spare: Vec::new(),
            awaiting: None,
            bytes: 0,
            limit,
            messages: 0,
            is_full: false,
            keeps_last: false,
        }
    }

    /// A log of the last message alone, however long it is.
    pub(crate) fn of_last_message() -> Self {
        Self {
            keeps_last: true,
            ..Self::new(usize::MAX)
        }
    }

    /// Keeps the first message.
    pub(crate) fn begin(&mut self, settings: &[u8]) {
        self.settings = settings.to_vec();
    }

    /// Begins anew with the state of the cluster, in which everything is that it was told.
    pub(crate) fn cut(&mut self, state: Vec<u8>) {
        self.begin_at(Base::State(state));
    }

    /// Begins anew with the state of the cluster that was written into a file of a snapshot.
    ///
    /// # Errors
    /// If the file cannot be opened; nothing has changed then.
    pub(crate) fn cut_at(&mut self, path: &Path) -> Result<(), SnapshotError> {
        let file = blocks::open(path).map_err(|why| SnapshotError::io(path, "read", why))?;
        self.is_full = false;
        self.begin_at(Base::File(file, path.to_owned()));
        Ok(())
    }

    fn begin_at(&mut self, base: Base) {
        debug_assert!(self.awaiting.is_none(), "it has answered all");
        self.base = Some(base);
        self.spare.append(&mut self.chunks);
        self.bytes = 0;
    }

    /// Whether a message of this length would be too much, and a cut would help.
    #[inline]
    pub(crate) fn needs_cut(&self, length: usize) -> bool {
        !self.is_full && self.bytes > 0 && self.bytes + RECORD_HEAD + length > self.limit
    }

    /// The state from which a replay begins, if there is one.
    ///
    /// # Errors
    /// If it is in a file that cannot be read.
    pub(crate) fn base(&self) -> Result<Option<Cow<'_, [u8]>>, SnapshotError> {
        Ok(match &self.base {
            None => None,
            Some(Base::State(state)) => Some(Cow::Borrowed(state)),
            Some(Base::File(file, path)) => {
                let rewound = (&mut &*file).rewind();
                rewound.map_err(|why| SnapshotError::io(path, "read", why))?;
                let mut state = Vec::new();
                blocks::each_block_of(BufReader::new(file), path, Kind::Cluster, |block| {
                    state.extend_from_slice(block);
                })?;
                Some(Cow::Owned(state))
            }
        })
    }

    pub(crate) fn settings(&self) -> &[u8] {
        &self.settings
    }

    /// Keeps a message that is about to be sent. False if it has just become too much: then nothing
    /// is kept from here on.
    #[inline]
    pub(crate) fn note(&mut self, message: &[u8], is_to_be_answered: bool) -> bool {
        debug_assert!(self.awaiting.is_none(), "one answer is awaited at a time");
        self.messages += 1;
        if self.is_full {
            return true;
        }
        if self.keeps_last {
            self.spare.append(&mut self.chunks);
            self.bytes = 0;
        }
        self.bytes += RECORD_HEAD + message.len();
        if self.bytes > self.limit {
            self.is_full = true;
            self.base = None;
            self.spare = Vec::new();
            self.bytes = 0;
            self.chunks = Vec::new();
            return false;
        }
        let chunk = match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk,
            _ => self.next_chunk(),
        };
        let start = chunk.len();
        chunk.extend_from_slice(&Outcome::default().head(message.len()));
        chunk.extend_from_slice(message);
        self.awaiting = is_to_be_answered.then_some(start);
        true
    }

    #[cold]
    fn next_chunk(&mut self) -> &mut Vec<u8> {
        let room = if self.chunks.is_empty() { 0 } else { CHUNK };
        let place = self.chunks.len();
        let mut chunk = self.spare.pop().unwrap_or_default();
        chunk.clear();
        chunk.reserve(room);
        self.chunks.push(chunk);
        &mut self.chunks[place]
    }

    /// Notes the answer to the last message.
    #[inline]
    pub(crate) fn answered(&mut self, pass: u64, mark: u64) {
        let Some((start, chunk)) = self.awaiting.take().zip(self.chunks.last_mut()) else {
            return;
        };
        let outcome = Outcome {
            answered: true,
            pass,
            mark,
        };
        let length = chunk.len() - start - RECORD_HEAD;
        let head = outcome.head(length);
        chunk[start..start + RECORD_HEAD].copy_from_slice(&head);
    }

    /// What is to be replayed, in parts; none if it was too much to be kept.
    pub(crate) fn parts(&self) -> Option<impl Iterator<Item = &[u8]>> {
        let last = self.chunks.len().wrapping_sub(1);
        let parts = self.chunks.iter().enumerate();
        let parts = parts.map(move |(place, chunk)| match self.awaiting {
            Some(start) if place == last => &chunk[..start],
            _ => &chunk[..],
        });
        (!self.is_full).then(|| parts.filter(|part| !part.is_empty()))
    }

    /// The message that waits for its answer.
    pub(crate) fn outstanding(&self) -> Option<&[u8]> {
        let (start, chunk) = self.awaiting.zip(self.chunks.last())?;
        Some(&chunk[start + RECORD_HEAD..])
    }

    /// How many messages there were so far. The last of them has this number.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::replay::take_record;

    fn records(log: &Log) -> Vec<(Vec<u8>, bool, u64)> {
        let mut all = Vec::new();
        for mut part in log.parts().unwrap() {
            while let Some(record) = take_record(&mut part) {
                let outcome = record.outcome;
                all.push((record.message.to_vec(), outcome.answered, outcome.pass));
            }
            assert!(part.is_empty());
        }
        all
    }

    #[test]
    fn what_was_answered_is_replayed_and_the_last_message_is_not() {
        let mut log = Log::new(1 << 30);
        log.begin(b"settings");
        let long = vec![7; CHUNK];
        assert!(log.note(b"load", true));
        log.answered(0, 5);
        assert!(log.note(b"indices", false));
        assert!(log.note(&long, true));
        log.answered(3, 6);
        assert_eq!(log.outstanding(), None);
        assert!(log.note(b"grant", true));
        assert_eq!(log.outstanding(), Some(&b"grant"[..]));
        let expected = [
            (b"load".to_vec(), true, 0),
            (b"indices".to_vec(), false, 0),
            (long, true, 3),
        ];
        assert_eq!(records(&log), expected);
        assert_eq!((log.settings(), log.messages()), (&b"settings"[..], 4));
    }

    #[test]
    fn a_log_of_the_last_message_forgets_those_before_it() {
        let mut log = Log::of_last_message();
        log.begin(b"settings");
        assert!(log.note(&vec![7; 2 * CHUNK], true));
        log.answered(0, 0);
        assert!(log.note(b"grant", true));
        assert_eq!(log.outstanding(), Some(&b"grant"[..]));
        assert_eq!((records(&log).len(), log.chunks.len()), (0, 1));
        assert!(!log.needs_cut(usize::MAX / 2));
    }

    #[test]
    fn a_log_never_exceeds_its_limit() {
        let mut log = Log::new(100);
        assert!(log.note(&[1; 60], true));
        log.answered(0, 0);
        assert!(!log.note(&[1; 60], true), "it is told once");
        log.answered(0, 0);
        assert!(log.note(&[1; 60], true));
        assert!(log.parts().is_none());
        assert_eq!(log.bytes, 0);
    }
}
