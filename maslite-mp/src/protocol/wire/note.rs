//! What stands last in a message: the note, and how long it is.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::links::codec;
use crate::links::transport::{Draft, DraftBuffer};

/// Something ends before it should.
pub(super) const END: postcard::Error = postcard::Error::DeserializeUnexpectedEnd;

/// Ends a message with its note; after an error nothing is appended.
pub(crate) fn put_note<T: Serialize>(note: &T, draft: &mut Draft<'_>) -> postcard::Result<()> {
    let start = draft.len();
    draft.put(note)?;
    // A link carries no longer messages.
    let length = u32::try_from(draft.len() - start).unwrap_or(u32::MAX);
    draft.extend(&length.to_le_bytes());
    Ok(())
}

/// A message of a note alone.
pub(crate) fn message<T: Serialize>(note: &T) -> postcard::Result<Vec<u8>> {
    let mut draft_buffer = DraftBuffer::default();
    put_note(note, &mut Draft::in_buffer(&mut draft_buffer))?;
    Ok(draft_buffer.into_bytes())
}

/// A message's note, and the bytes before it.
pub(crate) fn take_note<T: DeserializeOwned>(message: &[u8]) -> postcard::Result<(T, &[u8])> {
    let (rest, length) = message.split_last_chunk().ok_or(END)?;
    let length = u32::from_le_bytes(*length) as usize;
    let start = rest.len().checked_sub(length).ok_or(END)?;
    let (before, note) = rest.split_at(start);
    Ok((codec::decode(note).map_err(|_| END)?, before))
}

/// Takes the bytes of one mail, behind its length.
#[inline]
pub(crate) fn take_measured<'a>(bytes: &mut &'a [u8]) -> postcard::Result<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk().ok_or(END)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (taken, rest) = rest.split_at_checked(length).ok_or(END)?;
    *bytes = rest;
    Ok(taken)
}
