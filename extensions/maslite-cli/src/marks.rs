//! `maslite marks`: compares two files of marks.

use std::io::Write;
use std::path::{Path, PathBuf};

use maslite_mp::Marks;
use serde_json::json;

use crate::choice::Failure;

fn read(path: &Path) -> Result<Marks, Failure> {
    let unreadable = |why: String| Failure::BadMarks {
        path: path.to_owned(),
        why,
    };
    let text = std::fs::read(path).map_err(|why| unreadable(why.to_string()))?;
    serde_json::from_slice(&text).map_err(|why| unreadable(why.to_string()))
}

/// Tells the first piece of time in which two runs differ.
pub(crate) fn marks(out: &mut impl Write, paths: [&PathBuf; 2], json: bool) -> Result<(), Failure> {
    let (one, other) = (read(paths[0])?, read(paths[1])?);
    if one.covers() != other.covers() {
        return Err(Failure::BadMarks {
            path: paths[1].clone(),
            why: "one file has marks of a trace and the other has marks of contents".to_owned(),
        });
    }
    let piece = one.first_difference(&other);
    let ends = piece.map(|piece| (*piece.start(), *piece.end()));
    if json {
        let nanos = ends.map(|(first, last)| [first.as_nanos(), last.as_nanos()]);
        writeln!(
            out,
            "{}",
            json!({ "same": nanos.is_none(), "differ_ns": nanos })
        )?;
    } else {
        match ends {
            Some((first, last)) => writeln!(
                out,
                "the first difference is between {first} and {last}; the digests are {} and {}",
                one.digest(),
                other.digest()
            )?,
            None => writeln!(
                out,
                "all marks are the same; the digest is {}",
                one.digest()
            )?,
        }
    }
    match ends {
        Some(_) => Err(Failure::Strayed),
        None => Ok(()),
    }
}
