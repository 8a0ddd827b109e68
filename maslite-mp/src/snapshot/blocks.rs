//! A file of checked blocks: a change of any byte, or an end too early or too late, is found.
//!
//! ```text
//! │ "maslite\n" │ kind, u32 │ version, u32 │ crc of these, u32 │ block │ block │ … │ end │
//! block: │ length, u32, not 0 │ crc of number and bytes, u32 │ bytes │
//! end:   │ 0, u32 │ bytes in all, u64 │ crc of that, u32 │
//! ```
//!
//! Numbers are little endian. A checksum is the CRC-32 of IEEE 802.3; that of a block begins with
//! the number of the block, so that blocks that changed places are found.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::snapshot::SnapshotError;
use crate::snapshot::steps::{self, Steps};

const MAGIC: [u8; 8] = *b"maslite\n";

/// The version of the format.
pub(crate) const VERSION: u32 = 2;

/// The oldest version that is read. What is not between the two is refused.
const OLDEST: u32 = 1;

/// The longest block [bytes].
const LONGEST: usize = 256 * 1024;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    Head = 1,
    Cluster = 2,
}

/// How long the contents of a file are, and their checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Sum {
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
}

/// Writes a new file, which only its owner may read, and has it reach the disk.
pub(crate) fn write(path: &Path, kind: Kind, contents: &[u8]) -> io::Result<Sum> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let file = steps::create(options, path)?;
    let mut file = BufWriter::with_capacity(LONGEST, Steps(file));
    let mut head = MAGIC.to_vec();
    head.extend((kind as u32).to_le_bytes());
    head.extend(VERSION.to_le_bytes());
    head.extend(crc32fast::hash(&head).to_le_bytes());
    file.write_all(&head)?;
    for (number, block) in (0..).zip(contents.chunks(LONGEST)) {
        // A block has no more than `LONGEST` bytes.
        let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
        file.write_all(&length.to_le_bytes())?;
        file.write_all(&crc_of(number, block).to_le_bytes())?;
        file.write_all(block)?;
    }
    let bytes = contents.len() as u64;
    file.write_all(&0_u32.to_le_bytes())?;
    file.write_all(&bytes.to_le_bytes())?;
    file.write_all(&crc32fast::hash(&bytes.to_le_bytes()).to_le_bytes())?;
    steps::sync_file(&file.into_inner()?.0)?;
    let crc = crc32fast::hash(contents);
    Ok(Sum { bytes, crc })
}

fn crc_of(number: u32, block: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&number.to_le_bytes());
    crc.update(block);
    crc.finalize()
}

/// Opens a file to read it; a symbolic link is none.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits();
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.cast_signed());
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("it is no file"))
}

/// Reads the contents of a file.
pub(crate) fn read(path: &Path, kind: Kind) -> Result<Vec<u8>, SnapshotError> {
    read_with_version(path, kind).map(|(_, contents)| contents)
}

/// Reads the version of the format and the contents of a file.
pub(crate) fn read_with_version(path: &Path, kind: Kind) -> Result<(u32, Vec<u8>), SnapshotError> {
    let mut contents = Vec::new();
    let version = each_block(path, kind, |block| contents.extend_from_slice(block))?;
    Ok((version, contents))
}

/// Looks through a file, and tells what its contents come to.
pub(crate) fn check(path: &Path, kind: Kind) -> Result<Sum, SnapshotError> {
    let mut bytes = 0;
    let mut crc = crc32fast::Hasher::new();
    each_block(path, kind, |block| {
        bytes += block.len() as u64;
        crc.update(block);
    })?;
    let crc = crc.finalize();
    Ok(Sum { bytes, crc })
}

fn each_block(path: &Path, kind: Kind, visit: impl FnMut(&[u8])) -> Result<u32, SnapshotError> {
    let file = open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => SnapshotError::Missing { path: path.into() },
        _ => SnapshotError::io(path, "read", source),
    })?;
    each_block_of(BufReader::with_capacity(LONGEST, file), path, kind, visit)
}

/// The blocks of what is read in place of a file, which `path` names in errors. Tells the version of
/// the format.
pub(crate) fn each_block_of(
    from: impl Read,
    path: &Path,
    kind: Kind,
    mut visit: impl FnMut(&[u8]),
) -> Result<u32, SnapshotError> {
    let mut reader = Reader {
        from,
        offset: 0,
        path,
    };
    let version = reader.take_head(kind)?;
    let mut block = Vec::new();
    let (mut number, mut bytes) = (0, 0);
    loop {
        let start = reader.offset;
        let corrupt = |why| SnapshotError::Corrupt {
            file: path.into(),
            offset: start,
            why,
        };
        let length = u32::from_le_bytes(reader.take()?) as usize;
        if length == 0 {
            break;
        }
        if length > LONGEST {
            return Err(corrupt("a block is longer than any"));
        }
        let crc = u32::from_le_bytes(reader.take()?);
        block.resize(length, 0);
        reader.fill(&mut block)?;
        if crc_of(number, &block) != crc {
            return Err(corrupt("a checksum does not fit"));
        }
        visit(&block);
        number += 1;
        bytes += length as u64;
    }
    reader.take_end(bytes)?;
    Ok(version)
}

