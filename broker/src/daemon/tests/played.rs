//! The broker's peers, as a test plays them.

use std::{
    io::{IoSliceMut, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use kai_proto::{
    broker_authd::{GrantEnd, Reply, Request, Standing},
    codec,
    connection::{Client, Connection, ConnectionError},
    conversation::FromWorker,
    frame::PREFIX,
    gateway_broker::Refusal,
    grant::Grant,
    ids::TelegramId,
    worker_broker::Report,
};
use nix::{
    sys::{
        signal::kill,
        socket::{ControlMessageOwned, MsgFlags, recvmsg, send},
    },
    unistd::{Pid, close},
};

use super::stage::{eventually, user};

/// authd, on one connection of the broker's.
pub struct PlayedAuthd {
    pub connection: Connection,
}

impl PlayedAuthd {
    /// What the broker says next.
    pub fn next(&mut self) -> Request {
        let mut request = None;
        eventually("the broker does not ask authd", || {
            request = self.connection.receive(Instant::now()).unwrap();
            request.is_some()
        });
        request.unwrap()
    }

    /// Expects to be asked about `id` with `grant`.
    pub fn asked(&mut self, id: i64, grant: Option<Grant>) {
        let user = user(id);
        assert_eq!(self.next(), Request::Check { user, grant });
    }

    /// Says all of this at once.
    pub fn say(&mut self, replies: &[Reply]) {
        let mut bytes = Vec::new();
        for reply in replies {
            codec::encode_frame(reply, &mut bytes).unwrap();
        }
        let stream = &mut self.connection;
        send(stream.as_fd().as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL).unwrap();
    }

    pub fn answer(&mut self, id: i64, standing: Standing) {
        self.say(&[checked(id, standing)]);
    }

    pub fn ended(&mut self, id: i64, end: GrantEnd) {
        self.say(&[ended(id, end)]);
    }
}

pub fn checked(id: i64, standing: Standing) -> Reply {
    let user = TelegramId::try_from(id).unwrap();
    Reply::Checked { user, standing }
}

pub fn ended(id: i64, end: GrantEnd) -> Reply {
    let user = TelegramId::try_from(id).unwrap();
    Reply::Ended { user, end }
}

/// The gateway's end of an attach.
pub struct PlayedGateway(pub Client);

impl PlayedGateway {
    /// The broker's refusal.
    pub fn refused(&mut self) -> Refusal {
        match self.0.receive().unwrap() {
            FromWorker::Refused(refusal) => refusal,
            other => panic!("not a refusal: {other:?}"),
        }
    }

    /// True once the connection is over, without a word.
    pub fn is_over(&mut self) -> bool {
        matches!(
            self.0.receive::<FromWorker>(),
            Err(ConnectionError::Closed | ConnectionError::Io(_))
        )
    }
}

/// A worker of whom only the control socket is real, and a process.
pub struct PlayedWorker {
    pub pid: Pid,
    pub control: OwnedFd,
    /// The other end of the connection that it was attached with.
    pub gateway: UnixStream,
    /// When it was attached.
    pub since: Instant,
}

impl PlayedWorker {
    pub fn report(&self, in_turn: bool, turns: u32) {
        let report = Report {
            in_turn,
            agent_pid: 0,
            landlock_abi: 1,
            landlock_whole: true,
            seccomp: true,
            session: [0; 16],
            turns,
        };
        let flags = MsgFlags::MSG_NOSIGNAL;
        send(self.control.as_raw_fd(), &report.to_bytes(), flags).unwrap();
    }

    pub fn is_alive(&self) -> bool {
        kill(self.pid, None).is_ok()
    }

    /// Waits for the end; gives how long that took.
    pub fn wait_for_the_end(&self) -> Duration {
        let began = Instant::now();
        eventually("the worker lives on", || !self.is_alive());
        began.elapsed()
    }

    /// True if the first connection is still open.
    pub fn is_attached(&self) -> bool {
        self.gateway.set_nonblocking(true).unwrap();
        let mut connection = &self.gateway;
        connection.write(b"x").is_ok()
    }

    /// What the broker said in the worker's place on the first connection.
    pub fn refused(&self) -> Refusal {
        let mut connection = &self.gateway;
        let mut bytes = Vec::new();
        connection.read_to_end(&mut bytes).unwrap();
        let body = &bytes[PREFIX..];
        match codec::decode(body).unwrap() {
            FromWorker::Refused(refusal) => refusal,
            other => panic!("not a refusal: {other:?}"),
        }
    }

    /// True if the broker has handed a connection over.
    pub fn takes_a_connection(&self) -> bool {
        let mut byte = [0; 1];
        let mut parts = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!([i32; 1]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(
            self.control.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            flags,
        );
        let Ok(message) = received else {
            return false;
        };
        let descriptors = message.cmsgs().unwrap().flat_map(|part| match part {
            ControlMessageOwned::ScmRights(descriptors) => descriptors,
            _ => Vec::new(),
        });
        descriptors.map(close).filter(Result::is_ok).count() == 1
    }
}
