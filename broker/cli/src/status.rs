//! Puts the daemon's word, authd's and `/proc` together.

use std::time::{SystemTime, UNIX_EPOCH};

use kai_program::json::printable;
use kai_proto::{
    admin_authd::Enrolment,
    admin_broker::{BrokerStatus, Reply, Request, UserStatus, WorkerLife, WorkerStatus},
    ids::Role,
};
use serde::Serialize;

use crate::{
    agent_login::{self, AgentLogin},
    client::{Broker, ClientError},
    layers::{self, Layer, Standing},
    proc::{self, Tree},
    second_factor::{self, SecondFactorShown, Unknown},
};

/// Everything that `kai-broker status` shows.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The daemon.
    pub broker: BrokerShown,
    /// The users, in the order of users.yaml.
    pub users: Vec<UserShown>,
    /// What is not as it should be, one sentence each.
    pub findings: Vec<String>,
}

/// The daemon's word about itself.
#[derive(Debug, Serialize)]
pub struct BrokerShown {
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Workers that live.
    pub workers: u32,
    /// The cap on them.
    pub workers_limit: u32,
    /// True if a gateway is connected.
    pub gateway_connected: bool,
    /// True if authd is connected.
    pub authd_connected: bool,
    /// True if one key of the agent is readable by every user.
    pub shared_key: bool,
}

/// One user.
#[derive(Debug, Serialize)]
pub struct UserShown {
    /// What they are called.
    pub name: String,
    /// Who they are on Telegram.
    pub id: i64,
    /// `user` or `admin`.
    pub role: &'static str,
    /// The account of their worker.
    pub account: String,
    /// Its number.
    pub uid: u32,
    /// Where the agent's key comes from: `own`, `shared`, or `login`.
    pub key: &'static str,
    /// Whether their agent has a login, or a key in its place.
    pub login: AgentLogin,
    /// What the admin runs to give their agent a login.
    pub login_command: String,
    /// Their second factor.
    pub second_factor: SecondFactorShown,
    /// `login` for an account that people log in to, `kai` for one that nobody can.
    pub account_kind: &'static str,
    /// Each way in which their policy lowers a wall.
    pub weakened: Vec<String>,
    /// Their worker.
    pub worker: Option<WorkerShown>,
}

/// One worker.
#[derive(Debug, Serialize)]
pub struct WorkerShown {
    /// Its process id on the host.
    pub pid: u32,
    /// Its agent's process id on the host.
    pub agent_pid: Option<u32>,
    /// `starting`, `idle`, `turn` or `ending`.
    pub state: &'static str,
    /// True if a gateway is attached.
    pub attached: bool,
    /// The session, as the worker says.
    pub session: Option<String>,
    /// Turns since it began, as the worker says.
    pub turns: u32,
    /// Seconds since it was forked.
    pub uptime_seconds: u64,
    /// Seconds since it last said something.
    pub idle_seconds: Option<u64>,
    /// Processes in its PID namespace.
    pub processes: usize,
    /// Proportional set size of all of them, in KiB.
    pub memory_kib: u64,
    /// Their processor time, in seconds.
    pub cpu_seconds: f64,
    /// The layers of its confinement.
    pub layers: Vec<Layer>,
}

