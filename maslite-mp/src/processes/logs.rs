//! What agents and the kernel record with `tracing` in a child process, and how it comes out in
//! main.
//!
//! In a child a subscriber of ours writes each record into stderr as a line that the pump tells
//! from text ([`crate::processes::output`]); what is in the pipe survives the child. Main hands
//! each to its own subscriber as if it had been recorded there, with its cluster as a field, and
//! with the fields of the spans it was made in: the kernel's has simulated time and agent.
//!
//! A subscriber knows records by the places in the program that make them, which must live for
//! ever. Main makes a [`Mirror`] for each place in a child; both run the same program, so these are
//! few.
//!
//! Children record what is of a level that main's subscriber may want, and nothing if there is
//! none. It filters again, by target and all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock};

use maslite_core::Plain;
use maslite_core::internal::{LockEvenPoisoned, is_command};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use tracing_core::callsite::{self, Callsite, Identifier};
use tracing_core::field::{Field, FieldSet, Value, Visit, display};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::subscriber::NoSubscriber;
use tracing_core::{
    Dispatch, Event, Interest, Kind, LevelFilter, Metadata, Subscriber, dispatcher,
};

use crate::links::guarded;

/// Begins a record in a stderr, and a newline ends it. Source: RFC 7464, JSON text sequences.
pub(crate) const RECORD: u8 = 0x1E;

/// Takes a record of a cluster. False if it is none.
pub(crate) type Recorder = Box<dyn FnMut(&str, &[u8]) -> bool + Send>;

/// The environment variable that tells a child from which level on it records.
const LEVEL: &str = "MASLITE_LOG";

/// The field that names a record's cluster.
const CLUSTER: &str = "cluster";

/// How many fields a record has at most; `tracing` takes no more.
const FIELDS: usize = 32;

/// The longest message, and the longest other value \[bytes\]; the rest is cut off.
const LONGEST: (usize, usize) = (256 * 1024, 4 * 1024);

/// How many mirrors there are at most, how many bytes the texts of one have, and those of all: a
/// child with corrupt memory must not fill main's.
const MIRRORS: usize = 65_536;
const PLACE_LIMIT: usize = 8 * 1024;
const PLACES_LIMIT: usize = 16 * 1024 * 1024;

// ---- what crosses

/// A record on its way to main.
#[derive(Debug, Serialize, Deserialize)]
struct Traveller {
    place: Place,
    /// In the order of the names.
    #[serde(deserialize_with = "few")]
    values: Vec<Crossing>,
}

/// Where in the program it was made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Place {
    name: String,
    target: String,
    level: u8,
    module: Option<String>,
    file: Option<String>,
    line: Option<u32>,
    #[serde(deserialize_with = "few")]
    names: Vec<String>,
}

/// Takes in as many as a record has at most, and no more.
fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    struct Few<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "fewer than {FIELDS} values")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut few = Vec::new();
            while let Some(value) = seq.next_element()? {
                if few.len() + 1 >= FIELDS {
                    return Err(A::Error::invalid_length(FIELDS, &self));
                }
                few.push(value);
            }
            Ok(few)
        }
    }

    from.deserialize_seq(Few(PhantomData))
}

impl Place {
    fn texts(&self) -> impl Iterator<Item = &str> {
        let of_place = [
            Some(&self.name),
            Some(&self.target),
            self.module.as_ref(),
            self.file.as_ref(),
        ];
        let texts = of_place.into_iter().flatten().chain(&self.names);
        texts.map(String::as_str)
    }

    fn length(&self) -> usize {
        self.texts().map(str::len).sum()
    }

    /// Whether a child of ours can have written it. The field with the cluster is main's, and what
    /// a place is called has no lines.
    fn is_true(&self) -> bool {
        let mut names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        names.sort_unstable();
        self.length() <= PLACE_LIMIT
            && names.windows(2).all(|pair| pair[0] != pair[1])
            && !names.contains(&CLUSTER)
            && !self.texts().any(|text| text.contains(is_command))
    }
}

/// A value of a field.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Crossing {
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    /// Something that was formatted.
    Shown(String),
}

const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

fn number_of(level: LevelFilter) -> u8 {
    let position = LEVELS.iter().position(|known| *known == level);
    position
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or(0)
}

// ---- in a child

/// Records from now on, if main asked for it and the program does not record by itself.
pub(crate) fn record() {
    let level = env::var(LEVEL).ok().and_then(|level| level.parse().ok());
    if let Some(level) = level {
        // The program may have its own; then that is what counts.
        let _ = dispatcher::set_global_default(Dispatch::new(Recording {
            level,
            spans: Mutex::default(),
        }));
    }
}

/// Writes records into stderr.
struct Recording {
    level: LevelFilter,
    spans: Mutex<Spans>,
}

