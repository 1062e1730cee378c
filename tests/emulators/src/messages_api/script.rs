//! What to answer: replies, and the rules that choose one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::conversation::Turn;

/// Chooses turns.
#[derive(Clone)]
pub struct Match(Arc<dyn Fn(&Turn) -> bool + Send + Sync>);

impl Match {
    /// Every turn.
    pub fn any() -> Self {
        Self::that(|_| true)
    }

    /// Turns whose prompt has these words in it.
    pub fn contains(words: &str) -> Self {
        let words = words.to_owned();
        Self::that(move |turn| turn.prompt.contains(&words))
    }

    /// Turns that a closure picks.
    pub fn that(picks: impl Fn(&Turn) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(picks))
    }
}

/// What follows when the tools of a reply have been used.
pub(super) type FollowUp = Arc<dyn Fn(&Turn) -> Reply + Send + Sync>;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Say(String),
    Pause(Duration),
    UseTool { name: String, input: Value },
    FallSilent,
}

/// One answer to one turn.
#[derive(Clone)]
pub struct Reply(pub(super) Content);

#[derive(Clone)]
pub(super) enum Content {
    Answer {
        steps: Vec<Step>,
        follow_up: Option<FollowUp>,
    },
    Error {
        status: u16,
        kind: String,
        message: String,
    },
    Hang,
}

impl Reply {
    /// Words in one piece.
    pub fn text(words: impl Into<String>) -> Self {
        Self::nothing_yet().say(words)
    }

    /// Words piece by piece, with a pause before each but the first.
    pub fn streamed<W: Into<String>>(pieces: impl IntoIterator<Item = W>, pause: Duration) -> Self {
        let mut reply = Self::nothing_yet();
        for (index, piece) in pieces.into_iter().enumerate() {
            if index > 0 {
                reply = reply.pause(pause);
            }
            reply = reply.say(piece);
        }
        reply
    }

    /// Lets the agent run a shell command, and then repeats what came out of it.
    pub fn bash(command: impl Into<String>) -> Self {
        let command: String = command.into();
        Self::tool(
            "Bash",
            json!({"command": command, "description": "As the script says"}),
        )
    }

    /// Lets the agent use any tool, and then repeats what came out of it.
    pub fn tool(name: &str, input: Value) -> Self {
        Self::nothing_yet().use_tool(name, input)
    }

    /// An error of the API, such as 529 with `overloaded_error`.
    pub fn error(status: u16, kind: &str, message: &str) -> Self {
        Self(Content::Error {
            status,
            kind: kind.to_owned(),
            message: message.to_owned(),
        })
    }

    /// No answer at all, until the agent goes away.
    pub fn hang() -> Self {
        Self(Content::Hang)
    }

    /// An answer to be built up.
    pub fn nothing_yet() -> Self {
        Self(Content::Answer {
            steps: Vec::new(),
            follow_up: None,
        })
    }

    /// Goes on with words.
    pub fn say(self, words: impl Into<String>) -> Self {
        self.step(Step::Say(words.into()))
    }

    /// Goes on after a while.
    pub fn pause(self, pause: Duration) -> Self {
        self.step(Step::Pause(pause))
    }

    /// Goes on with the use of a tool. Several of them are used together.
    pub fn use_tool(self, name: &str, input: Value) -> Self {
        self.step(Step::UseTool {
            name: name.to_owned(),
            input,
        })
    }

    /// Never goes on, though the answer is not complete.
    pub fn fall_silent(self) -> Self {
        self.step(Step::FallSilent)
    }

    /// What to answer when the tools have been used; the turn has their results.
    pub fn then(self, follow_up: impl Fn(&Turn) -> Self + Send + Sync + 'static) -> Self {
        match self.0 {
            Content::Answer { steps, .. } => Self(Content::Answer {
                steps,
                follow_up: Some(Arc::new(follow_up)),
            }),
            other => Self(other),
        }
    }

    fn step(mut self, step: Step) -> Self {
        // An error and a silence have no steps: nothing comes after them.
        if let Content::Answer { steps, .. } = &mut self.0 {
            steps.push(step);
        }
        self
    }

    /// What is said of results that nobody planned for.
    fn repeat_results(turn: &Turn) -> Self {
        let results: Vec<&str> = turn.tool_results.iter().map(|r| r.text.as_str()).collect();
        let words = results.join("\n");
        // The API has no empty texts.
        Self::text(if words.is_empty() {
            "(no output)".to_owned()
        } else {
            words
        })
    }
}

type Closure = Box<dyn FnMut(&Turn) -> Option<Reply> + Send>;

struct Rule {
    turns: Match,
    reply: Reply,
    once: bool,
    used: bool,
}

/// All that decides on replies.
#[derive(Default)]
pub(super) struct Script {
    first: Option<Closure>,
    rules: Vec<Rule>,
    /// What follows the tool uses that were asked for, by their ids.
    follow_ups: BTreeMap<String, FollowUp>,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("rules", &self.rules.len())
            .finish_non_exhaustive()
    }
}

impl Script {
    pub(super) fn add(&mut self, turns: Match, reply: Reply, once: bool) {
        self.rules.push(Rule {
            turns,
            reply,
            once,
            used: false,
        });
    }

    pub(super) fn ask_first(&mut self, closure: Closure) {
        self.first = Some(closure);
    }

    /// Plans what comes after the use of a tool.
    pub(super) fn follow_up(&mut self, tool_use_id: &str, follow_up: FollowUp) {
        self.follow_ups.insert(tool_use_id.to_owned(), follow_up);
    }

    /// The reply to a turn, if there is one. Results of tools are followed up as planned, or else
    /// repeated; a prompt goes by the rules.
    pub(super) fn reply(&mut self, turn: &Turn) -> Option<Reply> {
        if let Some(result) = turn.tool_results.first() {
            let planned = self.follow_ups.get(&result.tool_use_id);
            return Some(planned.map_or_else(|| Reply::repeat_results(turn), |then| then(turn)));
        }
        if let Some(reply) = self.first.as_mut().and_then(|ask| ask(turn)) {
            return Some(reply);
        }
        for once in [true, false] {
            let mut rules = self
                .rules
                .iter_mut()
                .filter(|rule| rule.once == once && !rule.used);
            if let Some(rule) = rules.find(|rule| (rule.turns.0)(turn)) {
                rule.used = once;
                return Some(rule.reply.clone());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closure_comes_first_then_what_is_used_once_then_the_rest() {
        let turn = Turn::new(
            BTreeMap::new(),
            json!({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).into(),
        );
        let words = |reply: Option<Reply>| match reply.map(|reply| reply.0) {
            Some(Content::Answer { steps, .. }) => format!("{steps:?}"),
            _ => String::new(),
        };
        let mut script = Script::default();
        assert_eq!(words(script.reply(&turn)), "");
        script.add(Match::any(), Reply::text("always"), false);
        script.add(Match::contains("hell"), Reply::text("once"), true);
        assert_eq!(words(script.reply(&turn)), r#"[Say("once")]"#);
        assert_eq!(words(script.reply(&turn)), r#"[Say("always")]"#);
        script.ask_first(Box::new(|turn| {
            Some(Reply::text(turn.prompt.to_uppercase()))
        }));
        assert_eq!(words(script.reply(&turn)), r#"[Say("HELLO")]"#);
    }
}