struct Reader<'p, R> {
    from: R,
    offset: u64,
    path: &'p Path,
}

impl<R: Read> Reader<'_, R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotError> {
        self.from.read_exact(bytes).map_err(|source| {
            if source.kind() == io::ErrorKind::UnexpectedEof {
                return self.corrupt("the file ends too early");
            }
            SnapshotError::io(self.path, "read", source)
        })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn corrupt(&self, why: &'static str) -> SnapshotError {
        SnapshotError::Corrupt {
            file: self.path.into(),
            offset: self.offset,
            why,
        }
    }

    fn format(&self, why: String) -> SnapshotError {
        SnapshotError::Format {
            path: self.path.into(),
            why,
        }
    }

    fn take_head(&mut self, kind: Kind) -> Result<u32, SnapshotError> {
        let head: [u8; 16] = self.take()?;
        let crc = u32::from_le_bytes(self.take()?);
        if head[..8] != MAGIC {
            return Err(self.format("it is no file of a snapshot".to_owned()));
        }
        if crc32fast::hash(&head) != crc {
            return Err(self.corrupt("the checksum of its head does not fit"));
        }
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let version = number(12);
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(self.format(format!(
                "its format is version {version}, and this program reads versions {OLDEST} to {VERSION}: restore it with the program that wrote it"
            )));
        }
        if number(8) != kind as u32 {
            return Err(self.format("it is another part of a snapshot".to_owned()));
        }
        Ok(version)
    }

    fn take_end(&mut self, bytes: u64) -> Result<(), SnapshotError> {
        let all: [u8; 8] = self.take()?;
        let crc = u32::from_le_bytes(self.take()?);
        if crc32fast::hash(&all) != crc || u64::from_le_bytes(all) != bytes {
            return Err(self.corrupt("its length does not fit"));
        }
        match self.from.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.corrupt("there is more behind its end")),
            Err(source) => Err(SnapshotError::io(self.path, "read", source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> std::path::PathBuf {
        let name = format!("maslite-blocks-{}-{name}", std::process::id());
        std::env::temp_dir().join(name)
    }

    fn read_bytes(bytes: &[u8]) -> Result<Vec<u8>, SnapshotError> {
        let mut contents = Vec::new();
        let visit = |block: &[u8]| contents.extend_from_slice(block);
        each_block_of(bytes, Path::new("it"), Kind::Cluster, visit)?;
        Ok(contents)
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let path = file("whole");
        for length in [0, 1, LONGEST, LONGEST + 1, 3 * LONGEST] {
            let contents: Vec<u8> = (0..251).cycle().take(length).collect();
            let sum = write(&path, Kind::Cluster, &contents).unwrap();
            assert_eq!(check(&path, Kind::Cluster).unwrap(), sum);
            assert!(read(&path, Kind::Cluster).unwrap() == contents, "{length}");
            let other = read(&path, Kind::Head).unwrap_err().to_string();
            assert!(other.contains("another part of a snapshot"), "{other}");
            std::fs::remove_file(&path).unwrap();
        }
        let missing = read(&path, Kind::Head).unwrap_err();
        assert!(
            matches!(missing, SnapshotError::Missing { .. }),
            "{missing}"
        );
    }

    #[test]
    fn every_changed_bit_and_every_other_length_is_found() {
        let path = file("changed");
        write(&path, Kind::Cluster, b"the state of a cluster").unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(read_bytes(&whole).is_ok());
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                let error = read_bytes(&changed).expect_err("it is found");
                let is_typed = matches!(
                    error,
                    SnapshotError::Corrupt { .. } | SnapshotError::Format { .. }
                );
                assert!(is_typed, "byte {at}, bit {bit}: {error}");
            }
            let cut = read_bytes(&whole[..at]).unwrap_err();
            assert!(matches!(cut, SnapshotError::Corrupt { .. }), "{at}: {cut}");
        }
        let longer = [&whole[..], b"x"].concat();
        let longer = read_bytes(&longer).unwrap_err().to_string();
        assert!(longer.contains("more behind its end"), "{longer}");
    }

    #[test]
    fn blocks_that_changed_places_are_found() {
        let path = file("places");
        let contents = [[1; LONGEST], [2; LONGEST]].concat();
        write(&path, Kind::Cluster, &contents).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (head, block) = (20, 8 + LONGEST);
        let mut changed = whole.clone();
        changed[head..head + block].copy_from_slice(&whole[head + block..head + 2 * block]);
        changed[head + block..head + 2 * block].copy_from_slice(&whole[head..head + block]);
        let error = read_bytes(&changed).unwrap_err();
        assert!(
            matches!(error, SnapshotError::Corrupt { offset: 20, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_link_is_not_followed() {
        let (path, link) = (file("linked"), file("link"));
        write(&path, Kind::Head, b"contents").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let error = read(&link, Kind::Head).unwrap_err();
        std::fs::remove_file(&link).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(error, SnapshotError::Io { .. }), "{error}");
    }
}
