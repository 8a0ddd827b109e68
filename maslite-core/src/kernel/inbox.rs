//! An agent's inbox: a list of links to posted mail.

use std::fmt;

use crate::directory::NONE;

/// A list of links, first to last. The first lies here, so that an agent with a single mail, the
/// most common case, needs no other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inbox {
    pub(super) first: Link,
    /// The last of those behind the first, if there are any.
    pub(super) last: u32,
}

impl Inbox {
    pub(super) const EMPTY: Self = Self {
        first: Link::NOWHERE,
        last: NONE,
    };

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.mail() == NONE
    }

    /// Takes the oldest mail out.
    #[inline]
    pub(super) fn take_first(&mut self, links: &[Link]) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let mail = self.first.mail();
        self.first = match self.first.next() {
            NONE => Link::NOWHERE,
            next => links[next as usize],
        };
        Some(mail)
    }

    /// Adds mail behind a first one.
    pub(super) fn append(&mut self, mail: u32, links: &mut Vec<Link>) {
        let link = crate::narrow(links.len());
        links.push(Link::new(mail, NONE));
        let before = match self.first.next() {
            NONE => &mut self.first,
            _ => &mut links[self.last as usize],
        };
        before.lead_to(link);
        self.last = link;
    }
}

/// One mail in one inbox, and the link that comes next. Two numbers in one word: a processor that
/// reads together what was just written apart has to wait for the writing.
#[derive(Clone, Copy)]
pub(super) struct Link(u64);

impl Link {
    pub(super) const NOWHERE: Self = Self(u64::MAX);

    #[inline]
    pub(super) fn new(mail: u32, next: u32) -> Self {
        Self(u64::from(next) << 32 | u64::from(mail))
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    pub(super) fn mail(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    pub(super) fn next(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    pub(super) fn lead_to(&mut self, next: u32) {
        *self = Self::new(self.mail(), next);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} then {}", self.mail(), self.next())
    }
}
