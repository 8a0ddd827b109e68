//! The kind of link over ipc-channel: main sends the child a socket, and the child hands main its
//! ends of two channels over it.

use std::io;
use std::os::fd::OwnedFd;

use crate::links::frame::Framed;
use crate::links::ipc::{self, Rendezvous, RendezvousSocket};
use crate::links::kind::{Kind, Link, MainEnd, Offer, Start};
use crate::links::transport::{Transport, Wait};

/// The kind.
pub(crate) struct Channels;

impl Kind for Channels {
    fn link(&self) -> Link {
        Link::Channel
    }

    fn begin(&self, _: usize, wait: Wait) -> io::Result<Box<dyn Start>> {
        ipc::check()?;
        let rendezvous = Rendezvous::open()?;
        Ok(Box::new(ChannelStart { rendezvous, wait }))
    }

    fn accept(&self, sent: OwnedFd, wait: Wait) -> io::Result<Box<dyn Transport>> {
        let packets = ipc::hand_over(&sent)?;
        Ok(Box::new(Framed::new(packets, ipc::frame_limit(), wait)))
    }
}

struct ChannelStart {
    rendezvous: Rendezvous,
    wait: Wait,
}

impl Start for ChannelStart {
    fn offer(&mut self) -> io::Result<(Box<dyn Offer>, OwnedFd)> {
        let (socket, theirs) = self.rendezvous.socket()?;
        let wait = self.wait;
        Ok((Box::new(ChannelOffer { socket, wait }), theirs))
    }
}

struct ChannelOffer {
    socket: RendezvousSocket,
    wait: Wait,
}

impl Offer for ChannelOffer {
    fn take(self: Box<Self>) -> io::Result<MainEnd> {
        let packets = self.socket.take()?;
        let notice = packets.death_notice();
        let link = Box::new(Framed::new(packets, ipc::frame_limit(), self.wait));
        let cut = Box::new(move || notice.post());
        Ok(MainEnd { link, cut })
    }
}
