//! How each user stands with authd, asked of authd itself: the broker does not know who is enrolled.

use std::{io, path::Path, time::Duration};

use kai_proto::{
    admin_authd::{Enrolment, NotDone, Refusal, Reply, Request},
    admin_broker::UserStatus,
    connection::{Client, ConnectionError},
    gateway_broker::SecondFactor,
    hello::AdminHello,
    ids::{UnixSeconds, UserName},
    sockets,
};
use serde::Serialize;

/// How long authd may take over one answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why authd does not say who is enrolled.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// Nobody listens.
    #[error("it cannot be reached at {0}: {1}; start kai-authd")]
    Unreachable(String, io::Error),
    /// The connection broke.
    #[error("{0}; look at its log, and start it again")]
    Connection(#[from] ConnectionError),
    /// It refused.
    #[error("{0}")]
    Refused(Refusal),
    /// It cannot read its state.
    #[error("{0}")]
    NotDone(NotDone),
    /// It answered something else.
    #[error("it answered what was not asked; install kai's programs together")]
    Unexpected,
}

/// One user's second factor. All but the rule is authd's word, and none where authd does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecondFactorShown {
    /// `required` or `optional`.
    pub rule: &'static str,
    /// True if one is enrolled for this name and Telegram id.
    pub enrolled: Option<bool>,
    /// True if one is enrolled for this name and another id, or for this id and another name.
    pub changed: Option<bool>,
    /// The absolute end of a proof that holds, in seconds since 1970.
    pub authenticated_until: Option<UnixSeconds>,
    /// Until when no code is taken, in seconds since 1970.
    pub locked_until: Option<UnixSeconds>,
    /// Recovery codes that are left, of somebody who is enrolled.
    pub recovery_left: Option<u8>,
}

/// Asks authd for everybody who is enrolled.
///
/// # Errors
/// One sentence that says why it does not tell.
pub fn enrolments(run: &Path) -> Result<Vec<Enrolment>, Unknown> {
    let socket = sockets::admin_authd(run);
    let mut client = Client::connect(&socket, PATIENCE)
        .map_err(|error| Unknown::Unreachable(socket.display().to_string(), error))?;
    client.send(&Request::Hello(
        AdminHello::of(kai_program::admin::acting()),
    ))?;
    match client.receive()? {
        Reply::Hello(hello) if hello.matches() => {}
        Reply::Refused(refusal) => return Err(Unknown::Refused(refusal)),
        _ => return Err(Unknown::Unexpected),
    }
    client.send(&Request::Enrolments)?;
    let mut enrolments = Vec::new();
    loop {
        match client.receive()? {
            Reply::Enrolment(enrolment) => enrolments.push(enrolment),
            Reply::EnrolmentsEnd => return Ok(enrolments),
            Reply::Refused(refusal) => return Err(Unknown::Refused(refusal)),
            Reply::NotDone(why) => return Err(Unknown::NotDone(why)),
            _ => return Err(Unknown::Unexpected),
        }
    }
}

/// Puts the rule for `user` and authd's word together; what is not as it should be goes into
/// `findings`, with the mend.
#[must_use]
pub fn show(
    user: &UserStatus,
    enrolments: Option<&[Enrolment]>,
    findings: &mut Vec<String>,
) -> SecondFactorShown {
    let required = user.second_factor == SecondFactor::Required;
    let is_theirs =
        |enrolment: &&Enrolment| enrolment.user.name == user.name && enrolment.user.id == user.id;
    let is_half_theirs = |enrolment: &Enrolment| {
        (enrolment.user.name == user.name) != (enrolment.user.id == user.id)
    };
    let theirs = enrolments.and_then(|all| all.iter().find(is_theirs));
    let changed = enrolments.map(|all| all.iter().any(is_half_theirs));
    let name = &user.name;
    let argument = quoted(name);
    match (theirs, changed) {
        (_, Some(true)) => findings.push(format!(
            "{name}: the second factor is that of another name or Telegram id, so nobody is attached: \
             kai-auth enroll --replace {argument}"
        )),
        (None, Some(false)) if required => findings.push(format!(
            "{name}: must have a second factor and has none, so nobody is attached: \
             kai-auth enroll {argument}"
        )),
        (Some(enrolment), _) => findings.extend(about(enrolment, &argument)),
        _ => {}
    }
    SecondFactorShown {
        rule: if required { "required" } else { "optional" },
        enrolled: enrolments.map(|_| theirs.is_some()),
        changed,
        authenticated_until: theirs.and_then(|enrolment| enrolment.authenticated_until),
        locked_until: theirs.and_then(|enrolment| enrolment.locked_until),
        recovery_left: theirs.map(|enrolment| enrolment.recovery_left),
    }
}

fn about(enrolment: &Enrolment, argument: &str) -> Vec<String> {
    let name = &enrolment.user.name;
    let mut findings = Vec::new();
    if enrolment.ahead_of_clock {
        findings.push(format!(
            "{name}: the last code was of a time that has not come, so none is taken until then: set the \
             host's clock right, or kai-auth enroll --replace {argument}"
        ));
    }
    if enrolment.recovery_left == 0 {
        findings.push(format!(
            "{name}: no recovery code is left; ten new ones come with: \
             kai-auth enroll --replace {argument}"
        ));
    }
    findings
}

