//! Where two traces part: the first line that differs, and the agent that strayed.

use std::collections::BTreeMap;
use std::fmt;

use maslite_core::{AgentId, Plain, SimTime};
use serde::Deserialize;
use serde_json::Value;

/// A line is shown up to this length \[bytes\].
const SHOWN: usize = 400;

/// Two traces part at these lines.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deviation {
    /// How many deliveries came before, the same in both.
    pub same: u64,
    /// The last lines before, which are the same in both, oldest first.
    pub before: Vec<String>,
    /// The first line of each that is not the same in the other; none where a trace has ended.
    pub lines: [Option<String>; 2],
    /// Who strayed first.
    pub stray: Stray,
    /// When \[simulated\], and in which superstep of the instant, the first delivery is that differs.
    pub time: SimTime,
    /// The superstep within the instant.
    pub superstep: u64,
}

/// The agent that did first what it did not do in the other run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stray {
    /// It sent a mail, or set an alarm, that it did not send in the other run.
    Sender(String),
    /// It took the same mail in another order.
    Reader(String),
    /// The lines do not tell, because their format is the program's own.
    Unknown,
}

impl Stray {
    /// The agent, as the trace has it.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        match self {
            Self::Sender(agent) | Self::Reader(agent) => Some(agent),
            Self::Unknown => None,
        }
    }
}

/// What a line of a trace tells of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The instant.
    pub time: SimTime,
    /// The superstep within the instant.
    pub superstep: u64,
    /// The agent that got the mail, as it stands in the trace.
    pub to: String,
    /// Its sender.
    pub from: String,
    /// The same two.
    ids: [Option<AgentId>; 2],
}

impl Delivered {
    /// Reads a line, if it is in the format of [`JsonLines`](maslite_core::JsonLines).
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Line {
            t_ns: u64,
            superstep: u64,
            to: Value,
            from: Value,
        }
        let line: Line = serde_json::from_str(line).ok()?;
        let ids = [id_of(&line.from), id_of(&line.to)];
        let text = |id: Value| match id {
            Value::String(name) => name,
            number => number.to_string(),
        };
        Some(Self {
            time: SimTime::from_nanos(line.t_ns),
            superstep: line.superstep,
            to: text(line.to),
            from: text(line.from),
            ids,
        })
    }

    /// The sender and the agent that got it; none for main.
    pub(super) fn agents(&self) -> [Option<AgentId>; 2] {
        self.ids
    }

    fn place(&self) -> (SimTime, u64) {
        (self.time, self.superstep)
    }
}

/// The agent that a trace names so; none for main.
fn id_of(written: &Value) -> Option<AgentId> {
    match written {
        Value::String(name) if name == "main" => None,
        // An agent of the name main is written with quotes.
        Value::String(name) if name == "\"main\"" => Some(AgentId::named("main")),
        Value::String(name) => Some(AgentId::named(name)),
        number => number.as_u64().map(AgentId::from),
    }
}

impl Deviation {
    /// Compares what two traces have from some line on; `same` lines came before, the last of them
    /// are `before`. None if all lines are the same.
    #[must_use]
    pub fn between(
        mut same: u64,
        mut before: Vec<String>,
        mut rest: [&[String]; 2],
    ) -> Option<Self> {
        while let ([one, ..], [other, ..]) = (rest[0], rest[1])
            && one == other
        {
            same += 1;
            before.push(one.clone());
            rest = [&rest[0][1..], &rest[1][1..]];
        }
        let first = rest.map(|lines| lines.first());
        if first == [None, None] {
            return None;
        }
        before.drain(..before.len().saturating_sub(BEFORE));
        let read = first.map(|line| line.and_then(|line| Delivered::read(line)));
        let place = read.iter().flatten().map(Delivered::place).min();
        let (time, superstep) = place.unwrap_or_default();
        Some(Self {
            same,
            before,
            lines: first.map(Option::<&String>::cloned),
            stray: place.map_or(Stray::Unknown, |place| find_stray(place, rest)),
            time,
            superstep,
        })
    }
}

/// This number of lines before the first difference is kept.
pub(super) const BEFORE: usize = 8;

