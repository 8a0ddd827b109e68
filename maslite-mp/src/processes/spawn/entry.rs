//! Which call of `enter` a child process is for.
//!
//! A program may enter several registries, and the same code may enter several times. So a registry
//! has a [`Signature`], a call of `enter` is a [`Point`], and the invitation of a child names the
//! point that main meant. The child returns from every other `enter` as main did, and becomes a
//! cluster at that one:
//!
//! - A registry whose builders capture nothing is known by its signature: all calls that enter it
//!   are alike, and the first one is taken.
//! - What builders capture cannot be compared between processes. Such a registry is entered at the
//!   place of the call in the source, and at its number among all calls from there.
//! - A test harness runs nothing but the test that
//!   [`entered_by_test`](crate::Registry::entered_by_test) names, so there the signature decides
//!   alone.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::Location;
use std::sync::Mutex;

use maslite_core::internal::{Fnv, LockEvenPoisoned};
use serde::{Deserialize, Serialize};

/// How many differences an error tells.
const TOLD: usize = 4;

/// What a registry holds, in a form that processes of one program can compare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signature {
    /// What stands behind each name, as a hash.
    items: BTreeMap<String, u64>,
    /// Some builder captures values, which no signature shows.
    pub(super) has_captures: bool,
}

impl Signature {
    /// Adds an item, by what it is for people and what it is for the compiler.
    pub(crate) fn add(&mut self, what: String, identity: impl Hash) {
        let mut hasher = Fnv::default();
        identity.hash(&mut hasher);
        self.items.insert(what, hasher.finish());
    }

    /// Adds a function of the program, which may have captured values.
    pub(crate) fn add_function<F: 'static>(&mut self, what: String, function: &F) {
        self.add(what, TypeId::of::<F>());
        self.has_captures |= size_of_val(function) > 0;
    }

    /// All of it as one number.
    pub(crate) fn hash(&self) -> u64 {
        let mut hasher = Fnv::default();
        (&self.items, self.has_captures).hash(&mut hasher);
        hasher.finish()
    }

    /// What the other one lacks, has in addition, or has as something else under the same name.
    pub(crate) fn differences(&self, other: &Self) -> String {
        let missing =
            self.items
                .iter()
                .filter_map(|(what, identity)| match other.items.get(what) {
                    None => Some(format!("{what} is missing")),
                    Some(theirs) if theirs != identity => Some(format!("{what} is another one")),
                    Some(_) => None,
                });
        let added = other.items.keys();
        let added = added.filter(|what| !self.items.contains_key(*what));
        let all: Vec<String> = missing
            .chain(added.map(|what| format!("{what} is there in addition")))
            .collect();
        let more = all.len().saturating_sub(TOLD);
        let mut text = all[..all.len() - more].join(", ");
        if more > 0 {
            text += &format!(", and {more} more differences");
        }
        text
    }
}

/// A call of `enter` in a run of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// File, line and column.
    pub(crate) place: String,
    /// Its number among the calls from there, from 1.
    pub(crate) call: u32,
    pub(crate) signature: Signature,
}

impl Point {
    /// Counts a call.
    pub(crate) fn reached(caller: &Location<'_>, signature: Signature) -> Self {
        static CALLS: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());
        let place = caller.to_string();
        let mut calls = CALLS.lock_even_poisoned();
        let call = calls.entry(place.clone()).or_default();
        *call += 1;
        Self {
            call: *call,
            place,
            signature,
        }
    }
}

/// Names a call for people.
impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_point(&self.place, self.call, f)
    }
}

pub(super) fn write_point(place: &str, call: u32, f: &mut impl fmt::Write) -> fmt::Result {
    write!(f, "`enter` at {place}")?;
    if call > 1 {
        write!(f, " (call {call} from there)")?;
    }
    Ok(())
}

/// Where a child becomes a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meant {
    Here,
    /// It is this call, and the registry is not the one that main had.
    HereButChanged,
    Elsewhere,
}

#[cfg(test)]
mod tests {
    use super::super::handshake::Invitation;
    use super::*;

    fn signature(names: &[&str]) -> Signature {
        let mut signature = Signature::default();
        for name in names {
            signature.add((*name).to_owned(), 7);
        }
        signature
    }

    fn invitation(point: &Point, by_test: bool) -> Invitation {
        Invitation {
            cluster: 0,
            nonce: [0; 16],
            kind: 0,
            place: point.place.clone(),
            call: point.call,
            schema: point.signature.hash(),
            by_test,
            directory: None,
        }
    }

    #[test]
    fn a_registry_without_captures_is_known_by_its_signature_and_others_by_the_call() {
        let point = |call, names: &[&str], has_captures| Point {
            place: "main.rs:3:4".to_owned(),
            call,
            signature: Signature {
                has_captures,
                ..signature(names)
            },
        };
        for (meant, reached, by_test, expected) in [
            ((2, false), (1, &["a"][..], false), false, Meant::Here),
            ((2, true), (1, &["a"], true), false, Meant::Elsewhere),
            ((2, true), (2, &["a"], true), false, Meant::Here),
            ((2, true), (1, &["a"], true), true, Meant::Here),
            ((2, false), (1, &["a", "b"], false), false, Meant::Elsewhere),
            (
                (2, false),
                (2, &["a", "b"], false),
                false,
                Meant::HereButChanged,
            ),
            ((2, false), (2, &["a", "b"], false), true, Meant::Elsewhere),
        ] {
            let meant = invitation(&point(meant.0, &["a"], meant.1), by_test);
            let reached = point(reached.0, reached.1, reached.2);
            assert_eq!(meant.is_for(&reached), expected, "{reached:?}");
        }
    }

    #[test]
    fn differences_are_told_by_name() {
        let (ours, mut theirs) = (signature(&["a", "b"]), signature(&["b", "c"]));
        assert_eq!(
            ours.differences(&theirs),
            "a is missing, c is there in addition"
        );
        theirs.add("b".to_owned(), 8);
        assert_eq!(
            ours.differences(&theirs),
            "a is missing, b is another one, c is there in addition"
        );
        let many: Vec<String> = (0..9).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(
            signature(&many).differences(&Signature::default()),
            "0 is missing, 1 is missing, 2 is missing, 3 is missing, and 5 more differences"
        );
    }

    #[test]
    fn functions_that_capture_are_told_from_those_that_do_not() {
        let of = |mut signature: Signature| {
            signature.items.clear();
            signature.has_captures
        };
        let number = 7_u64;
        let (mut with, mut without) = (Signature::default(), Signature::default());
        with.add_function("b".to_owned(), &move || number);
        without.add_function("b".to_owned(), &|| 7);
        assert_eq!((of(with), of(without)), (true, false));
    }
}
