//! A number for what a value tells serde: equal for values that are written alike.
//!
//! The entries of maps and the elements of sequences count in any order, because a `HashMap` or a
//! `HashSet` that was read again has another order. All else counts in order, with the names of
//! fields and variants.

use std::fmt;

use serde::Serialize;
use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use crate::links::strict::left_out;

/// The outline of a value.
///
/// # Errors
/// Why it cannot be written, in the words of its type.
pub(crate) fn of<T: Serialize + ?Sized>(value: &T) -> Result<u64, Unwritten> {
    value.serialize(Outline)
}

/// Why a value cannot be written.
#[derive(Debug)]
pub(crate) struct Unwritten {
    why: String,
    /// No value like it can be written.
    is_certain: bool,
}

impl Unwritten {
    /// Whether it is wrong however the value is read, not for a reason of its type alone.
    pub(crate) fn is_certain(&self) -> bool {
        self.is_certain
    }

    fn certain(self) -> Self {
        let is_certain = true;
        Self { is_certain, ..self }
    }
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Unwritten {}

impl Error for Unwritten {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self {
            why: why.to_string(),
            is_certain: false,
        }
    }
}

/// One step of SplitMix64 over both numbers.
fn mix(state: u64, number: u64) -> u64 {
    let z = state.rotate_left(5).wrapping_add(0x9e37_79b9_7f4a_7c15) ^ number;
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn mix_bytes(state: u64, bytes: &[u8]) -> u64 {
    let state = mix(state, bytes.len() as u64);
    bytes
        .iter()
        .fold(state, |state, byte| mix(state, u64::from(*byte)))
}

/// What kind of thing a number stands for.
#[derive(Clone, Copy)]
enum ShapeKind {
    Number = 1,
    Text,
    Bytes,
    None,
    Some,
    Unit,
    Variant,
    Several,
}

struct Outline;

/// The parts of a value, as they are written.
struct Parts {
    sum: u64,
    /// In order.
    chain: u64,
    key: u64,
}

impl Parts {
    fn of(kind: u64) -> Self {
        Self {
            sum: 0,
            chain: mix(ShapeKind::Several as u64, kind),
            key: 0,
        }
    }

    fn of_variant(name: &str, index: u32) -> Self {
        Self::of(mix_bytes(variant(index), name.as_bytes()))
    }

    fn add(&mut self, part: u64) {
        self.chain = mix(self.chain, part);
    }

    fn add_in_any_order(&mut self, part: u64) {
        self.sum = self.sum.wrapping_add(part);
    }

    fn finish(self) -> u64 {
        mix(self.chain, self.sum)
    }
}

fn variant(index: u32) -> u64 {
    mix(ShapeKind::Variant as u64, index.into())
}

macro_rules! numbers {
    ($($method:ident($kind:ty): $to:expr)*) => {$(
        fn $method(self, value: $kind) -> Result<u64, Unwritten> {
            let to: fn($kind) -> u64 = $to;
            Ok(mix(ShapeKind::Number as u64, to(value)))
        }
    )*};
}

impl Serializer for Outline {
    type Ok = u64;
    type Error = Unwritten;
    type SerializeSeq = Parts;
    type SerializeTuple = Parts;
    type SerializeTupleStruct = Parts;
    type SerializeTupleVariant = Parts;
    type SerializeMap = Parts;
    type SerializeStruct = Parts;
    type SerializeStructVariant = Parts;

    numbers! {
        serialize_bool(bool): u64::from
        serialize_i8(i8): |it| i64::from(it).cast_unsigned()
        serialize_i16(i16): |it| i64::from(it).cast_unsigned()
        serialize_i32(i32): |it| i64::from(it).cast_unsigned()
        serialize_i64(i64): i64::cast_unsigned
        serialize_i128(i128): |it| wide(it.cast_unsigned())
        serialize_u8(u8): u64::from
        serialize_u16(u16): u64::from
        serialize_u32(u32): u64::from
        serialize_u64(u64): |it| it
        serialize_u128(u128): wide
        serialize_f32(f32): |it| it.to_bits().into()
        serialize_f64(f64): f64::to_bits
        serialize_char(char): |it| u32::from(it).into()
    }

    fn serialize_str(self, value: &str) -> Result<u64, Unwritten> {
        Ok(mix_bytes(ShapeKind::Text as u64, value.as_bytes()))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<u64, Unwritten> {
        Ok(mix_bytes(ShapeKind::Bytes as u64, value))
    }

    fn serialize_none(self) -> Result<u64, Unwritten> {
        Ok(ShapeKind::None as u64)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<u64, Unwritten> {
        Ok(mix(ShapeKind::Some as u64, of(value)?))
    }

    fn serialize_unit(self) -> Result<u64, Unwritten> {
        Ok(ShapeKind::Unit as u64)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<u64, Unwritten> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        name: &'static str,
    ) -> Result<u64, Unwritten> {
        Ok(Parts::of_variant(name, index).finish())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<u64, Unwritten> {
        of(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        name: &'static str,
        value: &T,
    ) -> Result<u64, Unwritten> {
        let mut parts = Parts::of_variant(name, index);
        parts.add(of(value)?);
        Ok(parts.finish())
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Parts, Unwritten> {
        known(length)
    }

    fn serialize_tuple(self, length: usize) -> Result<Parts, Unwritten> {
        Ok(Parts::of(length as u64))
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Parts, Unwritten> {
        self.serialize_tuple(length)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Parts, Unwritten> {
        Ok(Parts::of_variant(name, index))
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Parts, Unwritten> {
        known(length)
    }

    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Parts, Unwritten> {
        self.serialize_tuple(length)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Parts, Unwritten> {
        Ok(Parts::of_variant(name, index))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Both halves of a number.
#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
fn wide(number: u128) -> u64 {
    mix((number >> 64) as u64, number as u64)
}

fn known(length: Option<usize>) -> Result<Parts, Unwritten> {
    match length {
        Some(length) => Ok(Parts::of(length as u64)),
        None => Err(Unwritten::custom(
            "it has a sequence or map whose length is not known when its writing begins (`flatten`)",
        )
        .certain()),
    }
}

impl SerializeSeq for Parts {
    type Ok = u64;
    type Error = Unwritten;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritten> {
        self.add_in_any_order(of(value)?);
        Ok(())
    }

    fn end(self) -> Result<u64, Unwritten> {
        Ok(self.finish())
    }
}

impl SerializeMap for Parts {
    type Ok = u64;
    type Error = Unwritten;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unwritten> {
        self.key = of(key)?;
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritten> {
        let entry = mix(self.key, of(value)?);
        self.add_in_any_order(entry);
        Ok(())
    }

    fn end(self) -> Result<u64, Unwritten> {
        Ok(self.finish())
    }
}

macro_rules! in_order {
    ($($part:ident $method:ident)*) => {$(
        impl $part for Parts {
            type Ok = u64;
            type Error = Unwritten;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritten> {
                self.add(of(value)?);
                Ok(())
            }

            fn end(self) -> Result<u64, Unwritten> {
                Ok(self.finish())
            }
        }
    )*};
}

in_order! {
    SerializeTuple serialize_element
    SerializeTupleStruct serialize_field
    SerializeTupleVariant serialize_field
}

macro_rules! with_names {
    ($($part:ident)*) => {$(
        impl $part for Parts {
            type Ok = u64;
            type Error = Unwritten;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Unwritten> {
                self.add(mix_bytes(of(value)?, name.as_bytes()));
                Ok(())
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), Unwritten> {
                let why: Unwritten = left_out(name);
                Err(why.certain())
            }

            fn end(self) -> Result<u64, Unwritten> {
                Ok(self.finish())
            }
        }
    )*};
}

with_names! { SerializeStruct SerializeStructVariant }

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap, HashSet};

    use super::*;

    #[derive(Serialize)]
    enum Word {
        Nothing,
        One(u8),
        Pair { first: u8, second: u8 },
    }

    fn outline<T: Serialize>(value: T) -> u64 {
        of(&value).unwrap()
    }

    #[test]
    fn what_is_written_otherwise_is_another_outline() {
        let pair = |first, second| outline(Word::Pair { first, second });
        let mut all = vec![
            outline(Word::Nothing),
            outline(Word::One(0)),
            outline(Word::One(1)),
            pair(1, 2),
            pair(2, 1),
            outline((1_u8, 2_u8)),
            outline((2_u8, 1_u8)),
            outline("1"),
            outline(1_u8),
            outline(Some(1_u8)),
            outline(None::<u8>),
            outline(()),
            outline(vec![1_u8]),
            outline(vec![1_u8, 2]),
            outline(1_u128 << 64),
            outline(BTreeMap::from([(1_u8, 2_u8)])),
            outline(BTreeMap::from([(2_u8, 1_u8)])),
        ];
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn sets_and_maps_have_one_outline_in_any_order() {
        let numbers = 0..100_u32;
        let sets = [(), ()].map(|()| outline(numbers.clone().collect::<HashSet<_>>()));
        assert_eq!(sets[0], sets[1]);
        let maps =
            [(), ()].map(|()| outline(numbers.clone().zip(1_u8..).collect::<HashMap<_, _>>()));
        assert_eq!(maps[0], maps[1]);
    }
}
