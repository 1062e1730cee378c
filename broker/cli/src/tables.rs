//! Tables for people.

use std::time::{SystemTime, UNIX_EPOCH};

use comfy_table::{Table, presets};
use kai_proto::ids::UnixSeconds;

use crate::{
    agent_login::AgentLogin,
    layers::{Layer, Standing, Witness},
    status::{Status, UserShown, WorkerShown},
    strangers::StrangerShown,
};

/// The whole of `kai-broker status`.
#[must_use]
pub fn status(status: &Status) -> String {
    let broker = &status.broker;
    let yes = |connected: bool| {
        if connected {
            "connected"
        } else {
            "NOT connected"
        }
    };
    let mut text = format!(
        "kai-brokerd pid {}, up {}; gateway {}, authd {}; {} of at most {} workers\n\n{}\n\n{}",
        broker.pid,
        span(broker.uptime_seconds),
        yes(broker.gateway_connected),
        yes(broker.authd_connected),
        broker.workers,
        broker.workers_limit,
        users(&status.users),
        second_factors(&status.users, unix_now()),
    );
    let workers: Vec<_> = status
        .users
        .iter()
        .filter_map(|user| Some((user, user.worker.as_ref()?)))
        .collect();
    if !workers.is_empty() {
        text.push_str("\n\n");
        text.push_str(&layers(&workers));
        text.push_str("\n* the worker's own word, given before its agent started");
        if workers
            .iter()
            .any(|(_, worker)| has_the_hosts_network(worker))
        {
            text.push_str(HOSTS_NETWORK);
        }
    }
    if let Some(lacking) = without_login(&status.users) {
        text.push_str(&lacking);
    }
    for user in status.users.iter().filter(|user| !user.weakened.is_empty()) {
        let weakened = user.weakened.join("; ");
        text.push_str(&format!("\n{}: weakened: {weakened}", user.name));
    }
    for finding in &status.findings {
        text.push_str("\n! ");
        text.push_str(finding);
    }
    text
}

/// What stands open to a worker on the host's network.
const HOSTS_NETWORK: &str = "\nNET host: open are what listens on localhost and beyond at the allowed \
    TCP ports (where this kernel holds them), every UDP port, and listening; `network: none` in users.yaml \
    closes all of it";

fn has_the_hosts_network(worker: &WorkerShown) -> bool {
    let net = worker.layers.iter().find(|layer| layer.name == "net");
    net.is_some_and(|net| net.standing == Standing::Off)
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table
}

fn users(users: &[UserShown]) -> String {
    let mut table = table(&[
        "USER", "ACCOUNT", "STATE", "WORKER", "AGENT", "SESSION", "UP", "IDLE", "MEMORY", "CPU",
        "KEY", "LOGIN",
    ]);
    for user in users {
        let account = format!("{} ({}, {})", user.account, user.uid, user.account_kind);
        let none = "-".to_owned();
        let row = match &user.worker {
            None => vec![
                user.name.clone(),
                account,
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
                none,
                user.key.to_owned(),
                user.login.word().to_owned(),
            ],
            Some(worker) => vec![
                user.name.clone(),
                account,
                worker.state.to_owned(),
                worker.pid.to_string(),
                worker.agent_pid.map_or(none.clone(), |pid| pid.to_string()),
                // The first group of a UUID tells sessions apart well enough for a table.
                worker
                    .session
                    .as_deref()
                    .map_or(none.clone(), |s| s.chars().take(8).collect()),
                span(worker.uptime_seconds),
                worker.idle_seconds.map_or(none, span),
                format!("{:.1} MiB", worker.memory_kib as f64 / 1024.0),
                format!("{:.1} s", worker.cpu_seconds),
                user.key.to_owned(),
                user.login.word().to_owned(),
            ],
        };
        table.add_row(row);
    }
    trimmed(&table)
}

/// Who lacks a login, and how the admin mends it.
fn without_login(users: &[UserShown]) -> Option<String> {
    let lacking: Vec<&UserShown> = users
        .iter()
        .filter(|user| user.login == AgentLogin::No)
        .collect();
    let command = match lacking.as_slice() {
        [] => return None,
        [one] => &one.login_command,
        _ => "sudo kai-broker login NAME",
    };
    let names: Vec<&str> = lacking.iter().map(|user| &*user.name).collect();
    let who = names.join(", ");
    Some(format!("\n{who}: the agent has no login yet: {command}"))
}

fn second_factors(users: &[UserShown], now: UnixSeconds) -> String {
    let mut table = table(&[
        "USER",
        "SECOND FACTOR",
        "ENROLLED",
        "AUTHENTICATED UNTIL",
        "LOCKED UNTIL",
        "RECOVERY",
    ]);
    for user in users {
        let shown = &user.second_factor;
        let until = |at: Option<UnixSeconds>| at.map_or("-".to_owned(), |at| until(at, now));
        let enrolled = match (shown.enrolled, shown.changed) {
            (Some(true), _) => "yes",
            (_, Some(true)) => "CHANGED",
            (Some(false), _) if shown.rule == "required" => "NO",
            (Some(false), _) => "no",
            (None, _) => "?",
        };
        table.add_row([
            user.name.clone(),
            shown.rule.to_owned(),
            enrolled.to_owned(),
            until(shown.authenticated_until),
            until(shown.locked_until),
            shown
                .recovery_left
                .map_or("-".to_owned(), |left| left.to_string()),
        ]);
    }
    trimmed(&table)
}

