//! The file of a record: blocks, each with its length and checksum.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use maslite_core::SimTime;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The first bytes of the file, and the version of the format.
const MAGIC: [u8; 8] = *b"maslrec\n";
const VERSION: u32 = 2;

/// Bytes of a block before its contents: kind, length, checksum.
const BLOCK_HEAD: usize = 12;

/// The ending of the names of these files.
pub(super) const ENDING: &str = "rec";

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A [`Head`].
    Head = 1,
    /// Whole records, one behind the other.
    Records = 2,
    /// Nothing: the record was finished.
    End = 3,
}

/// What a record is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The name of the cluster.
    pub(super) cluster: String,
    /// The hash of what the registry has.
    pub(super) schema: u64,
    /// The message with its settings.
    #[serde(with = "serde_bytes")]
    pub(super) settings: Vec<u8>,
}

/// Why a record cannot be replayed, or how the replay ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// There is no record of such a cluster.
    #[error("{} has no record of cluster {cluster:?}; it has records of {}", .folder.display(), .known.join(", "))]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The name that was asked for.
        cluster: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// A file cannot be read.
    #[error("the record {} cannot be read", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is no record, is of another version, or was changed.
    #[error("the record {} is damaged at byte {offset}: {why}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// The program registers other agents, builders or messages than the program that was recorded.
    #[error(
        "the record of cluster {cluster} was made by a program with other agent types, builders or messages, or of another \
         version: use that program"
    )]
    OtherProgram {
        /// The cluster.
        cluster: String,
    },
    /// The cluster does not answer what it answered then.
    #[error(
        "cluster {cluster} does not what it did then: at grant {grant} it stands at {stands}; an agent looks at more than \
         its messages, its clock and its random numbers"
    )]
    Differs {
        /// The cluster.
        cluster: String,
        /// The number of the first grant after which it differs; 0 if that is before the first.
        grant: u64,
        /// Where it stands after it.
        stands: String,
    },
    /// The cluster fails. If the record ends there, it failed so then.
    #[error("at {time} the cluster fails")]
    Failed {
        /// The simulated time.
        time: SimTime,
        /// How.
        source: Box<Error>,
    },
}

/// Begins a file.
pub(super) fn write_start(into: &mut impl Write) -> io::Result<()> {
    into.write_all(&MAGIC)?;
    into.write_all(&VERSION.to_le_bytes())
}

pub(super) fn write_block(into: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    // Records are as long as messages, of which a link carries no longer ones.
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let (kind, length) = ((kind as u32).to_le_bytes(), length.to_le_bytes());
    into.write_all(&kind)?;
    into.write_all(&length)?;
    into.write_all(&checksum(kind, length, bytes).to_le_bytes())?;
    into.write_all(bytes)
}

fn checksum(kind: [u8; 4], length: [u8; 4], bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&kind);
    hasher.update(&length);
    hasher.update(bytes);
    hasher.finalize()
}

/// Reads the blocks of a file.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) path: PathBuf,
    reader: BufReader<File>,
    length: u64,
    offset: u64,
}

impl Blocks {
    /// # Errors
    /// [`ReplayError::Unreadable`], [`ReplayError::Damaged`].
    pub(super) fn open(path: &Path) -> Result<(Self, Head), ReplayError> {
        let unreadable = |source| ReplayError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let mut blocks = Self {
            path: path.to_owned(),
            reader: BufReader::new(file),
            length,
            offset: 0,
        };
        let mut start = [0; 12];
        if !blocks.fill(&mut start)? || start[..8] != MAGIC {
            return Err(blocks.damaged(0, "it is no record"));
        }
        if start[8..] != VERSION.to_le_bytes() {
            return Err(blocks.damaged(8, "it is of another version"));
        }
        match blocks.next()? {
            Some((Kind::Head, bytes)) => match postcard::from_bytes(&bytes) {
                Ok(head) => Ok((blocks, head)),
                Err(_) => Err(blocks.damaged(12, "its head cannot be decoded")),
            },
            _ => Err(blocks.damaged(12, "it has no head")),
        }
    }

    /// The next block; none at the end. A block that is cut was being written when main ended.
    ///
    /// # Errors
    /// [`ReplayError::Unreadable`], [`ReplayError::Damaged`].
    pub(super) fn next(&mut self) -> Result<Option<(Kind, Vec<u8>)>, ReplayError> {
        let begin = self.offset;
        let mut head = [0; BLOCK_HEAD];
        if !self.fill(&mut head)? {
            return Ok(None);
        }
        let part = |number: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&head[4 * number..4 * number + 4]);
            bytes
        };
        let length = u32::from_le_bytes(part(1));
        if u64::from(length) > self.length - self.offset {
            return Ok(None);
        }
        let mut bytes = vec![0; length as usize];
        if !self.fill(&mut bytes)? {
            return Ok(None);
        }
        if checksum(part(0), part(1), &bytes) != u32::from_le_bytes(part(2)) {
            return Err(self.damaged(begin, "a checksum is wrong"));
        }
        let kind = match u32::from_le_bytes(part(0)) {
            1 => Kind::Head,
            2 => Kind::Records,
            3 => Kind::End,
            _ => return Err(self.damaged(begin, "it has a block of an unknown kind")),
        };
        Ok(Some((kind, bytes)))
    }

    /// Fills `into`. False if there are fewer bytes.
    fn fill(&mut self, into: &mut [u8]) -> Result<bool, ReplayError> {
        match self.reader.read_exact(into) {
            Ok(()) => {
                self.offset += into.len() as u64;
                Ok(true)
            }
            Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(source) => Err(ReplayError::Unreadable {
                path: self.path.clone(),
                source,
            }),
        }
    }

    pub(super) fn damaged(&self, offset: u64, why: &'static str) -> ReplayError {
        ReplayError::Damaged {
            path: self.path.clone(),
            offset,
            why,
        }
    }

    /// Where the next block begins \[bytes\].
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}
