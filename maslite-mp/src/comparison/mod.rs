//! Two runs compared: the first delivery that is not the same in both, and who strayed.

pub(crate) mod checked;
mod deviation;
mod first_difference;
mod recorder;
mod settings;
mod watch;

pub use checked::checked;
pub use deviation::{Delivered, Deviation, Stray};
pub use first_difference::{ComparisonError, FirstDifference, Side, Subject, first_difference};
pub use settings::{CHECK_VARIABLE, CheckSettings, REPLAY_VARIABLE, ReplaySettings};
pub use watch::{Watch, Watched};
