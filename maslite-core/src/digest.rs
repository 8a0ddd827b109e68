//! A fingerprint of a trace: 64 bits, the same on every placement.

use crate::agent::Delivery;
use crate::topic::TopicTable;
use crate::{AgentId, Message};

/// Sums up deliveries. The sum does not depend on their order, so clusters sum their own and the
/// supervisor adds them up; each delivery carries its place in the order within what is hashed.
///
/// The hash of a delivery is `mix(Σ (field + c) · k)`, wrapping, over instant \[ns\], superstep,
/// receiver, how manieth delivery to it, sender, addressee (2⁶⁴ − 2 for a broadcast) and FNV-1a of
/// the topic's name, with a constant *k* per field; mix is the finalizer of SplitMix64. The
/// constants are written out in `docs/semantics.md`.
#[derive(Debug, Default)]
pub struct Digest {
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

impl Digest {
    /// The sum so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.sum
    }

    /// Adds a delivery.
    #[inline]
    pub fn add<M: Message>(&mut self, delivery: &Delivery<'_, M>) {
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
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.sum = self.sum.wrapping_add(hash ^ (hash >> 31));
    }
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
