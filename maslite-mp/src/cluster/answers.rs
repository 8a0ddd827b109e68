//! How a cluster says to main what is wrong, and ends when its link breaks.

use std::fmt::Display;

use tracing::error;

use crate::cluster::registry::WireMessage;
use crate::error::Chain;
use crate::error::death::{EXIT_LIFELINE_LOST, EXIT_PROTOCOL_MISMATCH};
use crate::error::link::LinkError;
use crate::links::codec;
use crate::links::transport::{Draft, Transport};
use crate::processes::spawn::ChildSide;
use crate::protocol::layout;
use crate::protocol::wire::{self, Fault, MailFlaw, ToMain};

/// Ends a child whose link broke. Returns the code to exit with.
pub(super) fn give_up(side: ChildSide, error: &LinkError) -> i32 {
    side.end_with_main();
    let code = exit_code(error);
    if side.is_process {
        // An agent may have closed its descriptors, so that to close them once more would be a
        // panic instead of this code.
        std::mem::forget(side);
    }
    code
}

/// What a child exits with whose link broke.
pub(super) fn exit_code(error: &LinkError) -> i32 {
    if matches!(error, LinkError::Disconnected) {
        return EXIT_LIFELINE_LOST;
    }
    // The exit code cannot say this.
    error!(target: "maslite", error = %Chain(error), "the link to main broke");
    match error {
        // An agent has closed the descriptors of the link.
        LinkError::Io(error) if is_bad_descriptor(error) => EXIT_LIFELINE_LOST,
        _ => EXIT_PROTOCOL_MISMATCH,
    }
}

pub(super) fn is_bad_descriptor(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::BADF.raw_os_error())
}

pub(super) fn fault(error: maslite_core::Error) -> Fault {
    Fault::Agent(error)
}

/// What is wrong with mail that was brought.
pub(super) fn misread<M: WireMessage>(flaw: MailFlaw) -> Fault {
    let (what, why) = match flaw {
        MailFlaw::Head => (
            "mail from another cluster".to_owned(),
            "it is cut".to_owned(),
        ),
        MailFlaw::Body(bad) => (layout::describe_mail::<M>(&bad), bad.why.to_string()),
    };
    Fault::Decode { what, why }
}

pub(super) fn undecodable(what: &str, why: impl Display) -> Fault {
    let (what, why) = (what.to_owned(), why.to_string());
    Fault::Decode { what, why }
}

pub(super) fn put<T: serde::Serialize + ?Sized>(
    value: &T,
    into: &mut Vec<u8>,
) -> Result<(), Fault> {
    codec::put(value, into).map_err(unsayable)
}

pub(super) fn unsayable(why: postcard::Error) -> Fault {
    let (what, why) = ("an answer to main".to_owned(), why.to_string());
    Fault::Encode { what, why }
}

/// Writes an answer that is all of the message.
pub(super) fn write_alone(answer: &ToMain, draft: &mut Draft<'_>) {
    draft.clear();
    if let Err(why) = wire::put_note(answer, draft) {
        // A fault is numbers and strings, which always encode.
        let _ = wire::put_note(&ToMain::Failed(unsayable(why)), draft);
    }
}

/// Sends an answer, or that it is too long for the link.
pub(super) fn send(link: &mut dyn Transport) -> Result<(), LinkError> {
    let error = match link.send() {
        Err(error @ LinkError::TooLarge { .. }) => error,
        other => return other,
    };
    let fault = Fault::Encode {
        what: "all mail of a superstep that leaves the cluster".to_owned(),
        why: error.to_string(),
    };
    write_alone(&ToMain::Failed(fault), &mut link.draft()?);
    link.send()
}
