//! Makes text of a model safe to show: no character of it moves a cursor, ends a line, or reverses
//! the order of other characters.

use std::fmt;

/// Whether a terminal obeys a character instead of showing it.
#[must_use]
pub fn is_command(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Shows a text on one line, cut after this many characters, with escapes for characters that a
/// terminal obeys.
///
/// ```
/// let name = maslite_core::Plain("cr\x1b[2Jane\n", 8);
/// assert_eq!(name.to_string(), "cr\\u{1b}[2Jan…");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Plain<'a>(pub &'a str, pub usize);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text, limit) = *self;
        let mut shown = String::new();
        let mut characters = text.chars();
        for c in characters.by_ref().take(limit) {
            if is_command(c) {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        if characters.next().is_some() {
            shown.push('…');
        }
        f.pad(&shown)
    }
}

/// The longest line of an error \[characters\].
const LONGEST: usize = 10_000;

/// The longest text with several lines, such as the output of a child \[characters\].
pub(crate) struct Lines<'a>(pub(crate) &'a str);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, line) in self.0.split('\n').enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            for (number, part) in line.split('\t').enumerate() {
                if number > 0 {
                    f.write_str("\t")?;
                }
                write!(f, "{}", Plain(part, LONGEST))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_obeyed_is_shown() {
        for (text, shown) in [
            ("crane 3 — ä日本", "crane 3 — ä日本"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}"),
            ("\u{202e}abc\u{2066}", "\\u{202e}abc\\u{2066}"),
        ] {
            assert_eq!(Plain(text, 100).to_string(), shown);
        }
        assert_eq!(Plain(&"x".repeat(10_000_000), 3).to_string(), "xxx…");
        assert_eq!(Lines("a\n\tb\x1b[1m\n").to_string(), "a\n\tb\\u{1b}[1m\n");
        assert_eq!(format!("{:<5}|", Plain("ab", 3)), "ab   |");
    }
}
