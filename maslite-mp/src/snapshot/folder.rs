//! The folder of a snapshot: it is there whole or not at all, even if a process is killed
//! meanwhile.
//!
//! It is written under a name with a dot before it. When all its files have reached the disk, it is
//! renamed, and then nothing in it changes any more.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::snapshot::SnapshotError;
use crate::snapshot::steps;

/// What is behind the name of a folder that is not whole.
const UNFINISHED: &str = ".tmp";

/// A folder that is being written. Dropped before it is [finished](Self::finish), it is removed.
#[derive(Debug)]
pub(crate) struct Unfinished {
    path: PathBuf,
    target: PathBuf,
    is_finished: bool,
}

/// The place of a snapshot that is not whole yet.
fn unfinished(target: &Path) -> Result<PathBuf, SnapshotError> {
    let name = target.file_name().and_then(|name| name.to_str());
    let name = name.filter(|name| !name.starts_with('.'));
    let Some(name) = name else {
        let why = "a snapshot needs a name in UTF-8 that does not begin with a dot";
        let source = io::Error::new(io::ErrorKind::InvalidInput, why);
        return Err(SnapshotError::io(target, "write", source));
    };
    Ok(target.with_file_name(format!(".{name}{UNFINISHED}")))
}

impl Unfinished {
    /// Begins the folder of a snapshot. What a process that was killed has left of it is removed.
    pub(crate) fn begin(target: &Path) -> Result<Self, SnapshotError> {
        let target = std::path::absolute(target)
            .map_err(|source| SnapshotError::io(target, "write", source))?;
        let path = unfinished(&target)?;
        if fs::symlink_metadata(&target).is_ok() {
            return Err(SnapshotError::Exists { path: target });
        }
        let failed = |source| SnapshotError::io(&path, "make", source);
        if let Some(parent) = target.parent() {
            steps::make_parents(parent).map_err(failed)?;
        }
        remove_if_there(&path).map_err(failed)?;
        steps::make_folder(&path).map_err(failed)?;
        Ok(Self {
            path,
            target,
            is_finished: false,
        })
    }

    /// Where its files are written.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// All its files have reached the disk: from now on it is there.
    pub(crate) fn finish(mut self) -> Result<PathBuf, SnapshotError> {
        let finish = || {
            steps::sync(&self.path)?;
            steps::rename(&self.path, &self.target)?;
            self.target.parent().map_or(Ok(()), steps::sync)
        };
        finish().map_err(|source| SnapshotError::io(&self.target, "write", source))?;
        self.is_finished = true;
        Ok(std::mem::take(&mut self.target))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn remove_if_there(folder: &Path) -> io::Result<()> {
    match steps::remove_folder(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a snapshot: from the first moment on it is not there.
pub(crate) fn remove(snapshot: &Path) -> Result<(), SnapshotError> {
    let path = unfinished(snapshot)?;
    let removed = remove_if_there(&path)
        .and_then(|()| steps::rename(snapshot, &path))
        .and_then(|()| steps::remove_folder(&path));
    removed.map_err(|source| SnapshotError::io(snapshot, "remove", source))
}

/// What the names of snapshots begin with that are taken by themselves.
const AUTOMATIC: &str = "auto-";

/// Where the next snapshot goes that is taken by itself.
pub(crate) fn next_automatic(folder: &Path) -> Result<PathBuf, SnapshotError> {
    let numbers = list(folder)?.into_iter().filter_map(|path| number(&path));
    let next = numbers.max().unwrap_or(0) + 1;
    Ok(folder.join(format!("{AUTOMATIC}{next:06}")))
}

/// The number of a snapshot that was taken by itself.
fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix(AUTOMATIC)?.parse().ok()
}

/// Removes what killed processes have left of snapshots that were taken by themselves.
fn remove_unfinished(folder: &Path) -> Result<(), SnapshotError> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| name.strip_prefix('.'));
        if name.is_some_and(|name| name.starts_with(AUTOMATIC) && name.ends_with(UNFINISHED)) {
            let path = entry.path();
            remove_if_there(&path).map_err(|why| SnapshotError::io(path, "remove", why))?;
        }
    }
    Ok(())
}

/// Removes the oldest of the automatic snapshots, and keeps `keep` of them.
pub(crate) fn keep_automatic(folder: &Path, keep: usize) -> Result<(), SnapshotError> {
    let mut all: Vec<(u64, PathBuf)> = list(folder)?
        .into_iter()
        .filter_map(|path| Some((number(&path)?, path)))
        .collect();
    all.sort();
    remove_unfinished(folder)?;
    let old = all.len().saturating_sub(keep);
    all[..old].iter().try_for_each(|(_, path)| remove(path))
}

/// The snapshots in a folder, by name. A folder that is not there has none.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, SnapshotError> {
    let failed = |source| SnapshotError::io(folder, "read", source);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut snapshots = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let name = entry.file_name();
        let is_whole = name.to_str().is_some_and(|name| !name.starts_with('.'));
        if is_folder && is_whole {
            snapshots.push(entry.path());
        }
    }
    snapshots.sort();
    Ok(snapshots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_those_that_are_taken_by_themselves_are_kept() {
        let name = format!("maslite-automatic-{}", std::process::id());
        let root = std::env::temp_dir().join(name);
        for expected in ["auto-000001", "auto-000002", "auto-000003"] {
            let next = next_automatic(&root).unwrap();
            assert_eq!(next, root.join(expected));
            Unfinished::begin(&next).unwrap().finish().unwrap();
        }
        Unfinished::begin(&root.join("by hand"))
            .unwrap()
            .finish()
            .unwrap();
        // What is left of a killed process.
        fs::create_dir(root.join(".auto-000001.tmp")).unwrap();
        keep_automatic(&root, 2).unwrap();
        assert!(!root.join(".auto-000001.tmp").exists());
        let left = ["auto-000002", "auto-000003", "by hand"].map(|name| root.join(name));
        assert_eq!(list(&root).unwrap(), left);
        keep_automatic(&root, 5).unwrap();
        assert_eq!(list(&root).unwrap(), left);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_folder_is_there_when_it_is_finished() {
        let root = std::env::temp_dir().join(format!("maslite-folder-{}", std::process::id()));
        let target = root.join("below").join("one");
        let unfinished = Unfinished::begin(&target).unwrap();
        fs::write(unfinished.path().join("file"), "x").unwrap();
        assert_eq!(
            list(&root.join("below")).unwrap(),
            [""; 0].map(PathBuf::from)
        );
        let left = unfinished.path().to_owned();
        drop(unfinished);
        assert!(!left.exists(), "it is removed");
        // What a process left that was killed is no obstacle.
        fs::create_dir(&left).unwrap();
        fs::write(left.join("old"), "x").unwrap();
        let unfinished = Unfinished::begin(&target).unwrap();
        assert_eq!(fs::read_dir(unfinished.path()).unwrap().count(), 0);
        assert_eq!(unfinished.finish().unwrap(), target);
        assert_eq!(list(&root.join("below")).unwrap(), [&*target]);
        let again = Unfinished::begin(&target).unwrap_err();
        assert!(matches!(again, SnapshotError::Exists { .. }), "{again}");
        remove(&target).unwrap();
        assert_eq!(fs::read_dir(root.join("below")).unwrap().count(), 0);
        let nameless = Unfinished::begin(&root.join(".hidden")).unwrap_err();
        assert!(
            nameless.to_string().contains("begin with a dot"),
            "{nameless}"
        );
        assert_eq!(list(&root.join("nowhere")).unwrap().len(), 0);
        fs::remove_dir_all(&root).unwrap();
    }
}
