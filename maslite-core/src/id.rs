//! Ids of agents: 64 bits, made of a number or of a name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use serde::{Deserialize, Serialize};

use crate::fnv::fnv;
use crate::lock::ReadWriteEvenPoisoned;

/// Identifies an agent in the whole simulation, in every process.
///
/// An id is made from a number below 2⁶³ or from a name: `AgentId::from(7)`,
/// `AgentId::from("crane 2")`. Ids are small and can be copied. The process remembers the name, so
/// that logs and errors show it. The name travels to other processes with its agent.
///
/// ```
/// use maslite_core::AgentId;
/// assert_eq!(AgentId::from(7).to_string(), "7");
/// assert_eq!(AgentId::from("crane 2").to_string(), "crane 2");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AgentId(u64);

/// Set in every id made of a name, clear in every id made of a number.
const NAMED: u64 = 1 << 63;

/// The range of negative numbers, which are no valid ids. They are kept so that an error can show
/// the number as the program wrote it.
const NEGATIVE: u64 = 0xffff_fffe << 32;

impl AgentId {
    /// The id of main. Mail to it reaches the handler that the program gave to `run_with`.
    pub const MAIN: Self = Self(u64::MAX);

    /// Stands for "no receiver" where an id must be written as a number, for instance in the
    /// digest.
    pub(crate) const NOBODY: Self = Self(u64::MAX - 1);

    /// Returns the 64 bits: the number, or the hash of the name.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Makes an id from the value of `as_u64`. The process does not learn a name from it: see
    /// [`AgentId::named`].
    #[must_use]
    pub const fn from_u64(bits: u64) -> Self {
        Self(bits)
    }

    /// Makes the id of a name: the 64-bit FNV-1a hash of its bytes, with the highest bit set.
    ///
    /// Two names can have the same hash, which by chance almost never happens. A run that uses such
    /// an id ends with an error that names both: when mail is addressed to the id, or an agent with
    /// the id is added, removed or subscribed to.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let id = Self::of_name(name);
        let known = NAMES.read_even_poisoned();
        let fresh = known
            .by_id
            .get(&id.0)
            .is_none_or(|names| !names.contains(name));
        drop(known);
        if fresh {
            let mut names = NAMES.write_even_poisoned();
            names.insert(id, name);
        }
        id
    }

    /// Makes the id of a name. The process does not remember the name.
    #[must_use]
    pub(crate) fn of_name(name: &str) -> Self {
        Self(fnv(name.as_bytes()) | NAMED)
    }

    /// Returns the number that this id was made from; none if it was made from a name.
    #[must_use]
    pub const fn number(self) -> Option<u64> {
        if self.0 & NAMED == 0 {
            Some(self.0)
        } else {
            None
        }
    }

    /// Returns the name that this id was made from; none if it was made from a number, or this
    /// process does not know the name.
    #[must_use]
    pub fn name(self) -> Option<Arc<str>> {
        if self.number().is_some() {
            return None;
        }
        let names = NAMES.read_even_poisoned();
        names
            .by_id
            .get(&self.0)
            .and_then(|names| names.first.clone())
    }

    /// Returns the error for two names with this id, if this process knows both.
    #[inline]
    pub(crate) fn collision(self) -> Option<IdError> {
        if !Self::collisions_are_known() || self.number().is_some() {
            return None;
        }
        let names = NAMES.read_even_poisoned();
        names.by_id.get(&self.0)?.collision()
    }

    /// Whether this process knows any two names with the same id.
    #[inline]
    pub(crate) fn collisions_are_known() -> bool {
        COLLIDED.load(Ordering::Relaxed)
    }

    /// Checks that this process knows at most one name with this id.
    ///
    /// # Errors
    /// [`IdError::Collision`].
    pub(crate) fn check_name(self) -> Result<(), IdError> {
        self.collision().map_or(Ok(()), Err)
    }

    /// Returns the names that this process has learned after the first `known` names, and sets
    /// `known` to the number of all names.
    #[must_use]
    pub(crate) fn names_since(known: &mut usize) -> Vec<String> {
        if HEARD.load(Ordering::Acquire) == *known {
            return Vec::new();
        }
        let names = NAMES.read_even_poisoned();
        let fresh = names.in_order[*known..].iter().map(ToString::to_string);
        let fresh = fresh.collect();
        *known = names.in_order.len();
        fresh
    }

    /// Checks that an agent may have this id.
    ///
    /// # Errors
    /// [`IdError`] says why an agent may not have it.
    pub fn check(self) -> Result<(), IdError> {
        if self == Self::MAIN || self == Self::NOBODY {
            return Err(IdError::Reserved(self));
        }
        if self.number().is_some() {
            return Ok(());
        }
        let names = NAMES.read_even_poisoned();
        match names.by_id.get(&self.0) {
            None => Err(IdError::OutOfRange(self.0)),
            Some(names) => names.collision().map_or(Ok(()), Err),
        }
    }
}

