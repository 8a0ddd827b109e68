//! A field that few messages fill: it costs the others a word in memory and a byte on the link.

use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};

/// A value of which there is one that says nothing.
pub(crate) trait Blank: Default + PartialEq + 'static {
    /// It says nothing.
    const BLANK: &'static Self;
}

/// A value that nearly always says nothing. It reads as that then; the first write to it has it
/// made.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Rare<T>(Option<Box<T>>);

impl<T> Rare<T> {
    /// Whether it is known to say nothing, without a look at what it says.
    #[inline]
    pub(crate) fn is_blank(&self) -> bool {
        self.0.is_none()
    }

    /// Takes out what it says, if anything.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Box<T>> {
        self.0.take()
    }
}

impl<T> Default for Rare<T> {
    #[inline]
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Blank> From<T> for Rare<T> {
    #[inline]
    fn from(value: T) -> Self {
        Self((value != *T::BLANK).then(|| Box::new(value)))
    }
}

impl<T: Blank> Deref for Rare<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::BLANK)
    }
}

impl<T: Blank> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}