/// The time of day, in UTC as in the logs, with how far away it is.
fn until(at: UnixSeconds, now: UnixSeconds) -> String {
    let minutes = at / 60 % (24 * 60);
    let (hour, minute) = (minutes / 60, minutes % 60);
    let away = span(at.saturating_sub(now));
    format!("{hour:02}:{minute:02} UTC (in {away})")
}

fn layers(workers: &[(&UserShown, &WorkerShown)]) -> String {
    let mut header = vec!["USER".to_owned()];
    if let Some((_, first)) = workers.first() {
        header.extend(first.layers.iter().map(|layer| layer.name.to_uppercase()));
    }
    let mut table = table(&header.iter().map(String::as_str).collect::<Vec<_>>());
    for (user, worker) in workers {
        let mut row = vec![user.name.clone()];
        row.extend(worker.layers.iter().map(cell));
        table.add_row(row);
    }
    trimmed(&table)
}

fn cell(layer: &Layer) -> String {
    let word = match (layer.standing, layer.detail.as_str()) {
        (Standing::On, "") => "on",
        (Standing::Off, _) => "host",
        (Standing::Missing, "") => "MISSING",
        (Standing::On | Standing::Missing, detail) => detail,
    };
    let mark = if layer.witness == Witness::Worker {
        "*"
    } else {
        ""
    };
    format!("{word}{mark}")
}

/// The whole of `kai-broker strangers`.
#[must_use]
pub fn strangers(strangers: &[StrangerShown]) -> String {
    if strangers.is_empty() {
        return "nobody was turned away since the broker started".to_owned();
    }
    let now = unix_now();
    let mut table = table(&["TELEGRAM ID", "LAST WROTE", "TIMES"]);
    for stranger in strangers {
        let ago = format!("{} ago", span(now.saturating_sub(stranger.last)));
        table.add_row(vec![
            stranger.id.to_string(),
            ago,
            stranger.times.to_string(),
        ]);
    }
    trimmed(&table)
}

fn unix_now() -> UnixSeconds {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// Lines without the blanks that a table without borders leaves at both ends.
fn trimmed(table: &Table) -> String {
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    let margin = |line: &String| line.len() - line.trim_start().len();
    let margin = lines.iter().map(margin).min().unwrap_or(0);
    lines
        .iter()
        .map(|line| &line[margin..])
        .collect::<Vec<_>>()
        .join("\n")
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::second_factor::SecondFactorShown;

    fn user(name: &str, rule: &'static str, enrolled: Option<bool>) -> UserShown {
        UserShown {
            name: name.to_owned(),
            id: 1001,
            role: "user",
            account: name.to_owned(),
            uid: 1001,
            key: "login",
            login: AgentLogin::No,
            login_command: format!("sudo kai-broker login {name}"),
            second_factor: SecondFactorShown {
                rule,
                enrolled,
                changed: Some(false),
                authenticated_until: None,
                locked_until: None,
                recovery_left: None,
            },
            account_kind: "kai",
            weakened: Vec::new(),
            worker: None,
        }
    }

    #[test]
    fn who_lacks_a_login_is_named_with_the_command() {
        let logged_in = |name| UserShown {
            login: AgentLogin::Yes,
            ..user(name, "optional", None)
        };
        let lacks = |name| user(name, "optional", None);

        assert_eq!(without_login(&[logged_in("alice")]), None);
        let one = without_login(&[logged_in("alice"), lacks("bob")]).unwrap();
        assert_eq!(
            one.trim(),
            "bob: the agent has no login yet: sudo kai-broker login bob"
        );
        let two = without_login(&[lacks("alice"), lacks("bob")]).unwrap();
        assert_eq!(
            two.trim(),
            "alice, bob: the agent has no login yet: sudo kai-broker login NAME"
        );
    }

    #[test]
    fn the_table_of_second_factors_fits_a_hundred_columns() {
        let now = 1_793_613_600;
        let mut alice = user("alexandra", "required", Some(true));
        alice.second_factor.authenticated_until = Some(now + 11 * 3600 + 1200);
        alice.second_factor.locked_until = Some(now + 6 * 86_400 + 23 * 3600);
        alice.second_factor.recovery_left = Some(10);
        let users = [
            alice,
            user("bob", "required", Some(false)),
            user("carol", "optional", Some(false)),
            user("dave", "optional", None),
        ];

        let text = second_factors(&users, now);

        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.len() <= 100), "{text}");
        assert!(
            lines[1].contains("(in 11h 20m)") && lines[1].contains("(in 6d 23h)"),
            "{text}"
        );
        assert!(lines[2].contains(" NO "), "{text}");
        assert!(lines[3].contains(" no "), "{text}");
        assert!(lines[4].contains(" ? "), "{text}");
    }
}