/// The agent whose mail is the first, in its superstep, that the other trace does not have there.
fn find_stray(place: (SimTime, u64), rest: [&[String]; 2]) -> Stray {
    let within = rest.map(|lines| {
        let read = lines
            .iter()
            .map_while(|line| Some((line, Delivered::read(line)?)));
        let within = read.take_while(|(_, delivered)| delivered.place() == place);
        within.collect::<Vec<_>>()
    });
    for (own, other) in [(0, 1), (1, 0)] {
        let mut there: BTreeMap<&String, u64> = BTreeMap::new();
        for (line, _) in &within[other] {
            *there.entry(line).or_default() += 1;
        }
        for (line, delivered) in &within[own] {
            match there.get_mut(line) {
                Some(number) if *number > 0 => *number -= 1,
                _ => return Stray::Sender(delivered.from.clone()),
            }
        }
    }
    let reader = within.iter().flatten().next();
    reader.map_or(Stray::Unknown, |(_, delivered)| {
        Stray::Reader(delivered.to.clone())
    })
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            same,
            before,
            lines,
            stray,
            time,
            superstep,
        } = self;
        match stray {
            Stray::Sender(agent) => writeln!(
                f,
                "agent {} strayed first: a mail or an alarm of it is not in the other run",
                Plain(agent, SHOWN)
            )?,
            Stray::Reader(agent) => writeln!(
                f,
                "agent {} strayed first: it took the same mail in another order",
                Plain(agent, SHOWN)
            )?,
            Stray::Unknown => {}
        }
        writeln!(
            f,
            "delivery {} is the first that differs, at {time}, superstep {superstep}:",
            same + 1
        )?;
        for line in before {
            writeln!(f, "    {}", Plain(line, SHOWN))?;
        }
        for (mark, line) in ["-", "+"].into_iter().zip(lines) {
            match line {
                Some(line) => writeln!(f, "  {mark} {}", Plain(line, SHOWN))?,
                None => writeln!(f, "  {mark} the trace ends here")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(t: u64, to: u64, from: &str, body: u64) -> String {
        format!(
            r#"{{"t_ns":{t},"superstep":0,"to":{to},"from":{from},"receiver":{to},"topic":"T","body":{body}}}"#
        )
    }

    fn stray(one: &[String], other: &[String]) -> Option<(u64, Stray)> {
        let deviation = Deviation::between(5, Vec::new(), [one, other])?;
        Some((deviation.same, deviation.stray))
    }

    #[test]
    fn who_sent_what_the_other_run_has_not_strayed() {
        let all = [
            line(1, 1, "7", 0),
            line(1, 2, "8", 0),
            line(1, 3, "\"main\"", 0),
            line(2, 1, "9", 0),
        ];
        let sender = |name: &str| Stray::Sender(name.to_owned());
        assert_eq!(stray(&all, &all), None);
        let mut other = all.clone();
        other[1] = line(1, 2, "8", 1);
        assert_eq!(stray(&all, &other), Some((6, sender("8"))));
        // A mail is missing: the next one is not to blame, whichever run lacks it.
        let other = [all[0].clone(), all[2].clone(), all[3].clone()];
        assert_eq!(stray(&all, &other), Some((6, sender("8"))));
        assert_eq!(stray(&other, &all), Some((6, sender("8"))));
        // An alarm comes later.
        let mut other = all.clone();
        other[3] = line(3, 1, "9", 0);
        assert_eq!(stray(&all, &other), Some((8, sender("9"))));
        let mut other = all.clone();
        other[2] = line(1, 3, "\"main\"", 4);
        assert_eq!(stray(&all, &other), Some((7, sender("main"))));
        assert_eq!(stray(&all[..2], &all), Some((7, sender("main"))));
    }

    #[test]
    fn who_took_mail_in_another_order_strayed() {
        let all = [line(1, 4, "7", 0), line(1, 4, "8", 0), line(1, 5, "8", 0)];
        let other = [all[1].clone(), all[0].clone(), all[2].clone()];
        assert_eq!(
            stray(&all, &other),
            Some((5, Stray::Reader("4".to_owned())))
        );
        let own_format = ["one".to_owned(), "two".to_owned()];
        assert_eq!(
            stray(&own_format, &own_format[..1]),
            Some((6, Stray::Unknown))
        );
    }

    #[test]
    fn it_is_shown_with_what_came_before() {
        let all: Vec<_> = (0..12).map(|t| line(t, 1, "7", 0)).collect();
        let mut other = all.clone();
        other[10] = line(10, 1, "\"ada\"", 0);
        let deviation = Deviation::between(0, Vec::new(), [&all, &other]).unwrap();
        let shown = deviation.to_string();
        let expected = "agent 7 strayed first: a mail or an alarm of it is not in the other run\n\
             delivery 11 is the first that differs, at 0.00000001 s, superstep 0:\n    \
             {\"t_ns\":2,\"superstep\":0,";
        assert!(shown.starts_with(expected), "{shown}");
        assert_eq!(shown.lines().count(), 2 + BEFORE + 2);
    }
}
