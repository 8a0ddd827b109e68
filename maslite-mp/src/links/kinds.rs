//! All kinds of link.

use std::io;

use crate::links::channel::Channels;
use crate::links::kind::{Kind, Link};
use crate::links::ring::Rings;

/// The kinds, the preferred one first. Main offers them to a child in this order.
const KINDS: [&dyn Kind; 2] = [&Rings, &Channels];

/// The number of a kind of link, as main sends it to a child: both are the same build.
pub(crate) type KindNumber = u8;

/// The numbers of the kinds that a setting allows, the preferred one first.
pub(crate) fn allowed(link: Link) -> Vec<KindNumber> {
    let kinds = (0..).zip(KINDS);
    let allowed = kinds.filter(|(_, kind)| link == Link::Auto || link == kind.link());
    allowed.map(|(number, _)| number).collect()
}

/// The kind with this number.
///
/// # Errors
/// There is none: a child was sent something else than main sends.
pub(crate) fn numbered(kind: KindNumber) -> io::Result<&'static dyn Kind> {
    let kind = KINDS.get(usize::from(kind)).copied();
    kind.ok_or_else(|| io::Error::other("main offers a kind of link that is not known here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_allows_its_kind_and_the_default_allows_all() {
        let links = |link| {
            let kinds = allowed(link).into_iter().map(numbered);
            kinds
                .map(|kind| kind.map(Kind::link).ok())
                .collect::<Vec<_>>()
        };
        assert_eq!(links(Link::Auto), [Some(Link::Ring), Some(Link::Channel)]);
        assert_eq!(links(Link::Ring), [Some(Link::Ring)]);
        assert_eq!(links(Link::Channel), [Some(Link::Channel)]);
        assert!(numbered(2).is_err());
    }
}
