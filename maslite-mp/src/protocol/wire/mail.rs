//! Mail as bytes: envelope, body and lines of the trace.

use maslite_core::internal::MailKey;
use maslite_core::{AgentId, Mail, Receiver, SimTime};
use postcard::ser_flavors::Flavor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::links::codec::{self, Appending, Misread, Within};
use crate::links::strict::Whole;
use crate::protocol::wire::note::{END, take_measured};

/// What is known of mail without its message.
///
/// | bytes | meaning |
/// |---|---|
/// | 4 | the length of all that follows of this mail, its message included |
/// | 1 | the kind of receiver: 0 an agent, 1 it directly, 2 subscribers; 4 more for mail under a lookahead, 8 more for a copy |
/// | 24, 8 | key, sender |
/// | 8 | the receiver, if it is an agent |
/// | 8, 8 | when it arrives and when it left, under a lookahead |
///
/// Numbers have a fixed width and are little endian: there may be millions of them in a second, and
/// none leaves the machine.
///
/// Each mail has its length, so a message that reads fewer or more bytes than it wrote harms no
/// other mail, and is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MailHead {
    pub(crate) key: MailKey,
    pub(crate) sender: AgentId,
    pub(crate) receiver: Receiver,
    /// When it arrives and when it left, under a lookahead; otherwise zero.
    pub(crate) arrives: SimTime,
    pub(crate) left: SimTime,
    /// It is for those who listen to such mail: its receiver lives in another cluster, which counts
    /// it.
    pub(crate) is_copy: bool,
}

/// In the first byte of a head, beside the kind of receiver.
const TIMED: u8 = 4;

const COPY: u8 = 8;

/// Bytes of the length before each mail.
const LENGTH: usize = 4;

/// Bytes of the shortest mail: the head of one to subscribers.
pub(crate) const SHORTEST_MAIL: usize = LENGTH + 1 + 8 * 4;

/// Bytes of the longest head, the length before it included.
const LONGEST_HEAD: usize = LENGTH + 1 + 8 * 7;

/// Marks encoded mail as a copy.
pub(crate) fn mark_copy(mail: &mut [u8]) {
    if let Some(kind) = mail.get_mut(LENGTH) {
        *kind |= COPY;
    }
}

impl MailHead {
    /// Hands its encoding to a flavor of postcard.
    #[inline]
    fn put(&self, into: &mut impl Flavor) -> postcard::Result<()> {
        let mut bytes = [0; LONGEST_HEAD];
        let end = self.write(&mut bytes);
        into.try_extend(&bytes[..end])
    }

    /// Writes its encoding behind the place of the length, and tells where it ends.
    #[inline]
    fn write(&self, bytes: &mut [u8; LONGEST_HEAD]) -> usize {
        let mut end = LENGTH + 1;
        let mut write = |number: u64| {
            bytes[end..end + 8].copy_from_slice(&number.to_le_bytes());
            end += 8;
        };
        self.key.to_numbers().into_iter().for_each(&mut write);
        write(self.sender.as_u64());
        let kind = match self.receiver {
            Receiver::Agent(_) => 0,
            Receiver::Direct(_) => 1,
            Receiver::Subscribers => 2,
        };
        if let Some(id) = self.receiver.agent() {
            write(id.as_u64());
        }
        let is_timed = self.arrives > SimTime::ZERO;
        if is_timed {
            write(self.arrives.as_nanos());
            write(self.left.as_nanos());
        }
        bytes[LENGTH] =
            kind | if is_timed { TIMED } else { 0 } | if self.is_copy { COPY } else { 0 };
        end
    }

    /// Bytes of its encoding, the length before it included.
    #[inline]
    pub(crate) fn length(&self) -> usize {
        let receiver = self.receiver.agent().map_or(0, |_| 8);
        let times = if self.arrives > SimTime::ZERO { 16 } else { 0 };
        SHORTEST_MAIL + receiver + times
    }

