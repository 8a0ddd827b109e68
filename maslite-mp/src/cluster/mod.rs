//! A cluster's side: it obeys grants, hands out the mail that leaves, and reports.
//!
//! It may use `protocol` and `links`. It does not know main's state or other clusters.

pub(crate) mod inline;
pub(crate) mod mp_scheduler;
pub(crate) mod outbound;
