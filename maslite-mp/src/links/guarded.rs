//! Serialises agents and messages for requests: what their types do then harms neither the cluster
//! nor main.
//!
//! - A panic is an error.
//! - What is written has a limit, and what is over it is never in memory.
//! - What is nested too deeply is refused before the stack overflows.

use std::any::Any;
use std::cell::Cell;
use std::fmt::Display;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use crate::links::codec;
use crate::links::outline::{self, Unwritten};
use crate::links::strict::Whole;

/// The longest answer of one cluster \[bytes\].
pub(crate) const ANSWER_LIMIT: usize = 256 * 1024 * 1024;

/// How many values may lie within each other.
const DEPTH_LIMIT: u32 = 500;

/// The same in JSON: readers of it give up at 128, and an answer has levels of its own.
const SHOWN_DEPTH_LIMIT: u32 = 100;

/// How much stack serialising one value may take \[bytes\].
const STACK_LIMIT: usize = 512 * 1024;

/// Calls what a program has written. A panic is its message.
pub(crate) fn catch<T>(what: impl FnOnce() -> T) -> Result<T, String> {
    // The state of an agent that panics while it is looked at is the agent's own matter.
    catch_unwind(AssertUnwindSafe(what)).map_err(|payload| {
        let message = message(&*payload);
        // Its `Drop` may panic, too.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        message
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// Appends the encoding of a value, of at most `limit` bytes; after an error nothing is appended.
///
/// # Errors
/// Why not, in words that go on "it cannot be serialised: …".
pub(crate) fn put<T: Serialize + ?Sized>(
    value: &T,
    into: &mut Vec<u8>,
    limit: usize,
) -> Result<(), String> {
    let start = into.len();
    let depth = Depth::new(DEPTH_LIMIT);
    let put = catch(|| {
        let end = start.saturating_add(limit);
        let value = Whole(value);
        let value = Nested::new(&value, &depth);
        postcard::serialize_with_flavor(&value, Bounded { into, end })
    });
    let why = match put {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(postcard::Error::SerializeBufferFull)) => too_long(limit),
        Ok(Err(why)) => depth.or(why),
        Err(panic) => panicked("Serialize", &panic),
    };
    into.truncate(start);
    Err(why)
}

/// The outline of a value. None if it panics.
pub(crate) fn outline<T: Serialize + ?Sized>(value: &T) -> Option<Result<u64, Unwritten>> {
    let depth = Depth::new(DEPTH_LIMIT);
    catch(|| outline::of(&Nested::new(value, &depth))).ok()
}

/// A value as JSON of at most `limit` bytes.
///
/// # Errors
/// Why not, in words that go on "it cannot be written as JSON: …".
pub(crate) fn show<T: Serialize + ?Sized>(value: &T, limit: usize) -> Result<String, String> {
    let mut text = Vec::new();
    let depth = Depth::new(SHOWN_DEPTH_LIMIT);
    let shown = catch(|| {
        let into = Room {
            into: &mut text,
            limit,
        };
        serde_json::to_writer(into, &Nested::new(value, &depth))
    });
    match shown {
        Ok(Ok(())) => String::from_utf8(text).map_err(|why| why.to_string()),
        Ok(Err(why)) if why.is_io() => Err(too_long(limit)),
        Ok(Err(why)) => Err(depth.or(why)),
        Err(panic) => Err(panicked("Serialize", &panic)),
    }
}

/// Decodes a value that is all there is.
///
/// # Errors
/// Why not, in words that go on "it cannot be deserialised: …".
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match catch(|| codec::decode(bytes)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(why)) => Err(why.to_string()),
        Err(panic) => Err(panicked("Deserialize", &panic)),
    }
}

fn too_long(limit: usize) -> String {
    format!("it is longer than the limit of {limit} bytes")
}

fn panicked(what: &str, message: &str) -> String {
    format!("its `{what}` panicked: {message}")
}

/// Puts what postcard encodes behind what is there, up to an end.
struct Bounded<'a> {
    into: &'a mut Vec<u8>,
    end: usize,
}

impl Flavor for Bounded<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if bytes.len() > self.end - self.into.len() {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.into.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The same for JSON.
struct Room<'a> {
    into: &'a mut Vec<u8>,
    limit: usize,
}

impl Write for Room<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.into.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.into.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// ---- how deeply values are nested

