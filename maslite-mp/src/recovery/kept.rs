//! What main keeps of one cluster that may come back, and when it may not.

use std::time::Instant;

use maslite_core::SimTime;

use super::log::Log;
use super::policy::{Action, Recovery};
use crate::error::Error;
use crate::error::death::Death;
use crate::error::recovery::NotRecovered;

/// What main keeps of one cluster.
#[derive(Debug)]
pub(crate) struct Kept {
    policy: Recovery,
    pub(crate) log: Log,
    /// How long it last said that it had worked \[ns\].
    pub(crate) busy: u64,
    /// The number of the message that its process has been given and has not answered.
    at_work: Option<u64>,
    deaths: Vec<Lost>,
}

/// One death of its process.
#[derive(Debug)]
struct Lost {
    death: Death,
    at: Instant,
    /// The message that the process was given last and had not answered.
    at_work: Option<u64>,
}

impl Kept {
    pub(crate) fn new(policy: Recovery) -> Self {
        Self {
            policy,
            log: match policy.action {
                Action::Drop => Log::of_last_message(),
                Action::Stop | Action::Restart => Log::new(policy.log_limit),
            },
            busy: 0,
            at_work: None,
            deaths: Vec::new(),
        }
    }

    /// The last message that was kept is with the process.
    #[inline]
    pub(crate) fn given(&mut self) {
        self.at_work = self.log.outstanding().map(|_| self.log.messages());
    }

    /// The process has answered.
    #[inline]
    pub(crate) fn answered(&mut self, pass: u64, mark: u64, busy: u64) {
        self.at_work = None;
        self.log.answered(pass, mark);
        self.busy = busy;
    }

    /// Whether the cluster is dropped when its process dies.
    pub(crate) fn is_to_be_dropped(&self) -> bool {
        self.policy.action == Action::Drop
    }

    /// Notes a death, at which main stood at `time`.
    ///
    /// # Errors
    /// [`Error::NotRecovered`] if the cluster is not to come back.
    pub(crate) fn lose(&mut self, death: Death, now: Instant, time: SimTime) -> Result<(), Error> {
        let at_work = self.at_work.take();
        let is_poison = at_work.is_some()
            && self
                .deaths
                .last()
                .is_some_and(|last| last.at_work == at_work);
        self.deaths.push(Lost {
            death,
            at: now,
            at_work,
        });
        let Recovery { most, within, .. } = self.policy;
        let lately = self.deaths.iter().rev();
        let lately = lately.take_while(|lost| now.saturating_duration_since(lost.at) <= within);
        let reason = if is_poison {
            NotRecovered::SameGrant
        } else if lately.count() > most as usize {
            NotRecovered::TooOften { most, within }
        } else if self.log.parts().is_none() {
            NotRecovered::LogFull {
                limit: self.log.limit(),
            }
        } else {
            return Ok(());
        };
        Err(self.refuse(reason, time))
    }

    /// The error of a cluster that cannot come back.
    pub(crate) fn refuse(&mut self, reason: NotRecovered, time: SimTime) -> Error {
        let deaths = self.deaths.drain(..).map(|lost| lost.death);
        let deaths: Vec<Death> = deaths.collect();
        let cluster = deaths
            .last()
            .map_or_else(String::new, |last| last.cluster.clone());
        Error::NotRecovered {
            cluster,
            reason,
            time,
            deaths,
        }
    }

    /// The last death of its process.
    pub(crate) fn last_death(&self) -> Option<&Death> {
        self.deaths.last().map(|lost| &lost.death)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::death::ExitKind;
    use crate::links::transport::now;

    const AT: SimTime = SimTime::from_secs(3);

    fn kept(most: u32) -> Kept {
        let mut kept = Kept::new(Recovery::restart().at_most(most, Duration::from_secs(60)));
        kept.log.begin(b"settings");
        kept
    }

    fn death(pid: u32) -> Death {
        Death::bare("north".to_owned(), pid, ExitKind::Signal(9))
    }

    #[test]
    fn more_deaths_than_allowed_in_a_span_end_the_run_with_all_of_them() {
        let mut kept = kept(2);
        let begin = now();
        let mut lose = |pid, seconds| {
            let at = begin + Duration::from_secs(seconds);
            kept.lose(death(pid), at, AT)
        };
        assert!(lose(1, 0).is_ok() && lose(2, 50).is_ok());
        assert!(lose(3, 100).is_ok(), "the first is long ago");
        let error = lose(4, 101).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cluster north was not brought back at 3 s: its process died more than 2 times within 60s; its deaths: \
             the process of cluster north (pid 1) was killed (SIGKILL); the sender of the signal is unknown, the process \
             of cluster north (pid 2) was killed (SIGKILL); the sender of the signal is unknown, the process of cluster \
             north (pid 3) was killed (SIGKILL); the sender of the signal is unknown, the process of cluster north (pid 4) \
             was killed (SIGKILL); the sender of the signal is unknown; all clusters were stopped"
        );
    }

    #[test]
    fn two_deaths_at_one_grant_end_the_run() {
        let mut kept = kept(9);
        for _ in 0..2 {
            kept.log.note(b"grant", true);
            kept.given();
            kept.lose(death(1), now(), AT).unwrap();
            // During the replay it has not been given the grant.
            kept.lose(death(2), now(), AT).unwrap();
            kept.given();
            kept.answered(0, 0, 0);
        }
        kept.log.note(b"grant", true);
        kept.given();
        kept.lose(death(3), now(), AT).unwrap();
        kept.given();
        let error = kept.lose(death(4), now(), AT).unwrap_err();
        assert!(
            matches!(&error, Error::NotRecovered { reason: NotRecovered::SameGrant, deaths, .. } if deaths.len() == 6),
            "{error}"
        );
    }
}
