//! One packet socket: a message is a packet, descriptors travel with it.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg,
        socketpair,
    },
};

use crate::{patience::Patience, wire::MAX_MESSAGE};

/// The most descriptors that one message carries.
const MAX_FDS: usize = 2;

/// One end of the pair, with its receive buffer.
pub(crate) struct Channel {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// A received packet.
pub(crate) struct Packet<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) fds: Vec<OwnedFd>,
}

/// Two connected sockets, both closed on exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

impl Channel {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, buffer: vec![0; MAX_MESSAGE] }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        loop {
            match sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits until there is something to receive.
    pub(crate) fn wait(&self, limit: Duration) -> io::Result<()> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The next packet. The other end's death is `UnexpectedEof`, or `ConnectionReset` if it has not read all that it
    /// was sent: that is how Linux ends a packet socket (unix(7): unread data).
    pub(crate) fn receive(&mut self) -> io::Result<Packet<'_>> {
        let (len, fds) = self.take(RecvFlags::empty())?.ok_or(io::ErrorKind::WouldBlock)?;
        Ok(Packet { bytes: &self.buffer[..len], fds })
    }

    /// The same, with looking for it before sleeping.
    pub(crate) fn receive_with(&mut self, patience: &mut Patience) -> io::Result<Packet<'_>> {
        let began = Instant::now();
        let look = patience.look();
        let mut taken = None;
        while taken.is_none() && began.elapsed() < look {
            taken = self.take(RecvFlags::DONTWAIT)?;
            if taken.is_none() {
                // Whoever is waited for may need this very core.
                thread::yield_now();
            }
        }
        let (len, fds) = match taken {
            Some(taken) => taken,
            None => self.take(RecvFlags::empty())?.ok_or(io::ErrorKind::WouldBlock)?,
        };
        patience.waited(began.elapsed());
        Ok(Packet { bytes: &self.buffer[..len], fds })
    }

    /// `None` where there is nothing and the flags say not to wait.
    fn take(&mut self, flags: RecvFlags) -> io::Result<Option<(usize, Vec<OwnedFd>)>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = loop {
            let mut iov = [IoSliceMut::new(&mut self.buffer)];
            match recvmsg(&self.socket, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC | flags) {
                Ok(message) => break message,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if flags.contains(RecvFlags::DONTWAIT) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        };
        let (len, flags) = (message.bytes, message.flags);
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if flags.contains(ReturnFlags::TRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "message is too long"));
        }
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some((len, fds)))
    }
}
