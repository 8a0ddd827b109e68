//! Whether a type is read as it is written, found out before there is a value of it.
//!
//! Its `Deserialize` is given made-up values: each variant of each enum in turn, first with
//! numbers, texts and elements, then with nothing, then with some of them. What comes out makes a
//! round trip. A type that refuses what was made up says nothing of itself, which is no error: its
//! first values show it. Nothing that was made up is dropped, because dropping it may do something.

use std::collections::BTreeMap;
use std::fmt;
use std::mem::forget;

use maslite_core::internal::quietly;
use serde::Serialize;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer,
    MapAccess, SeqAccess, VariantAccess, Visitor,
};

use crate::links::{guarded, round_trip};

/// How many values of a type are made up, at most and at least.
const ROUNDS: u32 = 2_000;
const LEAST: u32 = 32;

/// So often each variant is made up, unless that takes too many values.
const VISITS: usize = 8;

/// How many parts a value that is made up has at most.
const PARTS: u32 = 10_000;

/// The longest encoding of a value that is made up \[bytes\].
const LONGEST: usize = 4 * 1024 * 1024;

/// How many values lie within each other at most.
const DEPTH: u32 = 64;

/// Looks for a value of the type that is not read as it was written.
///
/// # Errors
/// What is wrong with the type.
pub(crate) fn examine<T: Serialize + DeserializeOwned>() -> Result<(), String> {
    quietly(try_all::<T>)
}

fn try_all<T: Serialize + DeserializeOwned>() -> Result<(), String> {
    let mut variants = BTreeMap::new();
    for round in 0..ROUNDS {
        try_one::<T>(round, &mut variants)?;
        let is_left = variants
            .iter()
            .any(|((_, all), next)| *next < VISITS * all.len());
        if round >= LEAST && !is_left {
            break;
        }
    }
    Ok(())
}

/// Which variant of an enum comes next, by its name and those of its variants.
type Variants = BTreeMap<(&'static str, &'static [&'static str]), usize>;

fn try_one<T: Serialize + DeserializeOwned>(
    round: u32,
    variants: &mut Variants,
) -> Result<(), String> {
    let mut maker = Maker {
        round,
        variants,
        parts: PARTS,
        depth: DEPTH,
        first: None,
        flaw: None,
    };
    let made = guarded::catch(|| T::deserialize(&mut maker));
    let Maker { first, flaw, .. } = maker;
    let name = |why: String| match &first {
        Some((name, variant)) => format!("`{name}::{variant}`: {why}"),
        None => why,
    };
    match (made, flaw) {
        (Ok(Ok(value)), _) => {
            let checked = check(&value);
            forget(value);
            checked.map_err(name)
        }
        (Ok(Err(_)), Some(flaw)) => Err(name(flaw.to_owned())),
        _ => Ok(()),
    }
}

fn check<T: Serialize + DeserializeOwned>(value: &T) -> Result<(), String> {
    let mut bytes = Vec::new();
    if guarded::put(value, &mut bytes, LONGEST).is_err() {
        return match guarded::outline(value) {
            Some(Err(why)) if why.is_certain() => Err(why.to_string()),
            // It refuses to be written, or is endless, which shows when there is such a value.
            _ => Ok(()),
        };
    }
    match round_trip::make(value, &bytes, &mut Vec::new()) {
        Ok(again) => {
            forget(again);
            Ok(())
        }
        Err(difference) => Err(difference.to_string()),
    }
}

/// Makes values up.
struct Maker<'p> {
    /// The first is full, the second empty, the others mixed.
    round: u32,
    variants: &'p mut Variants,
    parts: u32,
    depth: u32,
    /// The first variant that was chosen.
    first: Option<(&'static str, &'static str)>,
    /// What makes it impossible to read the type.
    flaw: Option<&'static str>,
}

/// A value cannot be made up.
#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such value")
    }
}

impl std::error::Error for Refused {}

