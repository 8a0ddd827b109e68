//! Writes down what main tells a cluster, while it tells it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::file::{ENDING, Head, Kind, write_block, write_start};
use crate::protocol::replay::{Outcome, RECORD_HEAD};

/// A block is written when it has about this number of bytes.
const BLOCK: usize = 64 * 1024;

/// The record of one cluster.
///
/// **Invariant:** a block ends behind a record whose outcome is known, but for the last block.
#[derive(Debug)]
pub(crate) struct Recorder {
    file: File,
    pub(crate) path: PathBuf,
    /// Records that are not written yet.
    records: Vec<u8>,
    /// Where among them the record of the message is that waits for its answer.
    awaiting: Option<usize>,
    /// Nothing more can be written.
    is_broken: bool,
}

impl Recorder {
    /// Begins the record of the cluster at a place, which has been told its settings.
    ///
    /// # Errors
    /// If the file is there already, or cannot be written.
    pub(crate) fn create(
        folder: &Path,
        place: usize,
        cluster: &str,
        schema: u64,
        settings: &[u8],
    ) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let path = folder.join(format!("{place}.{ENDING}"));
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let head = Head {
            cluster: cluster.to_owned(),
            schema,
            settings: settings.to_vec(),
        };
        let head = postcard::to_stdvec(&head).map_err(io::Error::other)?;
        write_start(&mut file)?;
        write_block(&mut file, Kind::Head, &head)?;
        Ok(Self {
            file,
            path,
            records: Vec::with_capacity(2 * BLOCK),
            awaiting: None,
            is_broken: false,
        })
    }

    /// Notes a message that is about to be sent.
    ///
    /// # Errors
    /// If the file cannot be written. That is told once, and nothing more is recorded.
    pub(crate) fn note(&mut self, message: &[u8], is_to_be_answered: bool) -> io::Result<()> {
        if self.is_broken {
            return Ok(());
        }
        if self.records.len() >= BLOCK
            && let Err(error) = self.write()
        {
            self.is_broken = true;
            return Err(error);
        }
        let start = self.records.len();
        let head = Outcome::default().head(message.len());
        self.records.extend_from_slice(&head);
        self.records.extend_from_slice(message);
        self.awaiting = is_to_be_answered.then_some(start);
        Ok(())
    }

    /// Notes the answer to the last message.
    pub(crate) fn answered(&mut self, pass: u64, mark: u64) {
        let Some(start) = self.awaiting.take().filter(|_| !self.is_broken) else {
            return;
        };
        let outcome = Outcome {
            answered: true,
            pass,
            mark,
        };
        let length = self.records.len() - start - RECORD_HEAD;
        self.records[start..start + RECORD_HEAD].copy_from_slice(&outcome.head(length));
    }

    fn write(&mut self) -> io::Result<()> {
        write_block(&mut self.file, Kind::Records, &self.records)?;
        self.records.clear();
        Ok(())
    }
}

impl Drop for Recorder {
    /// Writes what is left. A message without an answer is the last one.
    fn drop(&mut self) {
        if !self.is_broken && self.write().is_ok() {
            let _ = write_block(&mut self.file, Kind::End, &[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_disk_is_told_once() {
        // Nothing fits into it.
        let full = OpenOptions::new().write(true).open("/dev/full");
        let mut recorder = Recorder {
            file: full.unwrap(),
            path: PathBuf::new(),
            records: Vec::new(),
            awaiting: None,
            is_broken: false,
        };
        let long = vec![7; BLOCK];
        recorder.note(&long, true).unwrap();
        recorder.answered(0, 1);
        let error = recorder.note(&long, true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        recorder.answered(0, 1);
        recorder.note(&long, true).unwrap();
    }
}
