//! Users who are enrolled, and what they try.

use kai_proto::{
    code::{Code, RecoveryCode},
    gateway_authd::{User, Verdict},
    sockets,
};

use super::{
    Ground,
    authenticator::{self, Authenticator},
    peers::{Admin, user},
};

/// Somebody who is enrolled.
pub struct Member {
    pub user: User,
    pub authenticator: Authenticator,
    pub recovery: Vec<RecoveryCode>,
}

/// Enrols over the socket, which is quicker than by the command.
pub fn member(admin: &Admin, name: &str, id: i64) -> Member {
    let user = user(name, id);
    let authenticator = Authenticator::with(&admin.enrol(&user, false).0);
    let recovery = admin.confirm(authenticator.totp(authenticator::settled_step() - 1));
    Member {
        user,
        authenticator,
        recovery,
    }
}

pub fn admin(ground: &Ground) -> Admin {
    Admin::connect(&sockets::admin_authd(&ground.run())).unwrap()
}

pub fn failures(ground: &Ground, user: &User) -> u32 {
    let all = admin(ground).enrolments();
    all.iter()
        .find(|enrolment| enrolment.user == *user)
        .unwrap()
        .failures
}

/// The grant of a right code.
pub fn granted(verdict: Verdict) -> kai_proto::grant::Grant {
    match verdict {
        Verdict::Granted { grant, .. } => grant,
        other => panic!("{other:?}"),
    }
}

pub fn is_granted(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Granted { .. })
}

/// One for each thing that is tried.
pub struct Members {
    pub wrong: Member,
    pub right: Member,
    pub recovered: Member,
}

impl Members {
    pub fn enrolled(ground: &Ground) -> Self {
        let admin = admin(ground);
        Self {
            wrong: member(&admin, "wrong", 1),
            right: member(&admin, "right", 2),
            recovered: member(&admin, "recovered", 3),
        }
    }

    /// The recovery code that is tried.
    pub fn recovery(&self) -> Code {
        Code::Recovery(self.recovered.recovery[0].clone())
    }
}
