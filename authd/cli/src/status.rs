//! `kai-auth status`: who is enrolled and how they stand, and the daemon's own word about itself.

use std::time::SystemTime;

use comfy_table::{Table, presets};
use kai_program::config::Config;
use kai_proto::{
    admin_authd::{AuthdStatus, Enrolment, RECOVERY_CODES, Reply, Request},
    ids::UnixSeconds,
};
use serde::Serialize;

use crate::{
    daemon::{self, Authd},
    failure::Failure,
    moment, terminal,
};

/// Everything that `kai-auth status` shows.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The daemon's process.
    pub pid: u32,
    /// When it started, in seconds since 1970, as all times here.
    pub started: UnixSeconds,
    /// Connections of the gateway that are open.
    pub gateway_connections: u32,
    /// True if the broker is connected.
    pub broker_connected: bool,
    /// Questions answered since the start.
    pub answered: u64,
    /// Everybody who is enrolled, by name.
    pub enrolments: Vec<EnrolmentShown>,
    /// What needs a look, one sentence each.
    pub findings: Vec<String>,
}

/// One enrolled user.
#[derive(Debug, Serialize)]
pub struct EnrolmentShown {
    /// What they are called.
    pub name: String,
    /// Who they are on Telegram.
    pub telegram_id: i64,
    /// When the enrolment was confirmed.
    pub since: UnixSeconds,
    /// The absolute end of a proof that holds.
    pub authenticated_until: Option<UnixSeconds>,
    /// Until when no code is taken.
    pub locked_until: Option<UnixSeconds>,
    /// Wrong codes since the last right one, or the last lockout.
    pub failures: u32,
    /// Recovery codes that are left.
    pub recovery_left: u8,
    /// True if the last accepted code is of a time that has not come.
    pub ahead_of_clock: bool,
}

/// Asks the daemon and prints a table, or one JSON object.
///
/// # Errors
/// [`Failure`], of reaching the daemon above all.
pub fn show(config: &Config, json: bool, now: SystemTime) -> Result<(), Failure> {
    let status = gather(&mut Authd::connect(&config.paths.run)?)?;
    let mut text = if json {
        serde_json::to_string(&status)?
    } else {
        table(&status, moment::unix(now))
    };
    text.push('\n');
    terminal::show(&text)
}

fn gather(authd: &mut Authd) -> Result<Status, Failure> {
    let Reply::Status(daemon) = authd.ask(&Request::Status)? else {
        return Err(Failure::Unexpected(daemon::NAME));
    };
    let mut enrolments = Vec::new();
    let mut reply = authd.ask(&Request::Enrolments)?;
    loop {
        match reply {
            Reply::Enrolment(enrolment) => enrolments.push(enrolment),
            Reply::EnrolmentsEnd => return Ok(status(daemon, enrolments)),
            Reply::NotDone(why) => {
                return Err(Failure::Refused(daemon::NAME, why.to_string()));
            }
            _ => return Err(Failure::Unexpected(daemon::NAME)),
        }
        reply = authd.next_reply()?;
    }
}

fn status(daemon: AuthdStatus, mut enrolments: Vec<Enrolment>) -> Status {
    enrolments.sort_by(|a, b| a.user.name.cmp(&b.user.name));
    let findings = enrolments.iter().flat_map(findings).collect();
    let shown = |enrolment: Enrolment| EnrolmentShown {
        name: enrolment.user.name.into(),
        telegram_id: enrolment.user.id.into(),
        since: enrolment.since,
        authenticated_until: enrolment.authenticated_until,
        locked_until: enrolment.locked_until,
        failures: enrolment.failures,
        recovery_left: enrolment.recovery_left,
        ahead_of_clock: enrolment.ahead_of_clock,
    };
    Status {
        pid: daemon.pid,
        started: daemon.started,
        gateway_connections: daemon.gateway_connections,
        broker_connected: daemon.broker_connected,
        answered: daemon.answered,
        enrolments: enrolments.into_iter().map(shown).collect(),
        findings,
    }
}

fn findings(enrolment: &Enrolment) -> Vec<String> {
    let name = &enrolment.user.name;
    let mut findings = Vec::new();
    if enrolment.ahead_of_clock {
        findings.push(format!(
            "{name}: codes up to a time that has not come count as used, because the clock was set back; set \
             it right, or if it is: kai-auth unlock {name}, and where that is not enough, enroll {name} again"
        ));
    }
    if enrolment.recovery_left == 0 {
        findings.push(format!(
            "{name}: no recovery code is left; `kai-auth enroll --replace` makes ten new ones"
        ));
    }
    findings
}

