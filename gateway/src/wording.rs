//! What kai itself says to users: each sentence names what is wrong and what to do about it.

pub mod second_factor;

use std::fmt::Write;

use kai_proto::{
    conversation::{Description, Failure, Outcome},
    gateway_broker::Refusal,
    ids::{ModelName, UnixSeconds, UserName},
};

use crate::commands::MENU;

/// In every place that says what the agent may do.
const UNASKED: &str = "Tools run without asking.";

/// To a message without text.
pub const TEXT_ONLY: &str = "I can read only text so far: write it out, or put the file where \
    your agent can read it and name its path.";
/// To an edit of a message that is still being worked on.
pub const EDIT_UNSEEN: &str =
    "Your agent does not see this edit: send what should change as a new message.";
/// To a press of a button that was made by nobody who still listens.
pub const OLD_BUTTON: &str = "This button does nothing any more.";
/// To a turn that ended well and said nothing.
pub const NO_WORDS: &str = "Your agent finished without a word.";
/// To /stop with nothing to stop.
pub const NOTHING_RUNS: &str = "Nothing is running.";
/// To /new.
pub const NEW_SESSION: &str = "Your next message begins a new conversation.";
/// While the broker cannot be reached.
pub const BROKER_AWAY: &str = "kai cannot reach your agent right now: your message is kept and \
    goes on by itself; if it takes longer, tell the admin.";
/// While authd cannot be reached.
pub const AUTHD_AWAY: &str = "The second factor cannot be checked right now: your message is \
    kept and goes on by itself; if it takes longer, tell the admin.";
/// While every place for a worker is taken.
pub const NO_PLACE: &str = "All places for agents are taken: your message is kept and goes on as \
    soon as one is free.";
/// To a message while kai stops.
pub const CLOSING: &str = "kai is being restarted: your message waits, and goes on by itself as soon as kai \
    is back.";
/// Below an answer that the end of kai cut off.
pub const CLOSED: &str = "Stopped here, because kai is being restarted. The session goes on with your next \
    message.";
/// While the inbox cannot be written.
pub const NOT_STORED: &str = "kai cannot store your message, because its disk is full or broken; \
    it is tried again until it works, and the admin should know.";
/// To a failed attach that will not mend itself.
pub const NO_WORKER: &str =
    "Your agent does not come up: tell the admin, whose broker log says why, and send it again.";
/// To /status and the like when the worker does not answer.
pub const NO_DESCRIPTION: &str =
    "Your agent's worker does not answer: /stop ends what it is doing, or wait.";
/// To /model with something that is no name.
pub const NO_MODEL_NAME: &str =
    "That is not a model's name: write /model NAME, or /model default to go back.";

/// To /start.
#[must_use]
pub fn start(name: &UserName) -> String {
    format!(
        "Hello {name}. What you write here goes to your own agent, which works as your own account \
         on this machine. {UNASKED} /help lists the commands."
    )
}

/// To /help.
#[must_use]
pub fn help() -> String {
    let mut text =
        "Write what you want done; messages are worked on one after the other.\n".to_owned();
    for (name, purpose) in MENU {
        let _ = write!(text, "\n/{name}: {purpose}");
    }
    text
}

/// To a command that does not exist.
#[must_use]
pub fn unknown_command() -> String {
    let names: Vec<String> = MENU.iter().map(|(name, _)| format!("/{name}")).collect();
    format!("I do not know this command; there are {}.", names.join(" "))
}

/// To /model.
#[must_use]
pub fn model(chosen: Option<&ModelName>, default: Option<&ModelName>) -> String {
    match (chosen, default) {
        (Some(model), _) => format!("Your next message runs with {model}."),
        (None, Some(model)) => format!("Your next message runs with {model}, your default."),
        (None, None) => "Your next message runs with your agent's own choice of model.".to_owned(),
    }
}

/// To /status with no worker attached.
#[must_use]
pub fn no_agent(waiting: usize) -> String {
    let queue = match waiting {
        0 => "Your next message starts it.".to_owned(),
        waiting => format!("Messages waiting for it: {waiting}."),
    };
    format!("No agent is running. {queue} {UNASKED}")
}

/// To /status.
#[must_use]
pub fn status(worker: &Description, name: &UserName, now: UnixSeconds) -> String {
    let or_unknown = |text: &str| match text {
        "" => "not known before its first turn".to_owned(),
        text => text.to_owned(),
    };
    let session = worker
        .session
        .map_or("none yet".to_owned(), |session| session.to_string());
    let doing = match (worker.running.is_some(), worker.queued) {
        (false, 0) => "Idle.".to_owned(),
        (false, queued) => format!("Idle, {queued} queued."),
        (true, 0) => "Working.".to_owned(),
        (true, queued) => format!("Working, {queued} queued."),
    };
    let budget = worker
        .budget_micro_usd
        .map_or(String::new(), |budget| format!(" of {}", dollars(budget)));
    let login = if worker.needs_login {
        format!("{}\n\n", not_logged_in(name))
    } else {
        String::new()
    };
    format!(
        "{doing} {UNASKED}\n\n{login}Session: {session}\nModel: {model}\nAgent: {version}\nTurns: {turns}\n\
         Cost: {cost}{budget}\nUp for: {uptime}",
        model = or_unknown(&worker.model),
        version = or_unknown(&worker.agent_version),
        turns = worker.turns,
        cost = dollars(worker.cost_micro_usd),
        uptime = span(now.saturating_sub(worker.started)),
    )
}

