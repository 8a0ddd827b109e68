//! The extended language of scenarios: births, removals, pauses and errors. Random stories, and a
//! naive program of the rules.

pub mod generator;
pub mod naive;

/// A trace, and the summary. There is no summary after an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub trace: String,
    pub summary: Option<String>,
}
