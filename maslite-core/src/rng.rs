//! Random numbers: one generator per agent, with the same numbers on every platform and in every
//! placement.

use std::convert::Infallible;

use rand::rand_core::TryRng;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use crate::AgentId;

/// The random number generator of one agent, seeded from the run's seed and the agent's id.
///
/// It is made at its first use, and is part of the agent's saved state. [`rand::RngExt`] draws
/// ranges, shuffles and other values from it. Algorithm: PCG XSL RR 128/64 (MCG), with the start
/// state *h* ∥ *l* (made odd) of *h* = mix(mix(seed) ⊕ id) and *l* = mix(*h*), where mix is a step
/// of SplitMix64. Sources: O'Neill, "PCG", 2014; Steele, Lea, Flood, "Fast splittable pseudorandom
/// number generators", 2014.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AgentRng(Pcg64Mcg);

impl AgentRng {
    /// Makes the generator of `agent` in a run with `seed`.
    #[must_use]
    pub fn new(seed: u64, agent: AgentId) -> Self {
        let high = split_mix(split_mix(seed) ^ agent.as_u64());
        let low = split_mix(high);
        Self(Pcg64Mcg::new(u128::from(high) << 64 | u128::from(low)))
    }
}

/// One step of SplitMix64.
fn split_mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

impl TryRng for AgentRng {
    type Error = Infallible;

    #[inline]
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.try_next_u32()
    }

    #[inline]
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.try_next_u64()
    }

    #[inline]
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn the_numbers_are_fixed() {
        let mut rng = AgentRng::new(1, AgentId::from(2));
        let drawn = [rng.next_u64(), rng.next_u64(), rng.next_u64()];
        assert_eq!(
            drawn,
            [
                16_863_206_861_621_538_876,
                7_847_534_724_950_010_372,
                4_263_274_265_824_078_766
            ]
        );
    }

    #[test]
    fn agents_and_seeds_differ() {
        let first = |seed, agent: u64| AgentRng::new(seed, agent.into()).next_u64();
        assert_ne!(first(1, 2), first(2, 1));
        assert_ne!(first(1, 2), first(1, 3));
    }
}