/// Why an agent cannot have an id.
#[derive(Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum IdError {
    /// The id belongs to main or to the kernel.
    #[error("the id {0} is reserved for the kernel: give the agent another number or a name")]
    Reserved(AgentId),
    /// The number is too large or negative: numbers of agents are 0 to 2⁶³ − 1, and the others are
    /// hashes of names.
    #[error("the id {} is out of range: numbers of agents are 0 to 2^63 - 1", Number(*.0))]
    OutOfRange(u64),
    /// Two names hash to the same 64 bits.
    #[error("the names {0:?} and {1:?} have the same id: rename one of them")]
    Collision(String, String),
}

crate::readable_debug!(
    enum IdError {
        Reserved(source),
        OutOfRange(source),
        Collision(source, second),
    }
);

/// The names of ids, for people, and to find two names with one id. Nothing in the kernel's order
/// depends on them.
static NAMES: RwLock<Table> = RwLock::new(Table {
    by_id: BTreeMap::new(),
    in_order: Vec::new(),
});

/// The number of names in `NAMES`.
static HEARD: AtomicUsize = AtomicUsize::new(0);

/// Whether some id in `NAMES` has two names.
static COLLIDED: AtomicBool = AtomicBool::new(false);

struct Table {
    by_id: BTreeMap<u64, Names>,
    /// All names, in the order in which the process learned them.
    in_order: Vec<Arc<str>>,
}

impl Table {
    fn insert(&mut self, id: AgentId, name: &str) {
        let names = self.by_id.entry(id.0).or_default();
        if names.contains(name) {
            return;
        }
        let name: Arc<str> = name.into();
        if names.first.is_none() {
            names.first = Some(Arc::clone(&name));
        } else {
            names.second = Some(Arc::clone(&name));
            COLLIDED.store(true, Ordering::Relaxed);
        }
        self.in_order.push(name);
        HEARD.store(self.in_order.len(), Ordering::Release);
    }
}

/// The names of one id: the first two, if there are more.
#[derive(Default)]
struct Names {
    first: Option<Arc<str>>,
    second: Option<Arc<str>>,
}

impl Names {
    fn contains(&self, name: &str) -> bool {
        self.first.as_deref() == Some(name) || self.second.is_some()
    }

    /// The two names in alphabetical order, because each process learns them in another order.
    fn collision(&self) -> Option<IdError> {
        let (first, second) = (self.first.as_deref()?, self.second.as_deref()?);
        let (first, second) = (first.min(second), first.max(second));
        Some(IdError::Collision(first.to_owned(), second.to_owned()))
    }
}

macro_rules! from_unsigned {
    ($($number:ty),*) => {$(
        impl From<$number> for AgentId {
            #[inline]
            fn from(number: $number) -> Self {
                Self(u64::from(number))
            }
        }
    )*};
}

from_unsigned!(u8, u16, u32, u64);

impl From<usize> for AgentId {
    #[inline]
    fn from(number: usize) -> Self {
        Self(number as u64)
    }
}

/// Makes an id from a plain `7` in a program. No agent may have a negative number: adding such an
/// agent is an error.
impl From<i32> for AgentId {
    #[inline]
    fn from(number: i32) -> Self {
        match u64::try_from(number) {
            Ok(number) => Self(number),
            Err(_) => Self(NEGATIVE | u64::from(number.unsigned_abs())),
        }
    }
}

impl From<&String> for AgentId {
    fn from(name: &String) -> Self {
        Self::named(name)
    }
}

impl From<String> for AgentId {
    fn from(name: String) -> Self {
        Self::named(&name)
    }
}

impl From<&str> for AgentId {
    fn from(name: &str) -> Self {
        Self::named(name)
    }
}

/// Shows a name without quotes, unless it could be taken for another id: `"1"` is not 1, and
/// `"main"` is not main.
impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::MAIN {
            return f.pad(MAIN_NAME);
        }
        match self.name() {
            Some(name) if is_misleading(&name) => f.pad(&format!("{name:?}")),
            Some(name) => f.pad(&name),
            None if self.number().is_some() => self.0.fmt(f),
            None => f.pad(&self.unknown()),
        }
    }
}