    /// Takes the head from the front of a mail, behind its length.
    #[inline]
    pub(crate) fn take(bytes: &mut &[u8]) -> postcard::Result<Self> {
        // What every head has is looked for once.
        let (always, mut rest) = bytes
            .split_first_chunk::<{ SHORTEST_MAIL - LENGTH }>()
            .ok_or(END)?;
        let [kind, numbers @ ..] = always;
        let (numbers, _) = numbers.as_chunks();
        let number = |place: usize| u64::from_le_bytes(numbers[place]);
        let mut read = || {
            let (number, after) = rest.split_first_chunk().ok_or(END)?;
            rest = after;
            Ok(u64::from_le_bytes(*number))
        };
        let receiver = match kind & !(TIMED | COPY) {
            0 => Receiver::Agent(AgentId::from_u64(read()?)),
            1 => Receiver::Direct(AgentId::from_u64(read()?)),
            2 => Receiver::Subscribers,
            _ => return Err(postcard::Error::DeserializeBadEnum),
        };
        let mut times = [SimTime::ZERO; 2];
        if kind & TIMED != 0 {
            times = [SimTime::from_nanos(read()?), SimTime::from_nanos(read()?)];
        }
        *bytes = rest;
        let [arrives, left] = times;
        Ok(Self {
            key: MailKey::from_numbers([number(0), number(1), number(2)]),
            sender: AgentId::from_u64(number(3)),
            receiver,
            arrives,
            left,
            is_copy: kind & COPY != 0,
        })
    }
}

/// One delivery, as it is written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TraceLine {
    pub(crate) time: SimTime,
    pub(crate) superstep: u64,
    /// The insertion index of the agent.
    pub(crate) index: u64,
    pub(crate) text: String,
}

/// Appends one mail to a batch; after an error nothing is appended.
pub(crate) fn put_mail<M: Serialize>(
    head: &MailHead,
    body: &M,
    into: &mut Vec<u8>,
) -> postcard::Result<()> {
    let start = into.len();
    let put = head.put(&mut Appending(into));
    let put = put.and_then(|()| postcard::serialize_with_flavor(&Whole(body), Appending(into)));
    if put.is_err() {
        into.truncate(start);
    } else {
        write_length(&mut into[start..]);
    }
    put
}

/// Writes its length to the front of a mail.
#[inline]
fn write_length(mail: &mut [u8]) {
    // A link carries no longer messages.
    let length = u32::try_from(mail.len() - LENGTH).unwrap_or(u32::MAX);
    mail[..LENGTH].copy_from_slice(&length.to_le_bytes());
}

/// Writes one mail to the front of some bytes, and tells how many it takes.
///
/// # Errors
/// Also when it does not fit; what is written then is of no use.
#[inline]
pub(crate) fn write_mail<M: Serialize>(
    head: &MailHead,
    body: &M,
    space: &mut [u8],
) -> postcard::Result<usize> {
    let head = if let Some(room) = space.first_chunk_mut() {
        head.write(room)
    } else {
        let mut within = Within {
            space: &mut *space,
            used: 0,
        };
        head.put(&mut within)?;
        within.used
    };
    let length = head + codec::write(body, &mut space[head..])?;
    write_length(&mut space[..length]);
    Ok(length)
}

/// What is wrong with encoded mail.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MailFlaw {
    /// It ends too early, or its head is none.
    Head,
    /// Its message does not deserialise, or leaves bytes over.
    Body(Box<BadBody>),
}

/// Mail with a message that does not deserialise.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadBody {
    pub(crate) head: MailHead,
    /// The number of the enum's variant, if it is an enum.
    pub(crate) variant: Option<u32>,
    pub(crate) why: Misread,
}

/// Takes one mail from a batch.
#[inline]
pub(crate) fn take_mail<M: DeserializeOwned>(
    bytes: &mut &[u8],
) -> Result<(MailHead, Mail<M>), MailFlaw> {
    let Ok(mut mail) = take_measured(bytes) else {
        return Err(MailFlaw::Head);
    };
    let Ok(head) = MailHead::take(&mut mail) else {
        return Err(MailFlaw::Head);
    };
    let whole = mail;
    match codec::take(&mut mail) {
        Ok(body) if mail.is_empty() => Ok((head, Mail::new(head.sender, head.receiver, body))),
        Ok(_) => Err(bad_body(head, whole, Misread::LeftOver(mail.len()))),
        Err(why) => Err(bad_body(head, whole, why.into())),
    }
}

#[cold]
#[inline(never)]
fn bad_body(head: MailHead, mut body: &[u8], why: Misread) -> MailFlaw {
    let variant = codec::take(&mut body).ok();
    MailFlaw::Body(Box::new(BadBody { head, variant, why }))
}
