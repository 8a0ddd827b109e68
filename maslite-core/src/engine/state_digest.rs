//! The digest of a state: 64 bits of all that agents are and have before them, the same in every
//! placement.

use serde::Serialize;

use super::EngineState;
use crate::digest::{Digest, hash_bytes};

impl<M: Serialize> EngineState<M> {
    /// The digest of this state. The digests of the engines of one simulation add up to that of the
    /// simulation: it is a sum over agents, the mail in their inboxes, alarms and periodic alarms.
    ///
    /// The hash of each is that of [`hash_bytes`] over its encoding with postcard: what the kernel
    /// knows of it, and the encoded state of the agent or the message. How agents are divided into
    /// clusters, and what was counted so far, is not in it.
    ///
    /// # Errors
    /// If a message cannot be encoded.
    pub fn digest(&self) -> Result<Digest, String> {
        let mut sum = Sum::default();
        let kernel = &self.kernel;
        for (slot, (kind, state)) in kernel.slots.iter().zip(self.agents.each()) {
            let mut patterns = slot.patterns.clone();
            patterns.sort_unstable();
            let known = (slot.index, slot.sequence, slot.delivered, slot.flags);
            sum.add(&("agent", slot.id, known, &slot.rng, patterns, kind, state))?;
            for (place, mail) in slot.inbox.iter().enumerate() {
                let mail = &kernel.posted[*mail as usize];
                let head = (mail.key, mail.sender, mail.receiver);
                sum.add(&("mail", slot.id, place, head, &mail.body))?;
            }
        }
        for alarm in &kernel.alarms {
            let mail = &alarm.mail;
            let marks = mail.marks & super::saving::MARKS_OF_ALARMS;
            let head = (mail.key, mail.sender, mail.receiver, marks);
            sum.add(&("alarm", alarm.time, head, &mail.body))?;
        }
        for periodic in &kernel.periodics {
            sum.add(&("periodic", periodic))?;
        }
        Ok(Digest::from(sum.sum))
    }
}

/// A sum of hashes.
#[derive(Default)]
struct Sum {
    sum: u64,
    /// A buffer that is reused.
    bytes: Vec<u8>,
}

impl Sum {
    fn add<T: Serialize>(&mut self, part: &T) -> Result<(), String> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        self.bytes = postcard::to_extend(part, bytes).map_err(|why| why.to_string())?;
        self.sum = self.sum.wrapping_add(hash_bytes(&self.bytes));
        Ok(())
    }
}