/// How deep a serialiser is in a value.
struct Depth {
    level: Cell<u32>,
    limit: u32,
    /// Where the stack was when it began, as far as an address of a local variable tells.
    base: usize,
    exceeded: Cell<bool>,
}

impl Depth {
    #[inline(never)]
    fn new(limit: u32) -> Self {
        Self {
            level: Cell::new(0),
            limit,
            base: here(),
            exceeded: Cell::new(false),
        }
    }

    fn may_enter(&self) -> bool {
        let may = self.level.get() < self.limit && here().abs_diff(self.base) < STACK_LIMIT;
        if !may {
            self.exceeded.set(true);
        }
        may
    }

    /// The reason of an error: this one, or what the serialiser says.
    fn or(&self, why: impl Display) -> String {
        if self.exceeded.get() {
            "it is nested too deeply".to_owned()
        } else {
            why.to_string()
        }
    }
}

/// About where the top of the stack is.
#[inline(never)]
fn here() -> usize {
    let local = 0_u8;
    std::hint::black_box(&raw const local).addr()
}

/// A value in another, or a part of a serialiser that knows how deep it is.
struct Nested<'a, T> {
    of: T,
    depth: &'a Depth,
}

impl<'a, T> Nested<'a, T> {
    fn new(of: T, depth: &'a Depth) -> Self {
        Self { of, depth }
    }

    fn around<U, E>(self, part: impl FnOnce(T) -> Result<U, E>) -> Result<Nested<'a, U>, E> {
        let depth = self.depth;
        part(self.of).map(|of| Nested { of, depth })
    }
}

impl<T: Serialize + ?Sized> Serialize for Nested<'_, &T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.depth.may_enter() {
            return Err(S::Error::custom("it is nested too deeply"));
        }
        let level = &self.depth.level;
        level.set(level.get() + 1);
        let done = self.of.serialize(Nested::new(serializer, self.depth));
        level.set(level.get() - 1);
        done
    }
}

/// Passes plain values on.
macro_rules! plain {
    ($($method:ident: $kind:ty,)*) => {
        $(fn $method(self, value: $kind) -> Result<S::Ok, S::Error> {
            self.of.$method(value)
        })*
    };
}

impl<'a, S: Serializer> Serializer for Nested<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Nested<'a, S::SerializeSeq>;
    type SerializeTuple = Nested<'a, S::SerializeTuple>;
    type SerializeTupleStruct = Nested<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Nested<'a, S::SerializeTupleVariant>;
    type SerializeMap = Nested<'a, S::SerializeMap>;
    type SerializeStruct = Nested<'a, S::SerializeStruct>;
    type SerializeStructVariant = Nested<'a, S::SerializeStructVariant>;

    plain! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
        serialize_str: &str,
        serialize_bytes: &[u8],
        serialize_unit_struct: &'static str,
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.of.serialize_none()
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.of.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.of.serialize_some(&Nested::new(value, self.depth))
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.of.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let value = Nested::new(value, self.depth);
        self.of.serialize_newtype_struct(name, &value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let value = Nested::new(value, self.depth);
        self.of
            .serialize_newtype_variant(name, index, variant, &value)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.around(|of| of.serialize_seq(length))
    }

    fn serialize_tuple(self, length: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.around(|of| of.serialize_tuple(length))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.around(|of| of.serialize_tuple_struct(name, length))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.around(|of| of.serialize_tuple_variant(name, index, variant, length))
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.around(|of| of.serialize_map(length))
    }

    fn serialize_struct(
        self,
        name: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        self.around(|of| of.serialize_struct(name, length))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.around(|of| of.serialize_struct_variant(name, index, variant, length))
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.of.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.of.is_human_readable()
    }
}

/// Passes elements on, each a level deeper.
macro_rules! elements {
    ($($kind:ident: $($method:ident)*,)*) => {
        $(impl<C: $kind> $kind for Nested<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;
            $(fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                self.of.$method(&Nested::new(value, self.depth))
            })*
            fn end(self) -> Result<C::Ok, C::Error> {
                self.of.end()
            }
        })*
    };
}

elements! {
    SerializeSeq: serialize_element,
    SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field,
    SerializeMap: serialize_key serialize_value,
}