fn table(status: &Status, now: UnixSeconds) -> String {
    let yes = |connected| {
        if connected {
            "connected"
        } else {
            "not connected"
        }
    };
    let mut text = format!(
        "kai-authd  running, pid {}, up {}\ngateway    {}\nbroker     {}\nanswered   {}\n\n",
        status.pid,
        moment::span(now.saturating_sub(status.started)),
        yes(status.gateway_connections > 0),
        yes(status.broker_connected),
        status.answered,
    );
    if status.enrolments.is_empty() {
        text.push_str("nobody is enrolled; begin with: kai-auth enroll NAME");
    } else {
        text.push_str(&enrolments(&status.enrolments, now));
    }
    for finding in &status.findings {
        text.push_str("\n! ");
        text.push_str(finding);
    }
    text
}

fn enrolments(enrolments: &[EnrolmentShown], now: UnixSeconds) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "USER",
        "TELEGRAM ID",
        "ENROLLED",
        "AUTHENTICATED UNTIL",
        "LOCKED UNTIL",
        "WRONG CODES",
        "RECOVERY CODES",
    ]);
    let until = |at: Option<UnixSeconds>| at.map_or("-".to_owned(), |at| moment::until(at, now));
    for enrolment in enrolments {
        table.add_row([
            enrolment.name.clone(),
            enrolment.telegram_id.to_string(),
            moment::utc(enrolment.since),
            until(enrolment.authenticated_until),
            until(enrolment.locked_until),
            enrolment.failures.to_string(),
            format!("{} of {RECOVERY_CODES}", enrolment.recovery_left),
        ]);
    }
    // Without the blanks that a table without borders leaves at both ends.
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use kai_proto::admin_authd::User;

    use super::*;

    const NOW: UnixSeconds = 1_793_613_600;

    fn enrolment(name: &str) -> Enrolment {
        Enrolment {
            user: User {
                name: name.to_owned().try_into().unwrap(),
                id: 1001.try_into().unwrap(),
            },
            since: NOW - 3600,
            authenticated_until: None,
            locked_until: None,
            failures: 0,
            recovery_left: 10,
            ahead_of_clock: false,
        }
    }

    fn daemon() -> AuthdStatus {
        AuthdStatus {
            pid: 7,
            started: NOW - 60,
            gateway_connections: 1,
            broker_connected: false,
            answered: 3,
        }
    }

    #[test]
    fn the_table_shows_how_each_of_the_enrolled_stands() {
        let mut bob = enrolment("bob");
        bob.locked_until = Some(NOW + 900);
        bob.failures = 2;
        bob.recovery_left = 0;
        let mut alice = enrolment("alice");
        alice.authenticated_until = Some(NOW + 7200);
        alice.ahead_of_clock = true;

        let text = table(&status(daemon(), vec![bob, alice]), NOW);

        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "kai-authd  running, pid 7, up 1m");
        assert!(
            lines[6].starts_with("alice") && lines[7].starts_with("bob"),
            "{text}"
        );
        assert!(
            lines[6].contains("2026-11-02 08:40 UTC (in 2h 0m)") || lines[6].contains("(in 2h 0m)"),
            "{text}"
        );
        assert!(
            lines[7].contains("(in 15m)") && lines[7].ends_with("0 of 10"),
            "{text}"
        );
        assert!(
            lines[8].starts_with("! alice: ") && lines[9].starts_with("! bob: "),
            "{text}"
        );
    }

    #[test]
    fn json_has_everything() {
        let mut alice = enrolment("alice");
        alice.locked_until = Some(NOW + 900);

        let json = serde_json::to_value(status(daemon(), vec![alice])).unwrap();

        assert_eq!(json["pid"], 7);
        assert_eq!(json["gateway_connections"], 1);
        assert_eq!(json["enrolments"][0]["name"], "alice");
        assert_eq!(json["enrolments"][0]["telegram_id"], 1001);
        assert_eq!(json["enrolments"][0]["locked_until"], NOW + 900);
        assert!(json["enrolments"][0]["authenticated_until"].is_null());
        assert_eq!(json["enrolments"][0]["ahead_of_clock"], false);
    }

    #[test]
    fn nobody_enrolled_is_said_with_the_next_step() {
        assert!(table(&status(daemon(), Vec::new()), NOW).contains("kai-auth enroll NAME"));
    }
}
