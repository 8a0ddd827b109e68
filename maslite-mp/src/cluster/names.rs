//! The names that the process of a cluster has heard of, and which of them main has been told.

use maslite_core::AgentId;
use maslite_core::internal::AgentIdInternals;
use serde::{Deserialize, Serialize};

/// What this process has heard of names: main is to hear it too, unless it is the same process.
#[derive(Default)]
pub(super) struct Names {
    /// How many have been told, or come from main.
    known: usize,
    /// Heard of otherwise, and not told yet.
    pending: Vec<String>,
    /// Main is another process.
    pub(super) is_told: bool,
}

impl Names {
    /// Takes the names that main has not heard of.
    pub(super) fn take(&mut self) -> Vec<String> {
        if !self.is_told {
            return Vec::new();
        }
        let mut names = std::mem::take(&mut self.pending);
        names.extend(AgentId::names_since(&mut self.known));
        names
    }

    /// Takes in names that main tells.
    pub(super) fn learn(&mut self, names: &[String]) {
        if names.is_empty() {
            return;
        }
        self.pending = self.take();
        for name in names {
            let _ = AgentId::named(name);
        }
        let _ = AgentId::names_since(&mut self.known);
    }

    /// The names as they stand. Nothing counts as told by this.
    pub(super) fn export(&self) -> NamesState {
        let mut state = NamesState {
            heard: Vec::new(),
            pending: Vec::new(),
        };
        if self.is_told {
            state.heard = AgentId::names_since(&mut 0);
            state.pending.clone_from(&self.pending);
            let mut known = self.known;
            state.pending.extend(AgentId::names_since(&mut known));
        }
        state
    }

    /// Forgets which names have been told.
    pub(super) fn reset(&mut self) {
        let is_told = self.is_told;
        *self = Self {
            is_told,
            ..Self::default()
        };
    }

    /// Takes up what was exported.
    pub(super) fn restore(&mut self, state: NamesState) {
        if !self.is_told {
            return;
        }
        for name in &state.heard {
            let _ = AgentId::named(name);
        }
        self.pending = state.pending;
        let _ = AgentId::names_since(&mut self.known);
    }
}

/// The names that the process of a cluster has heard of; empty where main is in the same process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct NamesState {
    /// All of them.
    pub(super) heard: Vec<String>,
    /// Those that main has not been told.
    pub(super) pending: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_told_are_told_by_who_is_restored() {
        // Other tests of this process have names of their own.
        let own = |names: Vec<String>| {
            let own = names.into_iter().filter(|name| name.starts_with("saved "));
            own.collect::<Vec<_>>()
        };
        let new = || Names {
            is_told: true,
            ..Names::default()
        };
        let mut names = new();
        let _ = AgentId::named("saved and told");
        assert_eq!(own(names.take()), ["saved and told"]);
        let _ = AgentId::named("saved before");
        names.learn(&["saved from main".to_owned()]);
        let _ = AgentId::named("saved behind");

        let state = names.export();
        let mut restored = new();
        restored.restore(state);
        let pending = ["saved before", "saved behind"];
        assert_eq!(own(restored.take()), pending);
        assert_eq!(own(restored.take()), [""; 0]);
        assert_eq!(own(names.export().heard).len(), 4);
        // An export does not count as telling them.
        assert_eq!(own(names.take()), pending);
        let inline = Names::default().export();
        assert!(inline.heard.is_empty() && inline.pending.is_empty());
    }
}
