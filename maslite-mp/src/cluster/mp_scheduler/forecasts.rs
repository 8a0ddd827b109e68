//! Alarms for agents of other clusters are forecast: main gets them when they are set, and their
//! receivers' clusters as soon as that is final.
//!
//! What cannot be written or read as a forecast is none: the alarm fires as all others do, and what
//! is wrong with it shows then.

use maslite_core::SimTime;
use maslite_core::internal::Import;

use super::MpScheduler;
use crate::cluster::answers::{misread, undecodable};
use crate::cluster::gateway::make_round_trip;
use crate::cluster::registry::WireMessage;
use crate::error::message_fault::MessageFault;
use crate::links::guarded;
use crate::protocol::wire::{self, Fault, MailFlaw, MailHead};

/// When the first of some mail arrives; at the beginning of time if it arrives now.
pub(super) fn first_arrival(mut mail: &[u8]) -> Result<Option<SimTime>, Fault> {
    let mut first = None;
    while !mail.is_empty() {
        let arrives = peek(&mut mail)?.arrives;
        first = Some(first.map_or(arrives, |first: SimTime| first.min(arrives)));
    }
    Ok(first)
}

/// The head of the first mail of a batch, which is taken off.
fn peek(mail: &mut &[u8]) -> Result<MailHead, Fault> {
    let taken = wire::take_measured(mail).and_then(|mail| MailHead::take(&mut &mail[..]));
    taken.map_err(|why| undecodable("mail", why))
}

impl<M: WireMessage> MpScheduler<M> {
    /// Writes down the alarms that were forecast since main was told.
    pub(super) fn tell_forecasts(&mut self) -> Vec<u8> {
        let mut told = Vec::new();
        if !self.forecasts {
            return told;
        }
        let Self {
            engine,
            gateway,
            forecasts_are_wrong,
            ..
        } = self;
        engine.show_forecasts(|mail, due| {
            let head = MailHead {
                key: mail.key,
                sender: mail.sender,
                receiver: mail.receiver,
                arrives: due,
                left: mail.key.sent_at(),
                is_copy: false,
            };
            let start = told.len();
            let put = guarded::catch(|| {
                wire::put_mail(&head, mail.body, &mut told).is_ok() && {
                    let bytes = &told[start + head.length()..];
                    !gateway.trips.wants(bytes)
                        || make_round_trip(&head, mail.body, bytes, &mut gateway.trips).is_ok()
                }
            });
            if !matches!(put, Ok(true)) {
                told.truncate(start);
                *forecasts_are_wrong = true;
            }
        });
        told
    }

    /// Takes a forecast off the mail of a grant. False if there is another kind of mail.
    pub(super) fn take_forecast(&mut self, mail: &mut &[u8]) -> Result<bool, Fault> {
        let mut rest = *mail;
        let head = peek(&mut rest)?;
        if head.arrives == SimTime::ZERO || self.gateway.ahead.is_some() {
            return Ok(false);
        }
        if head.arrives < self.engine.now() {
            return Err(self.refuse(MessageFault::Arrival));
        }
        match guarded::catch(|| wire::take_mail::<M>(mail)) {
            Ok(Ok((head, mail))) => {
                let import = Import {
                    key: head.key,
                    mail,
                    is_copy: head.is_copy,
                };
                self.engine.take_forecast(head.arrives, import);
            }
            Ok(Err(MailFlaw::Head)) => return Err(misread::<M>(MailFlaw::Head)),
            Ok(Err(MailFlaw::Body(_))) | Err(_) => self.forecasts_are_wrong = true,
        }
        *mail = rest;
        Ok(true)
    }
}
