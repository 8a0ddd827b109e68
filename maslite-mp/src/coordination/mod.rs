//! Main's side of a simulation: this room grants simulated time to clusters, judges their reports,
//! and routes their mail.
//!
//! It may use `steering` and the rooms below. It must not know how a link carries bytes.

pub(crate) mod automatic;
mod births;
pub(crate) mod checks;
pub(crate) mod clusters;
mod dropping;
mod forecasting;
mod forecasts;
mod granting;
pub(crate) mod main_mail;
pub(crate) mod main_state;
pub(crate) mod pace;
mod record;
mod recover;
pub(crate) mod reports;
pub(crate) mod rounds;
pub(crate) mod routing;
pub(crate) mod save_plan;
pub(crate) mod saving;
pub(crate) mod serve;
mod speculation;
pub(crate) mod state;
pub(crate) mod windows;
