//! How values become bytes and bytes values: postcard, told where to write and what is left over.
//!
//! A struct whose fields are left out one time and not another
//! ([`Strict`](crate::links::strict::Strict)) is refused when it is written.

use std::fmt;

use postcard::ser_flavors::Flavor;
use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::links::strict::Whole;

/// Appends the encoding of a value; after an error nothing is appended.
pub(crate) fn put<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) -> postcard::Result<()> {
    let start = into.len();
    let put = postcard::serialize_with_flavor(&Whole(value), Appending(into));
    if put.is_err() {
        into.truncate(start);
    }
    put
}

/// Writes the encoding of a value to the front of some bytes, and tells how many it takes.
///
/// # Errors
/// Also [`SerializeBufferFull`](postcard::Error::SerializeBufferFull); what is written then is of
/// no use.
#[inline]
pub(crate) fn write<T: Serialize + ?Sized>(value: &T, space: &mut [u8]) -> postcard::Result<usize> {
    postcard::serialize_with_flavor(&Whole(value), Within { space, used: 0 })
}

/// Where postcard puts what it encodes: behind what is there.
pub(crate) struct Appending<'a>(pub(crate) &'a mut Vec<u8>);

/// The same within a fixed space, whose first `used` bytes are written.
pub(crate) struct Within<'a> {
    pub(crate) space: &'a mut [u8],
    pub(crate) used: usize,
}

/// Bytes up to which a slice is pushed byte by byte: a number is one byte or a few, and calling
/// upon `memcpy` for them takes longer than they do.
const SHORT: usize = 10;

impl Flavor for Appending<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if bytes.len() <= SHORT {
            bytes.iter().for_each(|byte| self.0.push(*byte));
        } else {
            self.0.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

impl Flavor for Within<'_> {
    type Output = usize;

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        let place = self.space.get_mut(self.used);
        *place.ok_or(postcard::Error::SerializeBufferFull)? = byte;
        self.used += 1;
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        let place = self.space.get_mut(self.used..self.used + bytes.len());
        let place = place.ok_or(postcard::Error::SerializeBufferFull)?;
        if bytes.len() <= SHORT {
            for (place, byte) in place.iter_mut().zip(bytes) {
                *place = *byte;
            }
        } else {
            place.copy_from_slice(bytes);
        }
        self.used += bytes.len();
        Ok(())
    }

    fn finalize(self) -> postcard::Result<usize> {
        Ok(self.used)
    }
}

/// Takes a value from the front of some bytes.
pub(crate) fn take<T: DeserializeOwned>(bytes: &mut &[u8]) -> postcard::Result<T> {
    let (value, rest) = postcard::take_from_bytes(bytes)?;
    *bytes = rest;
    Ok(value)
}

/// Why bytes are not a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misread {
    /// The value cannot be read from them.
    #[error(transparent)]
    Refused(#[from] postcard::Error),
    /// They are read as a value that is shorter.
    #[error("{0} bytes are left over behind it")]
    LeftOver(usize),
}

/// Decodes a value that is all there is.
#[inline]
pub(crate) fn decode<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<T, Misread> {
    let value = take(&mut bytes)?;
    if bytes.is_empty() {
        Ok(value)
    } else {
        Err(Misread::LeftOver(bytes.len()))
    }
}

/// Numbers as wide as they are, little endian: for those that are said again and again, and of
/// which none is worth a look at how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers<const N: usize>(pub(crate) [u64; N]);

impl<const N: usize> Serialize for Numbers<N> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.map(u64::to_le_bytes);
        serializer.serialize_bytes(bytes.as_flattened())
    }
}

impl<'de, const N: usize> Deserialize<'de> for Numbers<N> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<const N: usize>;

        impl<const N: usize> Visitor<'_> for Reader<N> {
            type Value = Numbers<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{N} numbers")
            }

            #[inline]
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                let (numbers, rest) = bytes.as_chunks();
                let numbers = <[[u8; 8]; N]>::try_from(numbers);
                match numbers {
                    Ok(numbers) if rest.is_empty() => Ok(Numbers(numbers.map(u64::from_le_bytes))),
                    _ => Err(E::invalid_length(bytes.len(), &self)),
                }
            }
        }

        deserializer.deserialize_bytes(Reader)
    }
}
