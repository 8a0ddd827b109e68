//! Digests of traces: 64 bits, the same in every placement.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fnv::fnv;
use crate::message::Delivery;
use crate::topic::TopicTable;
use crate::{AgentId, Message};

/// The digest of a trace. It is shown as 16 hexadecimal digits, also with `Debug` and as JSON.
///
/// ```
/// use maslite_core::Digest;
/// let digest = Digest::from(0xc0ff_ee00_0000_0001);
/// assert_eq!(format!("{digest} {digest:?}"), "c0ffee0000000001 c0ffee0000000001");
/// assert_eq!("c0ffee0000000001".parse(), Ok(digest));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(u64);

impl Digest {
    /// The 64 bits of the digest.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Returns the digest of the deliveries of both traces together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl From<u64> for Digest {
    fn from(bits: u64) -> Self {
        Self(bits)
    }
}

impl FromStr for Digest {
    type Err = ParseIntError;

    fn from_str(digits: &str) -> Result<Self, ParseIntError> {
        u64::from_str_radix(digits, 16).map(Self)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:016x}", self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::LowerHex for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u64::deserialize(deserializer).map(Self);
        }
        let digits = String::deserialize(deserializer)?;
        digits.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes the digest of a trace from its deliveries. The digest is a sum and does not depend on
/// the order of adding: clusters sum their own deliveries, and main adds the sums. The hash of each
/// delivery includes its place in the order of deliveries.
///
/// The hash of a delivery is `mix(Σ (field + c) · k)`, wrapping, over instant \[ns\], superstep,
/// receiver, delivery index at the receiver, sender, addressee (2⁶⁴ − 2 for a broadcast) and FNV-1a
/// of the topic's name, with a constant *k* per field; mix is the finalizer of SplitMix64. The
/// constants are written out in `docs/semantics.md`.
#[derive(Debug, Default)]
pub struct DigestSum {
    sum: u64,
    topics: TopicTable,
    topic_hashes: Vec<u64>,
}

/// The first digits of π, made odd.
const K: [u64; 7] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
    0xbe54_66cf_34e9_0c6d,
    0xc0ac_29b7_c97c_50dd,
];

impl DigestSum {
    /// Goes on from a digest.
    #[must_use]
    pub fn resumed(digest: Digest) -> Self {
        let sum = digest.0;
        Self {
            sum,
            ..Self::default()
        }
    }

    /// Goes back to an earlier digest of its own.
    pub(crate) fn go_back(&mut self, digest: Digest) {
        self.sum = digest.0;
    }

    /// Returns the digest of the deliveries so far.
    #[must_use]
    pub fn value(&self) -> Digest {
        Digest(self.sum)
    }

    /// Adds a delivery. Returns the sum over its place, topic and addresses, which a content digest
    /// needs, and the hash of the delivery.
    #[inline]
    pub fn add<M: Message>(&mut self, delivery: &Delivery<'_, M>) -> (u64, u64) {
        let topic = delivery.mail.topic();
        let number = self.topics.number(topic) as usize;
        if self.topic_hashes.len() <= number {
            self.topic_hashes.push(fnv(topic.as_str().as_bytes()));
        }
        let fields = [
            delivery.time.as_nanos(),
            delivery.superstep,
            delivery.agent.as_u64(),
            delivery.nth,
            delivery.mail.sender.as_u64(),
            delivery
                .mail
                .receiver
                .agent()
                .unwrap_or(AgentId::NOBODY)
                .as_u64(),
            self.topic_hashes[number],
        ];
        let mut hash = 0_u64;
        for (field, k) in fields.into_iter().zip(K) {
            hash = hash.wrapping_add(field.wrapping_add(k >> 7).wrapping_mul(k));
        }
        let mixed = mix(hash);
        self.sum = self.sum.wrapping_add(mixed);
        (hash, mixed)
    }
}

/// Computes the content digest of a trace from its deliveries and their messages. The hash of a
/// delivery is that of [`DigestSum`] with an eighth field: the hash of the message in postcard's
/// encoding, eight bytes at a time.
#[derive(Debug, Default)]
pub struct ContentSum {
    sum: u64,
    /// A buffer that is reused.
    bytes: Vec<u8>,
}

/// The digits of π that come next.
const CONTENT_K: u64 = 0x3f84_d5b5_b547_0917;

impl ContentSum {
    /// Goes on from a content digest.
    #[must_use]
    pub fn resumed(digest: Digest) -> Self {
        let sum = digest.0;
        Self {
            sum,
            ..Self::default()
        }
    }

    /// Goes back to an earlier content digest of its own.
    pub(crate) fn go_back(&mut self, digest: Digest) {
        self.sum = digest.0;
    }

    /// Returns the content digest of the deliveries so far.
    #[must_use]
    pub fn value(&self) -> Digest {
        Digest(self.sum)
    }

    /// Adds a delivery. `place` is what [`DigestSum::add`] returned for it. Returns the hash of the
    /// delivery.
    ///
    /// # Errors
    /// If the message cannot be serialised.
    pub fn add<M: Serialize>(&mut self, place: u64, body: &M) -> Result<u64, String> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        self.bytes = postcard::to_extend(body, bytes).map_err(|why| why.to_string())?;
        let field = hash_bytes(&self.bytes);
        let hash = place.wrapping_add(field.wrapping_add(CONTENT_K >> 7).wrapping_mul(CONTENT_K));
        let hash = mix(hash);
        self.sum = self.sum.wrapping_add(hash);
        Ok(hash)
    }
}

/// Hashes bytes: mixes their number with eight bytes at a time, little endian. The last number is
/// padded with zeros.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let start = bytes.len() as u64;
    let hash = words
        .iter()
        .fold(start, |hash, word| mix(hash ^ u64::from_le_bytes(*word)));
    if rest.is_empty() {
        return hash;
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(hash ^ u64::from_le_bytes(last))
}

/// The finalizer of SplitMix64.
#[inline]
fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_prints_as_it_reads() {
        let digest = Digest::from(0xabc);
        let text = "0000000000000abc";
        assert_eq!(
            format!("{digest} {digest:?} {digest:016x}"),
            format!("{text} {text} {text}")
        );
        assert_eq!(format!("{:?}", Some(digest)), format!("Some({text})"));
        assert_eq!(text.parse(), Ok(digest));
        assert!("no digest".parse::<Digest>().is_err());
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        assert_eq!(
            Digest::from(u64::MAX).with(Digest::from(3)),
            Digest::from(2)
        );
    }
}
