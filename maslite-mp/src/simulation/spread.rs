//! Where agents go if the program does not divide them among clusters itself.

/// How agents are divided among clusters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Spread {
    /// As the program says.
    #[default]
    AsDeclared,
    /// Whatever the program says: among this number of clusters, one agent after the other. What a
    /// builder of the registry builds stays together.
    Over(u32),
}

impl Spread {
    /// The place of the cluster for the agents of a call, which comes after `calls` other calls.
    pub(crate) fn place(self, declared: u32, calls: usize) -> u32 {
        match self {
            Self::AsDeclared => declared,
            Self::Over(clusters) => {
                let calls = u32::try_from(calls % (clusters.max(1) as usize));
                calls.unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_dealt_out_in_turn() {
        let places = |spread: Spread| (0..5).map(move |calls| spread.place(7, calls));
        assert!(places(Spread::AsDeclared).eq([7; 5]));
        assert!(places(Spread::Over(1)).eq([0; 5]));
        assert!(places(Spread::Over(3)).eq([0, 1, 2, 0, 1]));
    }
}
