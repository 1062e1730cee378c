//! The real agent against the Messages API emulator.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails a test, in its helpers too"
)]

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use kai_emulators::agent;
use kai_emulators::messages_api::{Ending, Kind, Match, MessagesApi, MessagesApiOptions, Reply};
use kai_emulators::prerequisite::found_or_skipped;
use serde_json::{Value, json};
use tempfile::TempDir;

/// An agent that talks over pipes; it is killed at the end.
struct Agent {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Agent {
    /// One in this home, with more arguments.
    fn start(home: &TempDir, api: &MessagesApi, arguments: &[&str]) -> Option<Self> {
        let program = found_or_skipped(agent::program())?;
        let mut command = agent::command(&program, home.path(), api, "sk-made-up");
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Some(Self {
            child,
            stdin,
            lines,
        })
    }

    fn write(&mut self, line: Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn prompt(&mut self, text: &str) {
        self.write(json!({"type": "user", "message": {"role": "user", "content": text}}));
    }

    /// Reads up to the first line that fits, allowing every tool on the way.
    fn read_until(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self
                .lines
                .next()
                .expect("the agent ended without a result")
                .unwrap();
            let line: Value = serde_json::from_str(&line).unwrap();
            if line["request"]["subtype"] == "can_use_tool" {
                let allow = json!({"behavior": "allow", "updatedInput": line["request"]["input"]});
                let response = json!({
                    "subtype": "success", "request_id": line["request_id"], "response": allow,
                });
                self.write(json!({"type": "control_response", "response": response}));
            }
            if fits(&line) {
                return line;
            }
        }
    }

    fn result(&mut self) -> Value {
        self.read_until(|line| line["type"] == "result")
    }

    /// Lets it end by itself: one that is killed may not have written its last turn down yet.
    fn finish(mut self) {
        self.stdin = None;
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn the_agent_talks_uses_a_tool_and_resumes() {
    let keys = ["sk-made-up".to_owned()].into();
    let api = MessagesApi::start(MessagesApiOptions { port: 0, keys }).unwrap();
    let home = TempDir::new().unwrap();
    api.when(Match::contains("hello"), Reply::text("hello yourself"));
    api.once(
        Match::contains("directory"),
        Reply::nothing_yet()
            .say("Let me make it.")
            .use_tool(
                "Bash",
                json!({"command": "mkdir made-by-the-agent && echo made"}),
            )
            .then(|turn| Reply::text(format!("It says: {}", turn.tool_results[0].text))),
    );
    let Some(mut agent) = Agent::start(&home, &api, &[]) else {
        return;
    };
    agent.prompt("hello");
    let result = agent.result();
    assert_eq!(
        (&result["subtype"], &result["result"]),
        (&json!("success"), &json!("hello yourself"))
    );
    let session = result["session_id"].as_str().unwrap().to_owned();
    agent.prompt("make a directory");
    assert_eq!(agent.result()["result"], "It says: made");
    assert!(home.path().join("made-by-the-agent").is_dir());
    agent.finish();

    let resume = format!("--resume={session}");
    let Some(mut agent) = Agent::start(&home, &api, &[&resume]) else {
        return;
    };
    agent.prompt("hello again");
    assert_eq!(agent.result()["result"], "hello yourself");
    let turns = api.turns();
    let last = turns.last().unwrap();
    assert_eq!(last.key(), Some("sk-made-up"));
    assert_eq!(last.prompts(), ["hello", "make a directory", "hello again"]);
    assert_eq!(
        last.answers(),
        ["hello yourself", "Let me make it.", "It says: made"]
    );
    assert_eq!(turns.len(), 4);
    for request in api.received() {
        assert!(
            matches!(request.kind, Kind::Turn | Kind::Side | Kind::Service),
            "{request:?}"
        );
    }
}

#[test]
fn an_interrupted_answer_is_abandoned_and_the_next_prompt_works() {
    let api = MessagesApi::start(MessagesApiOptions::default()).unwrap();
    let home = TempDir::new().unwrap();
    api.when(
        Match::contains("count"),
        Reply::text("one, ").say("two, ").fall_silent(),
    );
    api.when(Match::contains("silence"), Reply::hang());
    api.when(Match::any(), Reply::text("still here"));
    let Some(mut agent) = Agent::start(&home, &api, &[]) else {
        return;
    };
    for prompt in ["count", "silence"] {
        agent.prompt(prompt);
        let asked = api.wait_for(Duration::from_secs(20), |request| {
            request.kind == Kind::Turn && request.prompts().last().is_some_and(|p| p == prompt)
        });
        assert!(asked.is_some());
        if prompt == "count" {
            agent.read_until(|line| line["event"]["delta"]["text"] == "two, ");
        }
        let request = json!({"subtype": "interrupt"});
        agent.write(json!({"type": "control_request", "request_id": prompt, "request": request}));
        assert_eq!(agent.result()["subtype"], "error_during_execution");
        let gone = api.wait_for(Duration::from_secs(5), |request| {
            request.prompts().last().is_some_and(|p| p == prompt)
                && matches!(request.ended, Some((_, Ending::Abandoned)))
        });
        assert!(gone.is_some(), "{prompt}");
    }
    agent.prompt("are you there?");
    assert_eq!(agent.result()["result"], "still here");
}

#[test]
fn a_wrong_key_becomes_an_error_result() {
    let keys = ["sk-another".to_owned()].into();
    let api = MessagesApi::start(MessagesApiOptions { port: 0, keys }).unwrap();
    let home = TempDir::new().unwrap();
    api.when(Match::any(), Reply::text("never said"));
    let Some(mut agent) = Agent::start(&home, &api, &[]) else {
        return;
    };
    agent.prompt("hello");
    let result = agent.result();
    assert_eq!(result["is_error"], true, "{result}");
    assert!(api.turns().is_empty());
    assert!(api.received().iter().any(|request| request.status == 401));
}
