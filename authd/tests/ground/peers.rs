//! The daemon's peers, by the wire alone.

use std::{io, path::Path, time::Duration};

use kai_proto::{
    admin_authd::{self, AuthdStatus, Enrolment, Secret},
    broker_authd,
    code::{Code, RecoveryCode, TotpCode},
    connection::{Client, ConnectionError},
    gateway_authd::{self, Standing, User, Verdict},
    grant::Grant,
    hello::{AdminHello, Hello},
    sockets,
};

use super::accounts::{GATEWAY, as_account};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A user.
pub fn user(name: &str, id: i64) -> User {
    User {
        name: name.to_owned().try_into().unwrap(),
        id: id.try_into().unwrap(),
    }
}

fn broken(error: ConnectionError) -> io::Error {
    match error {
        ConnectionError::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// A gateway, connected under the gateway's account.
pub struct Gateway(pub Client);

impl Gateway {
    /// Connects and says Hello.
    pub fn connect(run: &Path) -> io::Result<Self> {
        let path = sockets::gateway_authd(run);
        let mut client = as_account(GATEWAY, || Client::connect(&path, PATIENCE))?;
        client
            .send(&gateway_authd::Request::Hello(Hello::ours()))
            .map_err(broken)?;
        match client.receive().map_err(broken)? {
            gateway_authd::Reply::Hello(_) => Ok(Self(client)),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    /// Sends a code; an error if the daemon ended before its answer came.
    pub fn verify(&mut self, user: &User, code: Code) -> io::Result<Verdict> {
        let request = gateway_authd::Request::Verify {
            user: user.clone(),
            code,
        };
        self.0.send(&request).map_err(broken)?;
        match self.0.receive().map_err(broken)? {
            gateway_authd::Reply::Verdict(verdict) => Ok(verdict),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    pub fn totp(&mut self, user: &User, code: TotpCode) -> io::Result<Verdict> {
        self.verify(user, Code::Totp(code))
    }

    pub fn standing(&mut self, user: &User, grant: Option<&Grant>) -> Standing {
        let request = gateway_authd::Request::Standing {
            user: user.clone(),
            grant: grant.cloned(),
            renew: true,
        };
        self.0.send(&request).unwrap();
        match self.0.receive().unwrap() {
            gateway_authd::Reply::Standing(standing) => standing,
            other => panic!("{other:?}"),
        }
    }
}

/// The broker.
pub struct Broker(pub Client);

impl Broker {
    pub fn connect(run: &Path) -> Self {
        let mut client = Client::connect(&sockets::broker_authd(run), PATIENCE).unwrap();
        client
            .send(&broker_authd::Request::Hello(Hello::ours()))
            .unwrap();
        assert_eq!(
            client.receive::<broker_authd::Reply>().unwrap(),
            broker_authd::Reply::Hello(Hello::ours())
        );
        Self(client)
    }

    pub fn check(&mut self, user: &User, grant: Option<&Grant>) -> Standing {
        let request = broker_authd::Request::Check {
            user: user.clone(),
            grant: grant.cloned(),
        };
        self.0.send(&request).unwrap();
        match self.0.receive().unwrap() {
            broker_authd::Reply::Checked { standing, .. } => standing,
            other => panic!("{other:?}"),
        }
    }

    /// What is said unasked.
    pub fn ended(&mut self) -> broker_authd::GrantEnd {
        match self.0.receive().unwrap() {
            broker_authd::Reply::Ended { end, .. } => end,
            other => panic!("{other:?}"),
        }
    }
}

/// Root's command.
pub struct Admin(pub std::cell::RefCell<Client>);

impl Admin {
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let mut client = Client::connect(socket, PATIENCE)?;
        client
            .send(&admin_authd::Request::Hello(AdminHello::of(0)))
            .map_err(broken)?;
        match client.receive().map_err(broken)? {
            admin_authd::Reply::Hello(_) => Ok(Self(client.into())),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    pub fn ask(&self, request: &admin_authd::Request) -> admin_authd::Reply {
        let mut client = self.0.borrow_mut();
        client.send(request).unwrap();
        client.receive().unwrap()
    }

    pub fn status(&self) -> AuthdStatus {
        match self.ask(&admin_authd::Request::Status) {
            admin_authd::Reply::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    /// Everybody who is enrolled.
    pub fn enrolments(&self) -> Vec<Enrolment> {
        let mut found = Vec::new();
        let mut reply = self.ask(&admin_authd::Request::Enrolments);
        loop {
            match reply {
                admin_authd::Reply::Enrolment(enrolment) => found.push(enrolment),
                admin_authd::Reply::EnrolmentsEnd => return found,
                other => panic!("{other:?}"),
            }
            reply = self.0.borrow_mut().receive().unwrap();
        }
    }

    /// A new secret, not yet confirmed.
    pub fn enrol(&self, user: &User, replace: bool) -> Secret {
        match self.ask(&admin_authd::Request::Enrol {
            user: user.clone(),
            replace,
        }) {
            admin_authd::Reply::Secret(secret) => secret,
            other => panic!("{other:?}"),
        }
    }

    pub fn confirm(&self, code: TotpCode) -> Vec<RecoveryCode> {
        match self.ask(&admin_authd::Request::Confirm { code }) {
            admin_authd::Reply::Confirmed(codes) => codes,
            other => panic!("{other:?}"),
        }
    }
}