/// The name as an argument for a shell.
fn quoted(name: &UserName) -> String {
    let text = name.as_str();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.bytes().all(plain) && !text.starts_with('-') {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use kai_proto::{
        admin_authd::User,
        ids::{Role, TelegramId},
    };

    use super::*;

    fn id(id: i64) -> TelegramId {
        TelegramId::try_from(id).unwrap()
    }

    fn name(name: &str) -> UserName {
        UserName::try_from(name.to_owned()).unwrap()
    }

    fn user(rule: SecondFactor) -> UserStatus {
        UserStatus {
            id: id(11),
            name: name("alice"),
            role: Role::User,
            account: "alice".to_owned().try_into().unwrap(),
            uid: 1001,
            second_factor: rule,
            login: false,
            weakened: Vec::new(),
            own_key: false,
            worker: None,
        }
    }

    fn enrolment(called: &str, number: i64) -> Enrolment {
        Enrolment {
            user: User {
                name: name(called),
                id: id(number),
            },
            since: 1,
            authenticated_until: Some(500),
            locked_until: None,
            failures: 0,
            recovery_left: 7,
            ahead_of_clock: false,
        }
    }

    fn shown(
        rule: SecondFactor,
        enrolments: Option<&[Enrolment]>,
    ) -> (SecondFactorShown, Vec<String>) {
        let mut findings = Vec::new();
        let shown = show(&user(rule), enrolments, &mut findings);
        (shown, findings)
    }

    #[test]
    fn who_is_enrolled_is_shown_with_what_authd_says() {
        let all = [enrolment("bob", 12), enrolment("alice", 11)];
        let (shown, findings) = shown(SecondFactor::Required, Some(&all));

        let json = serde_json::to_value(&shown).unwrap();
        assert_eq!(json["rule"], "required");
        assert_eq!(json["enrolled"], true);
        assert_eq!(json["authenticated_until"], 500);
        assert!(json["locked_until"].is_null());
        assert_eq!(json["recovery_left"], 7);
        assert!(findings.is_empty(), "{findings:?}");
    }

    #[test]
    fn who_must_and_is_not_is_a_finding_and_who_need_not_is_none() {
        let others = [enrolment("bob", 12)];
        let (required, findings) = shown(SecondFactor::Required, Some(&others));
        assert_eq!(required.enrolled, Some(false));
        assert!(
            findings[0].contains("kai-auth enroll alice"),
            "{findings:?}"
        );

        let (optional, findings) = shown(SecondFactor::Optional, Some(&others));
        assert_eq!(optional.enrolled, Some(false));
        assert!(findings.is_empty(), "{findings:?}");
    }

    #[test]
    fn half_of_a_user_is_a_finding() {
        for half in [enrolment("alice", 12), enrolment("bob", 11)] {
            for rule in [SecondFactor::Required, SecondFactor::Optional] {
                let (shown, findings) = shown(rule, Some(std::slice::from_ref(&half)));
                assert_eq!((shown.enrolled, shown.changed), (Some(false), Some(true)));
                assert_eq!(shown.authenticated_until, None);
                assert_eq!(findings.len(), 1);
                assert!(findings[0].ends_with("kai-auth enroll --replace alice"));
            }
        }
    }

    #[test]
    fn a_clock_set_back_and_used_up_recovery_codes_are_findings() {
        let mut theirs = enrolment("alice", 11);
        theirs.ahead_of_clock = true;
        theirs.recovery_left = 0;

        let (_, findings) = shown(SecondFactor::Optional, Some(&[theirs]));

        assert!(findings[0].contains("set the host's clock right"));
        assert!(findings[1].contains("no recovery code is left"));
    }

    #[test]
    fn without_authds_word_only_the_rule_is_known() {
        let (shown, findings) = shown(SecondFactor::Required, None);

        assert_eq!(shown.rule, "required");
        assert_eq!((shown.enrolled, shown.recovery_left), (None, None));
        assert!(findings.is_empty());
    }

    #[test]
    fn authd_is_asked_on_its_own_socket_for_all_of_them() {
        let directory = tempfile::tempdir().unwrap();
        let listener = sockets::listen(&sockets::admin_authd(directory.path()), None).unwrap();
        listener.set_nonblocking(false).unwrap();
        let authd = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let replies = [
                Reply::Hello(kai_proto::hello::Hello::ours()),
                Reply::Enrolment(enrolment("alice", 11)),
                Reply::Enrolment(enrolment("bob", 12)),
                Reply::EnrolmentsEnd,
            ];
            let mut bytes = Vec::new();
            for reply in &replies {
                kai_proto::codec::encode_frame(reply, &mut bytes).unwrap();
            }
            std::io::Write::write_all(&mut stream, &bytes).unwrap();
            // Until the other side is done.
            let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
        });

        let all = super::enrolments(directory.path()).unwrap();

        authd.join().unwrap();
        assert_eq!(all, [enrolment("alice", 11), enrolment("bob", 12)]);
    }

    #[test]
    fn an_authd_that_is_not_there_is_one_sentence_with_the_mend() {
        let directory = tempfile::tempdir().unwrap();
        let why = enrolments(directory.path()).unwrap_err().to_string();
        assert!(
            why.ends_with("start kai-authd") && why.lines().count() == 1,
            "{why}"
        );
    }

    #[test]
    fn a_name_with_blanks_or_quotes_is_one_argument() {
        assert_eq!(quoted(&name("alice")), "alice");
        assert_eq!(quoted(&name("Bob B.")), "'Bob B.'");
        assert_eq!(quoted(&name("d'Arc; reboot")), r"'d'\''Arc; reboot'");
        assert_eq!(quoted(&name("--help")), "'--help'");
    }
}
