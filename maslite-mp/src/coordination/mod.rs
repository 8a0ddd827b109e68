//! How main grants simulated time to clusters, judges their reports and routes their mail.
//!
//! It may use `protocol`, `links` and `processes`. It does not know where a cluster runs or how a link carries bytes.

pub(crate) mod checks;
pub(crate) mod meter;
pub(crate) mod reports;
pub(crate) mod rounds;
pub(crate) mod routing;
pub(crate) mod windows;