/// The same with their names.
macro_rules! fields {
    ($($kind:ident,)*) => {
        $(impl<C: $kind> $kind for Nested<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), C::Error> {
                self.of.serialize_field(name, &Nested::new(value, self.depth))
            }
            fn skip_field(&mut self, name: &'static str) -> Result<(), C::Error> {
                self.of.skip_field(name)
            }
            fn end(self) -> Result<C::Ok, C::Error> {
                self.of.end()
            }
        })*
    };
}

fields! {
    SerializeStruct,
    SerializeStructVariant,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum All {
        Unit,
        New(u8),
        Tuple(i64, f64),
        Struct { a: Option<char>, b: Vec<All> },
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Every {
        all: Vec<All>,
        map: BTreeMap<String, (u128, bool)>,
        pair: Pair,
        unit: (),
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Pair(i8, std::net::Ipv4Addr);

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Chain {
        next: Option<Box<Chain>>,
    }

    fn chain(length: usize) -> Chain {
        let mut chain = Chain { next: None };
        for _ in 1..length {
            let next = Some(Box::new(chain));
            chain = Chain { next };
        }
        chain
    }

    struct Sick;

    impl Serialize for Sick {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("out of {}", "paint")
        }
    }

    /// Contains itself, and never writes a byte.
    struct Endless;

    impl Serialize for Endless {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_newtype_struct("Endless", self)
        }
    }

    fn put_of<T: Serialize>(value: &T, limit: usize) -> Result<Vec<u8>, String> {
        let mut bytes = vec![7];
        let put = put(value, &mut bytes, limit);
        assert_eq!(bytes[0], 7);
        assert!(put.is_ok() || bytes.len() == 1);
        put.map(|()| bytes[1..].to_vec())
    }

    #[test]
    fn what_is_written_is_what_would_be_without_a_guard() {
        let some = All::Struct {
            a: Some('x'),
            b: vec![All::Unit, All::New(3), All::Tuple(-4, 0.5)],
        };
        let every = Every {
            all: vec![some, All::Struct { a: None, b: vec![] }],
            map: [("k".to_owned(), (1 << 100, true))].into(),
            pair: Pair(-1, [10, 0, 0, 1].into()),
            unit: (),
            bytes: vec![1, 2, 3],
        };
        let mut plain = Vec::new();
        codec::put(&every, &mut plain).unwrap();
        assert_eq!(put_of(&every, 1_000), Ok(plain.clone()));
        assert_eq!(
            show(&every, 1_000),
            serde_json::to_string(&every).map_err(|_| String::new())
        );
        assert_eq!(decode::<Every>(&plain), Ok(every));
    }

    #[test]
    fn the_limit_is_exact() {
        let text = "x".repeat(50);
        assert!(put_of(&text, 51).is_ok());
        assert_eq!(
            put_of(&text, 50).unwrap_err(),
            "it is longer than the limit of 50 bytes"
        );
        assert!(show(&text, 52).is_ok());
        assert_eq!(
            show(&text, 51).unwrap_err(),
            "it is longer than the limit of 51 bytes"
        );
    }

    #[test]
    fn a_panic_is_an_error() {
        let why = "its `Serialize` panicked: out of paint";
        assert_eq!(put_of(&vec![Sick], 100).unwrap_err(), why);
        assert_eq!(show(&[Sick], 100).unwrap_err(), why);
    }

    #[test]
    fn what_is_nested_too_deeply_is_refused() {
        // A level for the structure, and one for what is in the option.
        let (longest, shown) = (DEPTH_LIMIT as usize / 2, SHOWN_DEPTH_LIMIT as usize / 2);
        for length in [1, shown, shown + 1, longest, longest + 1, 100_000] {
            let mut chain = chain(length);
            let why = "it is nested too deeply".to_owned();
            let text = show(&chain, ANSWER_LIMIT).map(drop);
            let expected = if length > shown {
                Err(why.clone())
            } else {
                Ok(())
            };
            assert_eq!(text, expected, "{length}");
            match put_of(&chain, ANSWER_LIMIT) {
                Ok(bytes) => assert_eq!(decode(&bytes).as_ref(), Ok(&chain)),
                Err(refused) => assert_eq!((refused, length > longest), (why, true)),
            }
            // Dropping it recursively would be what overflows.
            while let Some(next) = chain.next.take() {
                chain = *next;
            }
        }
        assert_eq!(
            put_of(&Endless, 100).unwrap_err(),
            "it is nested too deeply"
        );
        assert_eq!(show(&Endless, 100).unwrap_err(), "it is nested too deeply");
    }
}
