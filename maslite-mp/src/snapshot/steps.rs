//! The steps of a save on the disk. Tests have a save fail at any of them, or have this process die
//! there; without the feature `dev` there is nothing here.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// What becomes of the step of a save on the disk.
#[cfg(feature = "dev")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It fails, as if the device were broken; the steps after it succeed.
    Fails,
    /// The disk is full: it fails if it writes, and so do all after it that write.
    IsFull,
    /// This process is killed before it.
    IsKilled,
}

#[cfg(feature = "dev")]
thread_local! {
    static FATE: std::cell::Cell<Option<(u32, Fate)>> = const { std::cell::Cell::new(None) };
}

/// Decides what becomes of a step that this thread takes: the next one is step 0. None lets all
/// succeed. Returns what was decided before and has not come to pass.
#[cfg(feature = "dev")]
#[expect(clippy::must_use_candidate, reason = "it is called to decide")]
pub fn decide(fate: Option<(u32, Fate)>) -> Option<(u32, Fate)> {
    FATE.replace(fate)
}

/// Whether a step adds something to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Writes,
    Other,
}

#[cfg(not(feature = "dev"))]
#[inline]
fn before(_: Step) -> io::Result<()> {
    Ok(())
}

#[cfg(feature = "dev")]
fn before(step: Step) -> io::Result<()> {
    /// No space is left on the device.
    const ENOSPC: i32 = 28;
    /// An error of the device.
    const EIO: i32 = 5;
    let Some((steps, fate)) = FATE.get() else {
        return Ok(());
    };
    if steps > 0 {
        FATE.set(Some((steps - 1, fate)));
        return Ok(());
    }
    match (fate, step) {
        (Fate::IsKilled, _) => {
            let this = rustix::process::getpid();
            let _ = rustix::process::kill_process(this, rustix::process::Signal::KILL);
            loop {
                std::thread::park();
            }
        }
        (Fate::Fails, _) => {
            FATE.set(None);
            Err(io::Error::from_raw_os_error(EIO))
        }
        (Fate::IsFull, Step::Writes) => Err(io::Error::from_raw_os_error(ENOSPC)),
        (Fate::IsFull, Step::Other) => Ok(()),
    }
}

/// Makes a folder that only its owner may use.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    before(Step::Writes)?;
    DirBuilder::new().mode(0o700).create(path)
}

/// Makes a folder with all that it lies in.
pub(super) fn make_parents(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    before(Step::Writes)?;
    fs::create_dir_all(path)
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    before(Step::Other)?;
    fs::rename(from, to)
}

/// Has a file reach the disk, or a folder: the names of what is in it.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    sync_file(&File::open(path)?)
}

pub(super) fn sync_file(file: &File) -> io::Result<()> {
    before(Step::Other)?;
    file.sync_all()
}

/// Opens a file in which something is to be written.
pub(super) fn create(options: &fs::OpenOptions, path: &Path) -> io::Result<File> {
    before(Step::Writes)?;
    options.open(path)
}

/// Writes into a file, step by step.
pub(super) struct Steps(pub(super) File);

impl Write for Steps {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        before(Step::Writes)?;
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Removes a folder with all that is in it.
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        before(Step::Other)?;
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    before(Step::Other)?;
    fs::remove_dir(path)
}
