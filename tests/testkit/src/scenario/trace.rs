//! The trace: a line of JSON for every delivery, and for what else happens to agents and to the
//! run.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use maslite_core::{AgentId, Delivery, Observer, SimTime};

use crate::scenario::agent::ScenarioMessage;

/// A place in the kernel's order: instant, superstep, and who is at work in it. Main comes before
/// all agents.
pub type Place = (SimTime, u64, u64);

/// Who is at work, as a place tells it: the agent with this insertion index.
pub fn seat(index: u64) -> u64 {
    index + 1
}

/// Who is at work, as a place tells it: main.
const MAIN: u64 = 0;

/// Where the trace goes. Clones write to the same place.
#[derive(Debug)]
pub struct Trace<W> {
    book: Arc<Mutex<Book<W>>>,
}

#[derive(Debug)]
struct Book<W> {
    writer: W,
    result: io::Result<()>,
    /// Lines that wait until other lines may be put between them; none if nothing will be.
    waiting: Option<Vec<(Place, String)>>,
}

impl<W> Clone for Trace<W> {
    fn clone(&self) -> Self {
        let book = Arc::clone(&self.book);
        Self { book }
    }
}

impl<W: Write> Book<W> {
    fn write(&mut self, line: &str) {
        if self.result.is_ok() {
            self.result = self.writer.write_all(line.as_bytes());
        }
    }
}

impl<W: Write + Send + 'static> Trace<W> {
    /// A trace that writes down each line as it comes.
    pub fn new(writer: W) -> Self {
        Self::with(writer, None)
    }

    /// A trace that keeps lines until [`settle`](Self::settle).
    pub fn in_pieces(writer: W) -> Self {
        Self::with(writer, Some(Vec::new()))
    }

    fn with(writer: W, waiting: Option<Vec<(Place, String)>>) -> Self {
        let book = Book {
            writer,
            result: Ok(()),
            waiting,
        };
        Self {
            book: Arc::new(Mutex::new(book)),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book<W>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line that [`write_placed`] made.
    pub fn write(&self, placed: &str) {
        let (place, line) = split(placed);
        let mut book = self.book();
        match &mut book.waiting {
            Some(waiting) => waiting.push((place, line.to_owned())),
            None => book.write(line),
        }
    }

    /// Writes down the lines that wait, with others between them, before the lines of the same
    /// place.
    pub fn settle(&self, notes: impl IntoIterator<Item = (Place, String)>) {
        let mut book = self.book();
        let lines = book.waiting.as_mut().map(mem::take).unwrap_or_default();
        let mut lines = lines.into_iter().peekable();
        for (place, note) in notes {
            while let Some((_, line)) = lines.next_if(|(other, _)| *other < place) {
                book.write(&line);
            }
            book.write(&note);
        }
        lines.for_each(|(_, line)| book.write(&line));
    }

    /// What a scheduler shows its deliveries to.
    pub fn observer(&self) -> Observer<ScenarioMessage> {
        let trace = self.clone();
        let mut line = String::new();
        Box::new(move |delivery| {
            line.clear();
            write_placed(delivery, &mut line);
            trace.write(&line);
        })
    }

    /// Writes out what is buffered; tells of the first error that writing met.
    pub fn finish(&self) -> io::Result<()> {
        let mut book = self.book();
        mem::replace(&mut book.result, Ok(()))?;
        book.writer.flush()
    }
}

/// Appends a delivery as a line, behind its place.
pub fn write_placed(delivery: &Delivery<'_, ScenarioMessage>, into: &mut String) {
    let who = match delivery.agent {
        AgentId::MAIN => MAIN,
        _ => seat(delivery.index),
    };
    let _ = write!(
        into,
        "{} {} {who} ",
        delivery.time.as_nanos(),
        delivery.superstep
    );
    write_line(delivery, into);
}

/// Takes a line and its place apart.
fn split(placed: &str) -> (Place, &str) {
    let mut parts = placed.splitn(4, ' ');
    let mut number = || parts.next().and_then(|part| part.parse().ok());
    let place = number().zip(number()).zip(number());
    let ((time, superstep), who) = place.expect("a line comes with its place");
    let line = parts.next().expect("a place comes with its line");
    ((SimTime::from_nanos(time), superstep, who), line)
}

/// Appends a delivery as a line, in the style of Python's `json.dumps`.
pub fn write_line(delivery: &Delivery<'_, ScenarioMessage>, into: &mut String) {
    let (step, from) = (delivery.superstep, number(delivery.mail.sender));
    write_moment(delivery.time, step, into);
    let _ = match delivery.agent {
        AgentId::MAIN => write!(into, r#""main": {from}"#),
        to => write!(into, r#""to": {to}, "from": {from}, "receiver": "#),
    };
    if delivery.agent != AgentId::MAIN {
        let _ = match delivery.mail.receiver.agent() {
            Some(receiver) => write!(into, "{}", number(receiver)),
            None => write!(into, "null"),
        };
    }
    into.push_str(r#", "topic": "#);
    quote(delivery.mail.body.topic.as_str(), into);
    let _ = writeln!(into, r#", "ttl": {}}}"#, delivery.mail.body.ttl);
}

/// A line that says only what was with an agent.
pub fn line_of(time: SimTime, step: u64, what: &str, agent: AgentId) -> String {
    let mut line = String::new();
    write_moment(time, step, &mut line);
    let _ = writeln!(line, r#""{what}": {}}}"#, number(agent));
    line
}

fn write_moment(time: SimTime, step: u64, into: &mut String) {
    let t_ms = millis(time);
    let _ = write!(into, r#"{{"t_ms": {t_ms}, "step": {step}, "#);
}

/// Simulated time as scenarios have it \[ms\].
pub fn millis(time: SimTime) -> u64 {
    time.as_nanos() / 1_000_000
}

/// An id as scenarios have it: 0 is main.
pub fn number(id: AgentId) -> u64 {
    match id {
        AgentId::MAIN => 0,
        id => id.as_u64(),
    }
}

/// Appends a string as JSON in ASCII, escaped as Python does.
pub fn quote(text: &str, into: &mut String) {
    into.push('"');
    for character in text.chars() {
        match character {
            '"' => into.push_str("\\\""),
            '\\' => into.push_str("\\\\"),
            '\n' => into.push_str("\\n"),
            '\r' => into.push_str("\\r"),
            '\t' => into.push_str("\\t"),
            '\u{8}' => into.push_str("\\b"),
            '\u{c}' => into.push_str("\\f"),
            ' '..='~' => into.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(into, "\\u{unit:04x}");
                }
            }
        }
    }
    into.push('"');
}