/// What is said below an answer that ended like this; none if it speaks for itself.
#[must_use]
pub fn outcome(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Done => None,
        Outcome::Interrupted => Some("Stopped.".to_owned()),
        Outcome::Failed(failure) => Some(self::failure(failure)),
        Outcome::NotBegun => Some(second_factor::not_begun("")),
    }
}

/// To the user of this name, whose agent cannot work for want of a login.
#[must_use]
pub fn not_logged_in(name: &UserName) -> String {
    no_login(&name.as_argument())
}

fn no_login(name: &str) -> String {
    format!(
        "Your agent is not logged in, or its key was refused: ask the admin to run sudo kai-broker login {name}"
    )
}

fn failure(failure: &Failure) -> String {
    match failure {
        Failure::AgentMissing => {
            "The agent's program is missing or cannot be run: tell the admin, who sets \
             agent.command in kai.yaml."
        }
        Failure::NotLoggedIn => return no_login("NAME"),
        Failure::AgentEnded { status } if *status < 0 => {
            return format!(
                "Your agent was ended by signal {} in the middle of this turn: send your message \
                 again.",
                status.unsigned_abs()
            );
        }
        Failure::AgentEnded { status } => {
            return format!(
                "Your agent ended by itself with status {status} in the middle of this turn: send \
                 your message again."
            );
        }
        Failure::NoResult => {
            "Your agent ended without an answer: send your message again; if it stays so, tell \
             the admin."
        }
        Failure::Silent => {
            "Your agent said nothing for too long and was stopped: send your message again."
        }
        Failure::TurnTooLong => {
            "This turn took too long and was stopped: ask for it in smaller steps."
        }
        Failure::ToolTooLong => {
            "A tool ran for too long and was stopped: ask for it in smaller steps, or in the \
             background."
        }
        Failure::Garbage => {
            "Your agent wrote something that kai does not understand: tell the admin which \
             version runs (/status)."
        }
        Failure::TooMuchOutput => {
            "The answer is longer than kai takes: ask your agent to write it to a file."
        }
        Failure::Budget => {
            "This conversation's budget is used up: begin a new one with /new, or ask the admin \
             for more."
        }
        Failure::TooManySteps => {
            "Your agent took as many steps as it may in one turn: tell it to go on."
        }
        Failure::SessionGone => {
            "Your agent no longer has the conversation that was to go on: begin a new one with \
             /new."
        }
        Failure::Api(detail) => {
            return format!("The model's API failed: {detail}\n\nTry again in a while.");
        }
        Failure::WorkerEnded => {
            "Your agent was ended in the middle of this turn: send your message again."
        }
        Failure::Disk => {
            "Your disk is full or cannot be written: free some space and send your message again."
        }
        Failure::LowSpace => {
            "Your disk is nearly full, so no new turn is begun: free some space and send your message again."
        }
        Failure::QueueFull => {
            "Too many messages are waiting: this one was not taken; send it again later."
        }
    }
    .to_owned()
}

/// What a user is told of a refused attach that waiting does not mend.
#[must_use]
pub fn refusal(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Version => {
            "kai's programs are of different versions: tell the admin to restart all of them."
        }
        Refusal::SecondFactor => {
            "Your second factor has to be proved again: send a message, and you are asked for a code."
        }
        Refusal::NotEnrolled => {
            "You need a second factor first: ask the admin to enrol you with `kai-auth enroll`."
        }
        Refusal::EnrolmentChanged => {
            "Your second factor was made for another name or Telegram id: ask the admin to enrol you \
             again with `kai-auth enroll`."
        }
        Refusal::UnknownUser => "You are no longer a user here: ask the admin.",
        Refusal::AuthdUnavailable => AUTHD_AWAY,
        Refusal::TooManyWorkers | Refusal::TooManyConnections => NO_PLACE,
        Refusal::Stopping => BROKER_AWAY,
        Refusal::NotPermitted | Refusal::LaunchFailed => NO_WORKER,
    }
}

fn dollars(micro: u64) -> String {
    format!("${}.{:02}", micro / 1_000_000, micro % 1_000_000 / 10_000)
}

fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_and_status_say_that_tools_run_without_asking() {
        let name = UserName::try_from("Alice".to_owned()).unwrap();
        assert!(start(&name).contains("ools run without asking"));
        assert!(no_agent(0).contains("ools run without asking"));
        let worker = Description {
            started: 0,
            session: None,
            agent_version: String::new(),
            model: "opus".to_owned(),
            turns: 3,
            cost_micro_usd: 1_234_567,
            budget_micro_usd: Some(5_000_000),
            running: None,
            queued: 0,
            needs_login: false,
        };
        let name = "alice".to_owned().try_into().unwrap();
        let lacks = Description {
            needs_login: true,
            ..worker.clone()
        };
        let command = "sudo kai-broker login alice";
        assert!(super::status(&lacks, &name, 7_260).contains(command));
        assert!(not_logged_in(&name).ends_with(command));
        let status = status(&worker, &name, 7_260);
        assert!(!status.contains("login"), "{status}");
        assert!(status.contains("ools run without asking"));
        assert!(status.contains("$1.23 of $5.00"), "{status}");
        assert!(status.contains("2 h 1 min"), "{status}");
    }

    #[test]
    fn only_a_good_end_needs_no_words() {
        assert_eq!(outcome(&Outcome::Done), None);
        assert!(outcome(&Outcome::Interrupted).is_some());
        let killed = Outcome::Failed(Failure::AgentEnded { status: -9 });
        assert!(outcome(&killed).unwrap().contains("signal 9"));
    }
}
