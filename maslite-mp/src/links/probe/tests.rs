//! Types that are read as they are written, and types that are not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use maslite_core::{AgentId, Receiver, SimTime, Topic};
use serde::{Deserialize, Serializer};

use super::*;

/// All that a right type may consist of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(dead_code, reason = "values are made up")]
enum Right {
    Nothing,
    #[serde(alias = "Old", alias = "Older")]
    Numbers(u8, i16, u32, i64, u128, i128, f32, f64, bool, char, usize),
    Several {
        text: String,
        some: Option<Box<Right>>,
        list: Vec<Right>,
        map: BTreeMap<String, HashSet<u8>>,
        hashed: HashMap<u64, [u8; 3]>,
        #[serde(alias = "before")]
        named: AgentId,
        receiver: Receiver,
        time: SimTime,
        topic: Topic,
    },
    Std(
        NonZeroU64,
        Duration,
        IpAddr,
        PathBuf,
        Result<u8, ()>,
        std::ops::Range<u8>,
    ),
    #[serde(skip_serializing)]
    ReadOnly,
    Unit(Unit),
    New(New),
    /// Nothing comes behind it, so all other variants have the same number where they are
    /// written and where they are read.
    #[serde(skip)]
    Private(u64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Unit;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
struct New {
    number: u32,
}

impl From<u32> for New {
    fn from(number: u32) -> Self {
        assert!(number > 0, "it takes no zero, and panics");
        Self { number }
    }
}

impl From<New> for u32 {
    fn from(new: New) -> Self {
        new.number
    }
}

#[derive(Serialize, Deserialize)]
enum Tree {
    Fork(Box<Tree>, Box<Tree>),
    Leaf,
}

#[derive(Serialize, Deserialize)]
struct Endless {
    next: Box<Endless>,
}

#[test]
fn nothing_is_said_against_types_that_are_read_as_they_are_written() {
    assert_eq!(examine::<Right>(), Ok(()));
    assert_eq!(examine::<Tree>(), Ok(()));
    assert_eq!(examine::<Endless>(), Ok(()));
    assert_eq!(examine::<Vec<Option<HashMap<String, Right>>>>(), Ok(()));
}

/// Defines a type with attributes in the middle of it, and tells what is said against it.
macro_rules! flaw_of {
    ($($type:tt)*) => {{
        #[allow(dead_code, reason = "values are made up")]
        #[derive(Serialize, Deserialize)]
        $($type)*
        #[allow(dead_code, reason = "values are made up")]
        #[derive(Serialize, Deserialize)]
        enum Outer { Nothing, Something(Option<Probed>) }
        let (alone, within) = (examine::<Probed>(), examine::<Outer>());
        assert_eq!(alone.is_err(), within.is_err(), "{alone:?} and {within:?}");
        alone.err().unwrap_or_default()
    }};
}

#[test]
fn attributes_that_make_a_type_asymmetric_are_found() {
    let skipped = flaw_of!(
        enum Probed {
            A,
            #[serde(skip)]
            B(u64),
            C {
                a: i64,
            },
            D {
                a: i64,
            },
        }
    );
    assert!(
        skipped.starts_with("`Probed::C`: it is written as 0200, and"),
        "{skipped}"
    );
    let unread = flaw_of!(
        enum Probed {
            A,
            #[serde(skip_deserializing)]
            B,
            C,
        }
    );
    assert!(unread.starts_with("`Probed::C`: "), "{unread}");
    let left_out = flaw_of!(
        struct Probed {
            #[serde(default, skip_serializing_if = "Option::is_none")]
            a: Option<u8>,
            b: u8,
        }
    );
    assert!(
        left_out.contains("`a` is left out (`skip_serializing_if`)"),
        "{left_out}"
    );
}

#[test]
fn tags_that_make_an_enum_asymmetric_are_found() {
    for flaw in [
        flaw_of!(
            #[serde(untagged)]
            enum Probed {
                A(u8),
                B(u16),
            }
        ),
        flaw_of!(
            #[serde(tag = "t")]
            enum Probed {
                A { a: u8 },
                B,
            }
        ),
        flaw_of!(
            #[serde(tag = "t", content = "c")]
            enum Probed {
                A(u8),
                B,
            }
        ),
        flaw_of!(
            #[serde(tag = "t", content = "c")]
            enum Probed {
                A { a: u8 },
                B { b: u16 },
            }
        ),
    ] {
        assert!(!flaw.is_empty());
    }
}

#[test]
fn fields_that_make_a_struct_asymmetric_are_found() {
    for flaw in [
        flaw_of!(
            struct Probed {
                #[serde(skip_serializing, default)]
                a: u8,
                b: u8,
            }
        ),
        flaw_of!(
            struct Probed {
                #[serde(skip_serializing, default)]
                a: u8,
                b: Vec<u8>,
            }
        ),
        flaw_of!(
            struct Probed {
                #[serde(skip_deserializing)]
                a: u8,
                b: u8,
            }
        ),
        flaw_of!(
            struct Probed {
                #[serde(flatten)]
                a: BTreeMap<String, u8>,
                b: u8,
            }
        ),
        flaw_of!(
            struct Probed {
                a: serde_json::Value,
            }
        ),
    ] {
        assert!(!flaw.is_empty());
    }
    // Neither side knows of a field that is skipped on both.
    let skipped = flaw_of!(
        struct Probed {
            #[serde(skip)]
            a: u8,
            b: u8,
        }
    );
    assert_eq!(skipped, "");
}

/// Written with a number, and read without.
#[derive(Deserialize)]
struct ByHand;

impl Serialize for ByHand {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(7)
    }
}

#[test]
fn types_written_by_hand_are_found_too() {
    assert_eq!(
        examine::<Option<ByHand>>(),
        Err("1 bytes are left over behind it".to_owned())
    );
}

#[test]
fn a_shape_is_told_by_fields_and_variants() {
    #[derive(Serialize, serde::Deserialize)]
    struct Point {
        x: u32,
        y: Option<u8>,
    }
    mod renamed {
        #[derive(serde::Serialize, serde::Deserialize)]
        pub(super) struct Point {
            x: u32,
            z: Option<u8>,
        }
    }
    mod retyped {
        #[derive(serde::Serialize, serde::Deserialize)]
        pub(super) struct Point {
            x: u64,
            y: Option<u8>,
        }
    }
    mod deeper {
        #[derive(serde::Serialize, serde::Deserialize)]
        pub(super) struct Point {
            x: u32,
            y: Option<u16>,
        }
    }
    #[derive(Serialize, serde::Deserialize)]
    enum Way {
        On(Point),
        Off { at: Vec<u8> },
    }
    mod reordered {
        #[derive(serde::Serialize, serde::Deserialize)]
        pub(super) enum Way {
            Off { at: Vec<u8> },
            On(u8),
        }
    }
    let shapes = [
        shape::<Point>(),
        shape::<renamed::Point>(),
        shape::<retyped::Point>(),
        shape::<deeper::Point>(),
        shape::<Way>(),
        shape::<reordered::Way>(),
        shape::<Vec<Way>>(),
        shape::<()>(),
    ];
    assert_eq!(shape::<Way>(), shapes[4], "it is the same each time");
    let different: std::collections::BTreeSet<u64> = shapes.into_iter().collect();
    assert_eq!(different.len(), shapes.len(), "{shapes:x?}");
}
