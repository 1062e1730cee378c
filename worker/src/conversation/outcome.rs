//! What the end of a turn, or of an agent, means to the user. Tables and nothing else.

use kai_proto::{
    codec::shorten,
    conversation::{Failure, Outcome},
    limits,
};

use crate::agent::protocol::TurnResult;

/// What the agent writes, to its result or its standard error, when it does not know a session.
const UNKNOWN_SESSION: &str = "No conversation found with session ID";

/// What the agent writes when it has no key, or one that is refused.
const NO_LOGIN: [&str; 4] = [
    "Not logged in",
    "Invalid API key",
    "Please run /login",
    "OAuth token has expired",
];

/// The kind of failure by which a message of the agent says the same.
const NO_LOGIN_KIND: &str = "authentication_failed";

/// What a `result` line means. `stopping` is why the worker asked for the end of the turn, if it did;
/// `kind` is the kind of failure that a message of the turn told of.
#[must_use]
pub fn of_result(result: &TurnResult, kind: Option<&str>, stopping: Option<&Outcome>) -> Outcome {
    if result.subtype == "success" && !result.is_error {
        return Outcome::Done;
    }
    if let Some(stopping) = stopping {
        return stopping.clone();
    }
    let said = said(result);
    Outcome::Failed(match result.subtype.as_str() {
        "error_max_turns" => Failure::TooManySteps,
        "error_max_budget_usd" => Failure::Budget,
        _ if said.contains(UNKNOWN_SESSION) => Failure::SessionGone,
        _ if kind == Some(NO_LOGIN_KIND) || asks_for_login(&said) => Failure::NotLoggedIn,
        _ => Failure::Api(shorten(said, limits::DETAIL)),
    })
}

/// What it means that the agent ended, with this status, in the middle of a turn.
#[must_use]
pub fn of_end(status: i32, complaints: &[u8], stopping: Option<&Outcome>) -> Outcome {
    if let Some(stopping) = stopping {
        return stopping.clone();
    }
    let complaints = String::from_utf8_lossy(complaints);
    Outcome::Failed(if complaints.contains(UNKNOWN_SESSION) {
        Failure::SessionGone
    } else if asks_for_login(&complaints) {
        Failure::NotLoggedIn
    } else if status == 0 {
        Failure::NoResult
    } else {
        Failure::AgentEnded { status }
    })
}

fn asks_for_login(text: &str) -> bool {
    NO_LOGIN.iter().any(|words| text.contains(words))
}

fn said(result: &TurnResult) -> String {
    let mut said = result
        .result
        .as_ref()
        .map(|text| text.0.clone())
        .unwrap_or_default();
    for error in &result.errors {
        if !said.is_empty() {
            said.push_str("; ");
        }
        said.push_str(&error.0);
    }
    if said.is_empty() {
        result.subtype.clone()
    } else {
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::protocol::Lossy;

    fn result(subtype: &str, is_error: bool, said: &str, errors: &[&str]) -> TurnResult {
        TurnResult {
            subtype: subtype.to_owned(),
            is_error,
            result: (!said.is_empty()).then(|| Lossy(said.to_owned())),
            errors: errors
                .iter()
                .map(|error| Lossy((*error).to_owned()))
                .collect(),
            total_cost_usd: 0.0,
        }
    }

    #[test]
    fn every_result_has_its_meaning() {
        let login = "Not logged in · Please run /login";
        let gone = "No conversation found with session ID: 1";
        let api = |detail: &str| Failure::Api(detail.to_owned());
        let table = [
            (
                result("success", true, login, &[]),
                None,
                Failure::NotLoggedIn,
            ),
            (
                result(
                    "success",
                    true,
                    "Invalid API key · Fix external API key",
                    &[],
                ),
                Some("authentication_failed"),
                Failure::NotLoggedIn,
            ),
            (
                result("success", true, "API Error: 401 x", &[]),
                Some("authentication_failed"),
                Failure::NotLoggedIn,
            ),
            (
                result("success", true, "API Error: 400 x", &[]),
                Some("unknown"),
                api("API Error: 400 x"),
            ),
            (
                result("error_max_turns", false, "", &[]),
                None,
                Failure::TooManySteps,
            ),
            (
                result("error_max_budget_usd", false, "", &[]),
                None,
                Failure::Budget,
            ),
            (
                result("error_during_execution", true, "", &[gone]),
                None,
                Failure::SessionGone,
            ),
            (
                result("error_during_execution", true, "", &["a", "b"]),
                None,
                api("a; b"),
            ),
            (
                result("error_of_tomorrow", true, "", &[]),
                None,
                api("error_of_tomorrow"),
            ),
            (result("", false, "", &[]), None, api("")),
        ];

        for (result, kind, failure) in table {
            assert_eq!(
                of_result(&result, kind, None),
                Outcome::Failed(failure),
                "{result:?}"
            );
        }
    }

    #[test]
    fn a_turn_that_was_stopped_ends_for_that_reason_unless_it_was_done() {
        let silent = Outcome::Failed(Failure::Silent);
        let cut = result("error_during_execution", true, "", &[]);
        let done = result("success", false, "whole", &[]);

        assert_eq!(
            of_result(&cut, None, Some(&Outcome::Interrupted)),
            Outcome::Interrupted
        );
        assert_eq!(of_result(&cut, None, Some(&silent)), silent);
        assert_eq!(of_result(&done, None, Some(&silent)), Outcome::Done);
    }

    #[test]
    fn every_end_of_an_agent_has_its_meaning() {
        let table: [(i32, &[u8], Failure); 5] = [
            (0, b"", Failure::NoResult),
            (1, b"", Failure::AgentEnded { status: 1 }),
            (-9, b"warning", Failure::AgentEnded { status: -9 }),
            (
                1,
                b"No conversation found with session ID: x\n",
                Failure::SessionGone,
            ),
            (1, b"Not logged in", Failure::NotLoggedIn),
        ];

        for (status, complaints, failure) in table {
            assert_eq!(of_end(status, complaints, None), Outcome::Failed(failure));
        }
        assert_eq!(
            of_end(1, b"", Some(&Outcome::Interrupted)),
            Outcome::Interrupted
        );
    }

    #[test]
    fn what_the_agent_says_of_its_api_is_cut_to_size() {
        let long = result("success", true, &"é".repeat(limits::DETAIL), &[]);
        let Outcome::Failed(Failure::Api(detail)) = of_result(&long, None, None) else {
            panic!("is a failure of the API");
        };
        assert!(detail.len() <= limits::DETAIL);
    }
}
