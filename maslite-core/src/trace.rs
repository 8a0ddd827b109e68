//! Writes a trace.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use serde::{Serialize, Serializer};

use crate::lock::LockEvenPoisoned;
use crate::message::{Delivery, Message};
use crate::{AgentId, Topic};

/// Is called for every delivery, in the kernel's one order.
pub type Observer<M> = Box<dyn FnMut(&Delivery<'_, M>) + Send>;

/// Writes every delivery as a line of JSON.
///
/// ```json
/// {"t_ns":250000000,"superstep":0,"to":3,"from":1,"receiver":3,"topic":"C"}
/// ```
///
/// `to` is the agent that gets it, `receiver` the addressee (`null` for a broadcast), `superstep`
/// the superstep within the instant. Agents with a name are written by their name.
#[derive(Clone, Debug)]
pub struct JsonLines<W: Write + Send> {
    shared: Arc<Mutex<Shared<W>>>,
}

#[derive(Debug)]
struct Shared<W> {
    writer: W,
    line: String,
    result: io::Result<()>,
}

impl<W: Write + Send + 'static> JsonLines<W> {
    /// Makes a writer of lines into `writer`. Wrap a file in a `BufWriter`.
    pub fn new(writer: W) -> Self {
        Self {
            shared: Arc::new(Mutex::new(Shared {
                writer,
                line: String::new(),
                result: Ok(()),
            })),
        }
    }

    /// Flushes the buffered lines.
    ///
    /// # Errors
    /// The first error of writing. Lines after it were not written.
    pub fn flush(&self) -> io::Result<()> {
        let mut shared = self.shared.lock_even_poisoned();
        std::mem::replace(&mut shared.result, Ok(()))?;
        shared.writer.flush()
    }
}

/// As [`JsonLines`], with each message as JSON behind `"body"`.
///
/// ```json
/// {"t_ns":250000000,"superstep":0,"to":3,"from":1,"receiver":3,"topic":"C","body":{"C":{"amount":7}}}
/// ```
#[derive(Clone, Debug)]
pub struct JsonBodies<W: Write + Send>(JsonLines<W>);

impl<W: Write + Send + 'static> JsonLines<W> {
    /// Returns a writer that writes the messages, too.
    #[must_use]
    pub fn with_bodies(self) -> JsonBodies<W> {
        JsonBodies(self)
    }

    fn write(&self, write: impl FnOnce(&mut String)) {
        let mut shared = self.shared.lock_even_poisoned();
        let Shared {
            writer,
            line,
            result,
        } = &mut *shared;
        if result.is_ok() {
            line.clear();
            write(line);
            line.push('\n');
            *result = writer.write_all(line.as_bytes());
        }
    }
}

impl<W: Write + Send + 'static> JsonBodies<W> {
    /// Flushes the buffered lines.
    ///
    /// # Errors
    /// As [`JsonLines::flush`].
    pub fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<M: Message + Serialize, W: Write + Send + 'static> From<JsonBodies<W>> for Observer<M> {
    fn from(lines: JsonBodies<W>) -> Self {
        Box::new(move |delivery| lines.0.write(|line| delivery.write_json_with_body(line)))
    }
}

impl<M: Message, W: Write + Send + 'static> From<JsonLines<W>> for Observer<M> {
    fn from(lines: JsonLines<W>) -> Self {
        Box::new(move |delivery| lines.write(|line| delivery.write_json(line)))
    }
}

impl<M: Message> Delivery<'_, M> {
    /// Appends the delivery as one JSON object, without a line feed.
    pub fn write_json(&self, into: &mut String) {
        let line = Line {
            t_ns: self.time.as_nanos(),
            superstep: self.superstep,
            to: Id(self.agent),
            from: Id(self.mail.sender),
            receiver: self.mail.receiver.agent().map(Id),
            topic: self.mail.topic(),
        };
        // Numbers and strings are always JSON.
        into.push_str(&serde_json::to_string(&line).unwrap_or_default());
    }
}

impl<M: Message + Serialize> Delivery<'_, M> {
    /// Appends the delivery as one JSON object with the message behind `"body"`, without a line
    /// feed. A message that JSON cannot hold is `null`, with the reason behind `"body_error"`.
    pub fn write_json_with_body(&self, into: &mut String) {
        self.write_json(into);
        // The object goes on.
        if into.pop() != Some('}') {
            return;
        }
        match serde_json::to_string(&self.mail.body) {
            Ok(body) => {
                into.push_str(",\"body\":");
                into.push_str(&body);
            }
            Err(why) => {
                let why = serde_json::Value::from(why.to_string());
                into.push_str(&format!(",\"body\":null,\"body_error\":{why}"));
            }
        }
        into.push('}');
    }
}

#[derive(Serialize)]
struct Line {
    t_ns: u64,
    superstep: u64,
    to: Id,
    from: Id,
    receiver: Option<Id>,
    topic: Topic,
}

/// A number, or the name if the id was made of one.
struct Id(AgentId);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.name() {
            _ if self.0 == AgentId::MAIN => serializer.serialize_str("main"),
            // Written as it is shown, in quotes of its own: it is not main.
            Some(name) if &*name == "main" => serializer.collect_str(&self.0),
            Some(name) => serializer.serialize_str(&name),
            None => match self.0.number() {
                Some(number) => serializer.serialize_u64(number),
                None => serializer.collect_str(&self.0),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_of_the_name_main_is_told_from_main() {
        let written = |id| serde_json::to_string(&Id(id)).unwrap();
        assert_eq!(written(AgentId::MAIN), r#""main""#);
        assert_eq!(written(AgentId::named("main")), r#""\"main\"""#);
        assert_eq!(written(AgentId::from(7)), "7");
        assert_eq!(written(AgentId::named("7")), r#""7""#);
    }
}