/// Writes a name in quotes, so that it differs from a number.
impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            _ if *self == Self::MAIN => f.write_str(MAIN_NAME),
            Some(name) => write!(f, "{name:?}"),
            None if self.number().is_some() => write!(f, "{}", self.0),
            None => f.write_str(&self.unknown()),
        }
    }
}

impl AgentId {
    /// Shows an id without a known name: its bits as hexadecimal digits, or the negative number.
    fn unknown(self) -> String {
        match u32::try_from(self.0 ^ NEGATIVE) {
            Ok(number) => format!("-{number}"),
            Err(_) => format!("#{:016x}", self.0),
        }
    }
}

/// The text of main's id.
const MAIN_NAME: &str = "main";

/// Whether a name without quotes would read as another id.
fn is_misleading(name: &str) -> bool {
    let number = name.strip_prefix('-').unwrap_or(name);
    name == MAIN_NAME
        || name.is_empty()
        || name.starts_with(['#', '"'])
        || number.bytes().all(|byte| byte.is_ascii_digit())
        || name.contains(crate::plain::is_command)
}

/// Shows a number that is no id, as the program wrote it.
struct Number(u64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u32::try_from(self.0 ^ NEGATIVE) {
            Ok(number) => write!(f, "-{number}"),
            Err(_) => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_apart_and_known() {
        assert_eq!(AgentId::from(3).as_u64(), 3);
        let crane = AgentId::from("crane");
        assert_eq!(crane, AgentId::named("crane"));
        assert_ne!(crane, AgentId::named("crane 2"));
        assert_eq!(crane.name().as_deref(), Some("crane"));
        assert_eq!(
            format!("{crane} {crane:?} {:>4}", AgentId::from(3)),
            "crane \"crane\"    3"
        );
        assert_eq!(crane.check(), Ok(()));
    }

    #[test]
    fn a_number_of_any_type_is_the_same_id() {
        let seven = AgentId::from(7_u64);
        let others: [AgentId; 5] = [
            7_u8.into(),
            7_u16.into(),
            7_u32.into(),
            7_usize.into(),
            7.into(),
        ];
        assert_eq!(others, [seven; 5]);
        assert_eq!(AgentId::from(String::from("crane")), AgentId::from("crane"));
        for negative in [-1, -2, i32::MIN] {
            let id = AgentId::from(negative);
            assert_eq!(id.to_string(), negative.to_string());
            let text =
                format!("the id {negative} is out of range: numbers of agents are 0 to 2^63 - 1");
            assert_eq!(id.check().unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn an_id_reads_as_no_other() {
        let shown = |name: &str| AgentId::from(name).to_string();
        assert_eq!([AgentId::from(1).to_string(), shown("1")], ["1", "\"1\""]);
        assert_eq!(
            [AgentId::MAIN.to_string(), shown("main")],
            ["main", "\"main\""]
        );
        assert_eq!(
            [shown("-1"), shown(""), shown("#8"), shown("\"8\"")],
            ["\"-1\"", "\"\"", "\"#8\"", "\"\\\"8\\\"\""]
        );
        assert_eq!(
            [shown("crane 2"), shown("1.2"), shown("m1")],
            ["crane 2", "1.2", "m1"]
        );
        let unknown = AgentId::of_name("never made known");
        assert_eq!(unknown.to_string(), format!("#{:016x}", unknown.as_u64()));
        assert_eq!(format!("{unknown:?}"), unknown.to_string());
    }

    #[test]
    fn two_names_with_one_id_are_found() {
        let (later, first) = ("lhdboacdggbpmdli", "eeikbjcakhhemhmk");
        let id = AgentId::named(later);
        assert_eq!(id.check_name(), Ok(()));
        assert_eq!(AgentId::named(first), id);
        let both = Err(IdError::Collision(first.to_owned(), later.to_owned()));
        assert_eq!((id.check(), id.check_name()), (both.clone(), both));
        assert_eq!(AgentId::named("not one of them").check_name(), Ok(()));

        let mut known = 0;
        let names = AgentId::names_since(&mut known);
        for name in [later, first] {
            assert_eq!(names.iter().filter(|known| *known == name).count(), 1);
        }
    }

    #[test]
    fn the_hash_is_fixed() {
        assert_eq!(AgentId::named("a").as_u64(), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn ids_that_no_agent_may_bear_are_refused() {
        assert!(matches!(AgentId::MAIN.check(), Err(IdError::Reserved(_))));
        assert!(matches!(
            AgentId::from(NAMED + 5).check(),
            Err(IdError::OutOfRange(_))
        ));
    }
}
