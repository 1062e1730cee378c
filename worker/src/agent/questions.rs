//! Tools of the agent that ask the user something. There are no buttons yet, so the question becomes
//! part of the answer and the user's next message answers it.

use serde::Deserialize;

/// What the agent is told instead of an answer.
pub const LATER: &str =
    "The user was shown this and answers in the next message. End your turn now.";

/// The text of what a tool asks the user; none for a tool that asks nothing.
#[must_use]
pub fn asked(tool: &str, input: &str) -> Option<String> {
    match tool {
        "AskUserQuestion" => Some(questions(input)),
        "ExitPlanMode" => Some(plan(input)),
        _ => None,
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Questions {
    questions: Vec<Question>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Question {
    question: String,
    options: Vec<Choice>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Choice {
    label: String,
    description: String,
}

fn questions(input: &str) -> String {
    let asked: Questions = serde_json::from_str(input).unwrap_or_default();
    let mut text = String::new();
    for question in asked.questions {
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str(&question.question);
        for Choice { label, description } in question.options {
            text.push_str("\n- ");
            text.push_str(&label);
            if !description.is_empty() {
                text.push_str(": ");
                text.push_str(&description);
            }
        }
    }
    if text.is_empty() {
        text.push_str("The agent has a question, and did not say which.");
    }
    text
}

fn plan(input: &str) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Plan {
        plan: String,
    }
    let Plan { plan } = serde_json::from_str(input).unwrap_or_default();
    let plan = plan.trim();
    if plan.is_empty() {
        "The agent has a plan. Shall it go on?".to_owned()
    } else {
        format!("{plan}\n\nShall the agent go on with this plan?")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_shows_its_choices_and_a_plan_asks_whether_to_go_on() {
        let input = r#"{"questions":[{"question":"Which?","header":"H","options":[{"label":"A","description":"first"},{"label":"B"}]},{"question":"Why?"}]}"#;
        assert_eq!(
            asked("AskUserQuestion", input).unwrap(),
            "Which?\n- A: first\n- B\n\nWhy?"
        );
        assert!(
            asked("ExitPlanMode", r#"{"plan":"1. x"}"#)
                .unwrap()
                .starts_with("1. x\n\n")
        );
        assert_eq!(asked("Bash", "{}"), None);
    }

    #[test]
    fn strange_input_still_says_that_something_is_asked() {
        for input in ["", "7", "{\"questions\":7}", "{\"plan\":[]}"] {
            assert!(!asked("AskUserQuestion", input).unwrap().is_empty());
            assert!(!asked("ExitPlanMode", input).unwrap().is_empty());
        }
    }
}
