//! Whether a type is read as it is written, found out before there is a value of it.
//!
//! Its `Deserialize` is given made-up values: each variant of each enum in turn, first with
//! numbers, texts and elements, then with nothing, then with some of them. What comes out makes a
//! round trip. A type that refuses what was made up says nothing of itself, which is no error: its
//! first values show it. Nothing that was made up is dropped, because dropping it may do something.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::forget;

use maslite_core::internal::{Fnv, quietly};
use serde::Serialize;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer,
    MapAccess, SeqAccess, VariantAccess, Visitor,
};

use crate::links::{guarded, round_trip};

/// How many values of a type are made up, at most and at least.
const ROUNDS: u32 = 2_000;
const LEAST: u32 = 32;

/// How often each variant is made up, unless that takes too many values.
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

/// A number for the shape of a type: what it asks for when it is read, with the names of fields and
/// variants. Types with other fields or variants have another shape.
pub(crate) fn shape<T: DeserializeOwned>() -> u64 {
    let mut shape = Fnv::default();
    let _ = quietly(|| {
        in_rounds(|round, variants| {
            let mut maker = Maker::new(round, variants);
            let made = guarded::catch(|| T::deserialize(&mut maker));
            if let Ok(Ok(value)) = made {
                forget(value);
            }
            maker.shape.finish().hash(&mut shape);
            Ok(())
        })
    });
    shape.finish()
}

fn try_all<T: Serialize + DeserializeOwned>() -> Result<(), String> {
    in_rounds(try_one::<T>)
}

/// Makes values up until each variant has come often enough.
fn in_rounds(mut make: impl FnMut(u32, &mut Variants) -> Result<(), String>) -> Result<(), String> {
    let mut variants = BTreeMap::new();
    for round in 0..ROUNDS {
        make(round, &mut variants)?;
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
    let mut maker = Maker::new(round, variants);
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
    /// What it was asked for.
    shape: Fnv,
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

impl<'p> Maker<'p> {
    fn new(round: u32, variants: &'p mut Variants) -> Self {
        Self {
            round,
            variants,
            parts: PARTS,
            depth: DEPTH,
            first: None,
            flaw: None,
            shape: Fnv::default(),
        }
    }

    /// Notes what it is asked for.
    fn note(&mut self, what: &str) {
        what.hash(&mut self.shape);
    }

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
            self.note(stringify!($method));
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
        self.note("bool");
        self.part()?;
        visitor.visit_bool(self.is_full())
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note("i8");
        self.part()?;
        visitor.visit_i8(i8::from(self.is_full()))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note("char");
        visitor.visit_char('1')
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note("str");
        self.part()?;
        visitor.visit_str(if self.is_full() { "1" } else { "" })
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note("bytes");
        self.part()?;
        visitor.visit_bytes(if self.is_full() { &[1] } else { &[] })
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note("option");
        if self.has_more()? {
            return self.within(|maker| visitor.visit_some(maker));
        }
        visitor.visit_none()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note("unit");
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
        self.note("seq");
        let left = usize::from(self.has_more()?);
        self.deserialize_tuple(left, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.note("tuple");
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
        self.note("map");
        let left = usize::from(self.has_more()?);
        self.within(|maker| visitor.visit_map(Several { maker, left }))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        fields.iter().for_each(|field| self.note(field));
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        variants.iter().for_each(|variant| self.note(variant));
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
mod tests;