#[derive(Default)]
struct Spans {
    last: u64,
    /// By their numbers: how many handles there are, and the fields.
    open: BTreeMap<u64, (usize, Fields)>,
}

thread_local! {
    /// The spans that this thread is in.
    static INSIDE: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Names and values, each name once.
#[derive(Clone, Debug, Default)]
struct Fields(Vec<(&'static str, Crossing)>);

impl Fields {
    /// Adds those whose names are not there yet.
    fn add(&mut self, others: &Self) {
        for (name, value) in &others.0 {
            if !self.0.iter().any(|(known, _)| known == name) {
                self.set(name, value.clone());
            }
        }
    }

    fn set(&mut self, name: &'static str, value: Crossing) {
        match self.0.iter().position(|(known, _)| *known == name) {
            Some(place) => self.0[place].1 = value,
            // Main adds one.
            None if self.0.len() < FIELDS - 1 && name != CLUSTER => self.0.push((name, value)),
            None => {}
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), Crossing::Float(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), Crossing::Signed(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), Crossing::Unsigned(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), Crossing::Bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let value = cut(value.to_owned(), field.name());
        self.set(field.name(), Crossing::Text(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = cut(format!("{value:?}"), field.name());
        self.set(field.name(), Crossing::Shown(value));
    }
}

fn cut(mut value: String, name: &str) -> String {
    let longest = if name == "message" {
        LONGEST.0
    } else {
        LONGEST.1
    };
    if value.len() > longest {
        value.truncate(value.floor_char_boundary(longest));
        value.push('…');
    }
    value
}

impl Recording {
    fn spans(&self) -> MutexGuard<'_, Spans> {
        self.spans.lock_even_poisoned()
    }
}

impl Subscriber for Recording {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        span.record(&mut fields);
        let mut spans = self.spans();
        spans.last += 1;
        let number = spans.last;
        spans.open.insert(number, (1, fields));
        Id::from_u64(number)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        if let Some((_, fields)) = self.spans().open.get_mut(&span.into_u64()) {
            values.record(fields);
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let inside = INSIDE.try_with(|inside| inside.borrow().clone());
        {
            let spans = self.spans();
            for span in inside.unwrap_or_default().iter().rev() {
                if let Some((_, of_span)) = spans.open.get(span) {
                    fields.add(of_span);
                }
            }
        }
        let metadata = event.metadata();
        let (names, values) = fields.0.into_iter().unzip::<_, _, Vec<_>, _>();
        let traveller = Traveller {
            place: Place {
                name: metadata.name().to_owned(),
                target: metadata.target().to_owned(),
                level: number_of(LevelFilter::from_level(*metadata.level())),
                module: metadata.module_path().map(str::to_owned),
                file: metadata.file().map(str::to_owned),
                line: metadata.line(),
                names: names.into_iter().map(str::to_owned).collect(),
            },
            values,
        };
        let mut bytes = vec![RECORD];
        if serde_json::to_writer(&mut bytes, &traveller).is_ok() {
            bytes.push(b'\n');
            // At once and under the lock, so that it stays whole. If main does not read any more,
            // it needs no records.
            let _ = io::stderr().lock().write_all(&bytes);
        }
    }

    fn enter(&self, span: &Id) {
        let _ = INSIDE.try_with(|inside| inside.borrow_mut().push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        let _ = INSIDE.try_with(|inside| {
            let mut inside = inside.borrow_mut();
            if let Some(place) = inside.iter().rposition(|known| *known == span.into_u64()) {
                inside.remove(place);
            }
        });
    }

    fn clone_span(&self, span: &Id) -> Id {
        if let Some((handles, _)) = self.spans().open.get_mut(&span.into_u64()) {
            *handles += 1;
        }
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        let mut spans = self.spans();
        let number = span.into_u64();
        let Some((handles, _)) = spans.open.get_mut(&number) else {
            return false;
        };
        *handles -= 1;
        let closed = *handles == 0;
        if closed {
            spans.open.remove(&number);
        }
        closed
    }
}

// ---- in main

/// Where the records of children go: the subscriber of the thread that starts them.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    level: LevelFilter,
    dispatch: Dispatch,
}

impl Log {
    /// That of this thread.
    pub(crate) fn here() -> Self {
        let dispatch = dispatcher::get_default(Dispatch::clone);
        let level = if dispatch.is::<NoSubscriber>() {
            LevelFilter::OFF
        } else {
            LevelFilter::current()
        };
        Self { level, dispatch }
    }

    /// Tells the child to be what to record.
    pub(crate) fn tell(&self, command: &mut Command) {
        if self.level == LevelFilter::OFF {
            command.env_remove(LEVEL);
        } else {
            command.env(LEVEL, self.level.to_string());
        }
    }

    /// Takes the child's records. None if it makes none.
    pub(crate) fn recorder(&self) -> Option<Recorder> {
        let dispatch = self.dispatch.clone();
        (self.level != LevelFilter::OFF).then(|| {
            Box::new(move |cluster: &str, record: &[u8]| relay(&dispatch, cluster, record))
                as Recorder
        })
    }
}

/// Hands a record to main's subscriber. False if it is none.
fn relay(dispatch: &Dispatch, cluster: &str, record: &[u8]) -> bool {
    let Ok(Traveller { place, values }) = serde_json::from_slice(record) else {
        return false;
    };
    if values.len() != place.names.len() || !place.is_true() {
        return false;
    }
    // A subscriber may panic, because it cannot write for one: that must not end the pump, and with
    // it the run.
    let relayed = guarded::catch(|| {
        let Some(metadata) = mirror(place) else {
            return false;
        };
        // A subscriber may not record while it records.
        dispatcher::with_default(dispatch, || {
            if dispatch.enabled(metadata) {
                tell(dispatch, metadata, cluster, &values);
            }
        });
        true
    });
    relayed.unwrap_or(true)
}

fn tell(
    dispatch: &Dispatch,
    metadata: &'static Metadata<'static>,
    cluster: &str,
    values: &[Crossing],
) {
    let fields: Vec<Field> = metadata.fields().iter().collect();
    let cluster: Box<dyn Value> = Box::new(display(cluster.to_owned()));
    let mut values: Vec<Box<dyn Value>> = fields
        .iter()
        .zip(values)
        .map(|(field, crossing)| value(field.name(), crossing))
        .collect();
    values.push(cluster);
    let Some(first) = fields.first() else { return };
    let set: [(&Field, Option<&dyn Value>); FIELDS] =
        std::array::from_fn(|place| match (fields.get(place), values.get(place)) {
            (Some(field), Some(value)) => (field, Some(&**value)),
            _ => (first, None),
        });
    dispatch.event(&Event::new(metadata, &metadata.fields().value_set(&set)));
}

/// A value as main's subscriber gets it. What subscribers write as it is has no lines of its own,
/// which would look like other records.
fn value(name: &str, crossing: &Crossing) -> Box<dyn Value> {
    match crossing {
        Crossing::Bool(value) => Box::new(*value),
        Crossing::Signed(value) => Box::new(*value),
        Crossing::Unsigned(value) => Box::new(*value),
        Crossing::Float(value) => Box::new(*value),
        Crossing::Text(value) if name != "message" => Box::new(value.clone()),
        Crossing::Text(value) | Crossing::Shown(value) => {
            Box::new(display(Plain(value, usize::MAX).to_string()))
        }
    }
}

/// A place in a child that makes records, as main's subscriber knows it.
struct Mirror {
    metadata: OnceLock<Metadata<'static>>,
}

impl Callsite for Mirror {
    fn set_interest(&self, _: Interest) {
        // The subscriber is asked every time.
    }

    fn metadata(&self) -> &Metadata<'_> {
        self.metadata
            .get()
            .expect("a mirror is whole when it is shown")
    }
}

/// The mirrors, and how many bytes their texts have.
type Known = (BTreeMap<Place, &'static Metadata<'static>>, usize);

/// The mirror of a place. None if there are too many, or the place is none.
fn mirror(place: Place) -> Option<&'static Metadata<'static>> {
    static KNOWN: Mutex<Known> = Mutex::new((BTreeMap::new(), 0));
    let mut all = KNOWN.lock_even_poisoned();
    let (known, bytes) = &mut *all;
    if let Some(metadata) = known.get(&place) {
        return Some(metadata);
    }
    let level = LEVELS.get(usize::from(place.level))?.into_level()?;
    let more = *bytes + place.length();
    if known.len() >= MIRRORS || more > PLACES_LIMIT {
        return None;
    }
    *bytes = more;
    let names = place.names.iter().map(|name| for_ever(name));
    let names: Vec<&'static str> = names.chain([CLUSTER]).collect();
    let mirror: &'static Mirror = Box::leak(Box::new(Mirror {
        metadata: OnceLock::new(),
    }));
    let metadata = mirror.metadata.get_or_init(|| {
        Metadata::new(
            for_ever(&place.name),
            for_ever(&place.target),
            level,
            place.file.as_deref().map(for_ever),
            place.line,
            place.module.as_deref().map(for_ever),
            FieldSet::new(Vec::leak(names), Identifier(mirror)),
            Kind::EVENT,
        )
    });
    known.insert(place, metadata);
    drop(all);
    // A subscriber that is asked may panic, or record.
    callsite::register(mirror);
    Some(metadata)
}

/// As subscribers want it.
fn for_ever(text: &str) -> &'static str {
    String::leak(text.to_owned())
}