impl Status {
    /// True if nothing is missing and nothing differs.
    #[must_use]
    pub fn is_as_it_should_be(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Asks the daemon, reads `/proc` and takes what authd said.
///
/// # Errors
/// What the daemon's connection answers.
pub fn gather(
    broker: &mut Broker,
    enrolments: Result<Vec<Enrolment>, Unknown>,
) -> Result<Status, ClientError> {
    let Reply::Broker(daemon) = broker.ask(Request::Status)? else {
        return Err(ClientError::Unexpected);
    };
    let mut told = Vec::new();
    loop {
        match broker.next_reply()? {
            Reply::User(user) => told.push(user),
            Reply::StatusEnd => break,
            _ => return Err(ClientError::Unexpected),
        }
    }
    let trees = proc::trees();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut findings = Vec::new();
    about_the_daemon(&daemon, &mut findings);
    let enrolments = match enrolments {
        Ok(enrolments) => Some(enrolments),
        // Said already.
        Err(Unknown::Unreachable(..)) if !daemon.authd_connected => None,
        Err(why) => {
            findings.push(format!("kai-authd does not say who is enrolled: {why}"));
            None
        }
    };
    let users = told
        .iter()
        .map(|user| {
            let worker = user.worker.as_ref().map(|worker| {
                let namespace = proc::namespace(&worker.pid.to_string(), "pid");
                let tree = namespace.and_then(|namespace| trees.get(&namespace));
                show_worker(user, worker, tree, now, &mut findings)
            });
            let enrolments = enrolments.as_deref();
            let second_factor = second_factor::show(user, enrolments, &mut findings);
            show_user(user, worker, second_factor, daemon.shared_key)
        })
        .collect();
    let broker = BrokerShown {
        pid: daemon.pid,
        uptime_seconds: now.saturating_sub(daemon.started),
        workers: daemon.workers,
        workers_limit: daemon.workers_limit,
        gateway_connected: daemon.gateway_connected,
        authd_connected: daemon.authd_connected,
        shared_key: daemon.shared_key,
    };
    Ok(Status {
        broker,
        users,
        findings,
    })
}

fn about_the_daemon(daemon: &BrokerStatus, findings: &mut Vec<String>) {
    if !daemon.gateway_connected {
        findings.push("no gateway is connected: start kai-gateway".to_owned());
    }
    if !daemon.authd_connected {
        findings.push("authd is not connected, so nobody is attached: start kai-authd".to_owned());
    }
    if daemon.shared_key {
        findings.push("one key of the agent is readable by every user's agent".to_owned());
    }
}

fn show_user(
    user: &UserStatus,
    worker: Option<WorkerShown>,
    second_factor: SecondFactorShown,
    shared_key: bool,
) -> UserShown {
    UserShown {
        name: user.name.to_string(),
        id: user.id.into(),
        role: match user.role {
            Role::User => "user",
            Role::Admin => "admin",
        },
        account: user.account.to_string(),
        uid: user.uid,
        key: match (user.own_key, shared_key) {
            (true, _) => "own",
            (false, true) => "shared",
            (false, false) => "login",
        },
        login: agent_login::look(user, shared_key),
        login_command: format!("sudo kai-broker login {}", user.name.as_argument()),
        second_factor,
        account_kind: if user.login { "login" } else { "kai" },
        // users.yaml is root's, but what it says must not steer the terminal it is shown on.
        weakened: user
            .weakened
            .iter()
            .map(|words| words.chars().map(printable).collect())
            .collect(),
        worker,
    }
}

fn show_worker(
    user: &UserStatus,
    told: &WorkerStatus,
    tree: Option<&Tree>,
    now: u64,
    findings: &mut Vec<String>,
) -> WorkerShown {
    let nothing = Tree::default();
    let seen = tree.unwrap_or(&nothing);
    let report = told.report.as_ref();
    let settled = told.life == WorkerLife::Live;
    if settled && tree.is_none() {
        findings.push(format!(
            "{}: the daemon has worker {}, and /proc has no such process in a namespace of its own",
            user.name, told.pid
        ));
    }
    let inner_agent = report.map_or(0, |report| report.agent_pid);
    let agent_pid = seen.by_inner_pid.get(&inner_agent).copied();
    if settled && inner_agent != 0 && agent_pid.is_none() && tree.is_some() {
        findings.push(format!(
            "{}: the agent that the worker reports is not in /proc",
            user.name
        ));
    }
    let layers = layers::judge(told.pid, user.uid, seen, report);
    if settled {
        let missing = layers
            .iter()
            .filter(|layer| layer.standing == Standing::Missing);
        findings.extend(missing.map(|layer| format!("{}: {} is missing", user.name, layer.name)));
    }
    WorkerShown {
        pid: told.pid,
        agent_pid,
        state: match (told.life, report.is_some_and(|report| report.in_turn)) {
            (WorkerLife::Starting, _) => "starting",
            (WorkerLife::Dying, _) => "ending",
            (WorkerLife::Live, true) => "turn",
            (WorkerLife::Live, false) => "idle",
        },
        attached: told.attached,
        session: report
            .and_then(|report| report.session())
            .map(|session| session.to_string()),
        turns: report.map_or(0, |report| report.turns),
        uptime_seconds: now.saturating_sub(told.started),
        idle_seconds: report
            .filter(|report| !report.in_turn)
            .map(|_| now.saturating_sub(told.reported)),
        processes: seen.processes.len(),
        memory_kib: seen.memory_kib,
        cpu_seconds: seen.cpu_seconds,
        layers,
    }
}
