//! Whether values are read again as they were written.
//!
//! A `Serialize` and a `Deserialize` that do not fit each other would deliver other messages than
//! were sent. So values make a round trip where they are sent: written, read, and written again. In
//! debug builds all of them do; in release builds the first of each kind, that is, with the same
//! first byte: of an enum that is its variant.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::link::Hex;
use crate::links::codec::{self, Misread};
use crate::links::{guarded, outline};

/// How a value that was read differs from the one that was written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// It cannot be read. Who gets it says so, too.
    Unreadable(String),
    /// It is another value. Tells how.
    Other(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) | Self::Other(why) => f.write_str(why),
        }
    }
}

impl From<Misread> for Difference {
    fn from(why: Misread) -> Self {
        Self::Unreadable(why.to_string())
    }
}

/// Reads a value from what was written of it, and compares the two. Returns what was read.
///
/// # Errors
/// How they differ. A panic of the type is one, too.
pub(crate) fn make<T: Serialize + DeserializeOwned>(
    value: &T,
    bytes: &[u8],
    scratch: &mut Vec<u8>,
) -> Result<T, Difference> {
    let made = guarded::catch(|| {
        let again: T = codec::decode(bytes)?;
        scratch.clear();
        if codec::put(&again, scratch).is_ok() && *scratch == bytes {
            return Ok(again);
        }
        // Sets and maps may have another order.
        let same = match (outline::of(value), outline::of(&again)) {
            (Ok(before), Ok(after)) => before == after,
            _ => false,
        };
        if same {
            return Ok(again);
        }
        Err(Difference::Other(format!(
            "it is written as {}, and what is read from that is written as {}",
            start(bytes),
            start(scratch)
        )))
    });
    made.unwrap_or_else(|panic| Err(Difference::Unreadable(format!("it panics: {panic}"))))
}

/// The first bytes of a value.
fn start(bytes: &[u8]) -> String {
    const SHOWN: usize = 16;
    match bytes {
        [] => "nothing".to_owned(),
        bytes if bytes.len() > SHOWN => format!("{}…", Hex(&bytes[..SHOWN])),
        bytes => Hex(bytes).to_string(),
    }
}

/// Which messages are to make a round trip.
#[derive(Debug)]
pub(crate) struct Trips {
    /// How many did, by the first byte.
    made: [u8; 256],
    /// Kept for its memory.
    pub(crate) scratch: Vec<u8>,
    pub(crate) written: Vec<u8>,
}

/// How many of each kind make a round trip in release builds.
const FIRST: u8 = 16;

impl Default for Trips {
    fn default() -> Self {
        Self {
            made: [0; 256],
            scratch: Vec::new(),
            written: Vec::new(),
        }
    }
}

impl Trips {
    /// Whether a value that was written as these bytes is to make a round trip.
    #[inline]
    pub(crate) fn wants(&mut self, bytes: &[u8]) -> bool {
        if cfg!(debug_assertions) {
            return true;
        }
        let made = &mut self.made[usize::from(bytes.first().copied().unwrap_or(0))];
        if *made == FIRST {
            return false;
        }
        *made += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use serde::{Deserialize, Deserializer, Serializer};

    use super::*;

    /// Written as two numbers, and read in another order.
    #[derive(Debug, PartialEq)]
    struct Swapped(u8, u8);

    impl Serialize for Swapped {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            (self.0, self.1).serialize(serializer)
        }
    }

    impl<'de> Deserialize<'de> for Swapped {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let (second, first) = Deserialize::deserialize(deserializer)?;
            Ok(Self(first, second))
        }
    }

    fn trip<T: Serialize + DeserializeOwned>(value: &T) -> Result<T, Difference> {
        let mut bytes = Vec::new();
        codec::put(value, &mut bytes).unwrap();
        make(value, &bytes, &mut Vec::new())
    }

    #[test]
    fn what_is_read_as_another_value_is_found() {
        assert_eq!(trip(&Swapped(1, 1)), Ok(Swapped(1, 1)));
        let why = "it is written as 0102, and what is read from that is written as 0201";
        assert_eq!(trip(&Swapped(1, 2)), Err(Difference::Other(why.to_owned())));
    }

    #[test]
    fn sets_and_maps_are_read_again_in_any_order() {
        let set: HashSet<u32> = (0..100).collect();
        assert_eq!(trip(&set), Ok(set.clone()));
        let map: HashMap<u32, u8> = (0..100).zip(1..).collect();
        assert_eq!(trip(&map), Ok(map.clone()));
    }
}
