//! The trace: a line of JSON for every delivery.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use maslite_core::{Delivery, Observer};

use crate::agent::ScenarioMessage;

/// Where the trace goes. Clones write to the same place.
#[derive(Debug)]
pub(crate) struct Trace<W> {
    shared: Arc<Mutex<(W, io::Result<()>)>>,
}

impl<W> Clone for Trace<W> {
    fn clone(&self) -> Self {
        let shared = Arc::clone(&self.shared);
        Self { shared }
    }
}

impl<W: Write + Send + 'static> Trace<W> {
    pub(crate) fn new(writer: W) -> Self {
        Self {
            shared: Arc::new(Mutex::new((writer, Ok(())))),
        }
    }

    /// Writes a line.
    pub(crate) fn write(&self, line: &str) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let (writer, result) = &mut *shared;
        if result.is_ok() {
            *result = writer.write_all(line.as_bytes());
        }
    }

    /// What a scheduler shows its deliveries to.
    #[allow(dead_code, reason = "the tests of the kernel run one scheduler alone")]
    pub(crate) fn observer(&self) -> Observer<ScenarioMessage> {
        let trace = self.clone();
        let mut line = String::new();
        Box::new(move |delivery| {
            line.clear();
            write_line(delivery, &mut line);
            trace.write(&line);
        })
    }

    /// Writes out what is buffered; tells of the first error that writing met.
    pub(crate) fn finish(&self) -> io::Result<()> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let (writer, result) = &mut *shared;
        std::mem::replace(result, Ok(()))?;
        writer.flush()
    }
}

/// Appends a delivery as a line, in the style of Python's `json.dumps`.
pub(crate) fn write_line(delivery: &Delivery<'_, ScenarioMessage>, into: &mut String) {
    let t_ms = delivery.time.as_nanos() / 1_000_000;
    let (step, to, from) = (delivery.superstep, delivery.agent, delivery.mail.sender);
    let _ = write!(
        into,
        r#"{{"t_ms": {t_ms}, "step": {step}, "to": {to}, "from": {from}, "receiver": "#
    );
    let _ = match delivery.mail.receiver.agent() {
        Some(receiver) => write!(into, "{receiver}"),
        None => write!(into, "null"),
    };
    into.push_str(r#", "topic": "#);
    quote(delivery.mail.body.topic.as_str(), into);
    let _ = writeln!(into, r#", "ttl": {}}}"#, delivery.mail.body.ttl);
}

/// Appends a string as JSON in ASCII, escaped as Python does.
pub(crate) fn quote(text: &str, into: &mut String) {
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