impl Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl Maker<'_> {
    fn part(&mut self) -> Result<(), Refused> {
        self.parts = self.parts.checked_sub(1).ok_or(Refused)?;
        Ok(())
    }

    /// Makes what lies within another value.
    fn within<T>(
        &mut self,
        make: impl FnOnce(&mut Self) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.part()?;
        self.depth = self.depth.checked_sub(1).ok_or(Refused)?;
        let made = make(self);
        self.depth += 1;
        made
    }

    /// Whether a part is something rather than nothing: by the round and by how many parts came
    /// before.
    fn is_full(&self) -> bool {
        match self.round {
            0 => true,
            1 => false,
            round => {
                let part = u64::from(round) << 32 | u64::from(self.parts);
                let mixed = part.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                mixed.count_ones().is_multiple_of(2)
            }
        }
    }

    /// Whether there is anything where there may be nothing.
    fn has_more(&mut self) -> Result<bool, Refused> {
        self.part()?;
        Ok(self.is_full() && self.depth > DEPTH / 2)
    }

    fn unreadable<T>(&mut self) -> Result<T, Refused> {
        self.flaw = Some(
            "it wants to be told what comes next, and its bytes do not tell \
             (`untagged`, `tag`, `flatten`, `serde_json::Value`)",
        );
        Err(Refused)
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $kind:ty)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            self.part()?;
            visitor.$visit(<$kind>::from(u8::from(self.is_full())))
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Maker<'_> {
    type Error = Refused;

    numbers! {
        deserialize_i16 visit_i16 i16
        deserialize_i32 visit_i32 i32
        deserialize_i64 visit_i64 i64
        deserialize_i128 visit_i128 i128
        deserialize_u8 visit_u8 u8
        deserialize_u16 visit_u16 u16
        deserialize_u32 visit_u32 u32
        deserialize_u64 visit_u64 u64
        deserialize_u128 visit_u128 u128
        deserialize_f32 visit_f32 f32
        deserialize_f64 visit_f64 f64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.part()?;
        visitor.visit_bool(self.is_full())
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.part()?;
        visitor.visit_i8(i8::from(self.is_full()))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_char('1')
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.part()?;
        visitor.visit_str(if self.is_full() { "1" } else { "" })
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.part()?;
        visitor.visit_bytes(if self.is_full() { &[1] } else { &[] })
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        if self.has_more()? {
            return self.within(|maker| visitor.visit_some(maker));
        }
        visitor.visit_none()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.within(|maker| visitor.visit_newtype_struct(maker))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let left = usize::from(self.has_more()?);
        self.deserialize_tuple(left, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.within(|maker| visitor.visit_seq(Several { maker, left }))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_tuple(left, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let left = usize::from(self.has_more()?);
        self.within(|maker| visitor.visit_map(Several { maker, left }))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let next = self.variants.entry((name, variants)).or_default();
        let index = *next % variants.len().max(1);
        *next += 1;
        let variant = variants.get(index).copied().unwrap_or_default();
        self.first.get_or_insert((name, variant));
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        self.within(|maker| visitor.visit_enum(Chosen { maker, index }))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        self.unreadable()
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        self.unreadable()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        self.unreadable()
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The elements of a sequence, or entries of a map, that are left.
struct Several<'m, 'p> {
    maker: &'m mut Maker<'p>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Several<'_, '_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refused> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.maker).map(Some)
    }
}

impl<'de> MapAccess<'de> for Several<'_, '_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refused> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        seed.deserialize(&mut *self.maker)
    }
}

/// A variant of an enum.
struct Chosen<'m, 'p> {
    maker: &'m mut Maker<'p>,
    index: u32,
}

impl<'de> EnumAccess<'de> for Chosen<'_, '_> {
    type Error = Refused;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Refused> {
        let variant = seed.deserialize(self.index.into_deserializer())?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Chosen<'_, '_> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refused> {
        seed.deserialize(self.maker)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.maker.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.maker.deserialize_tuple(fields.len(), visitor)
    }
}

#[cfg(test)]
mod tests {
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
}
