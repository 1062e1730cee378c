//! One prompt after the other, and the answer to each.

use std::{
    collections::VecDeque,
    env, io,
    path::PathBuf,
    process,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    flags::Flags,
    host::{First, Host, Said},
    session::{NoSession, Session},
    shell::{self, Decoder, Shell},
    speech::{End, PRICE_MICRO_USD, Speech},
    words::{self, Word},
};

/// Longest output of a command that becomes part of the answer, in bytes.
const OUTPUT: usize = 1024 * 1024;

/// Why the agent ends.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// There is no session.
    #[error(transparent)]
    Session(#[from] NoSession),
    /// The host is gone, or said what is not of the protocol.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// How a turn went.
enum Went {
    /// To its end; the text of the last message.
    Well(String),
    /// Until the host interrupted it.
    Interrupted,
}

struct Agent<'a> {
    flags: &'a Flags,
    host: Host,
    speech: Speech,
    session: Session,
    prompts: VecDeque<String>,
    model: String,
    requests: u64,
    spent_micro_usd: u64,
}

/// Answers prompts until standard input ends.
///
/// # Errors
/// [`Ended`].
pub fn serve(flags: &Flags) -> Result<(), Ended> {
    if let Some(file) = &flags.append {
        std::fs::read_to_string(file)?;
    }
    let home = PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/".into()));
    let session = match Session::open(&home, flags.resume, flags.session) {
        Err(NoSession::Unknown(id)) => {
            let said = NoSession::Unknown(id).to_string();
            let mut speech = Speech::new(id, flags.partial);
            speech.result(&End {
                subtype: "error_during_execution",
                result: "",
                error: Some(&said),
                duration_ms: 0,
                total_micro_usd: 0,
            });
            speech.send()?;
            return Err(NoSession::Unknown(id).into());
        }
        other => other?,
    };
    let mut agent = Agent {
        flags,
        host: Host::default(),
        speech: Speech::new(session.id, flags.partial),
        session,
        prompts: VecDeque::new(),
        model: flags.model.clone().unwrap_or_else(|| "play".to_owned()),
        requests: 0,
        spent_micro_usd: 0,
    };
    loop {
        if let Some(prompt) = agent.prompts.pop_front() {
            agent.turn(&prompt)?;
            continue;
        }
        match agent.host.wait(None, None)? {
            First::Said(said) => drop(agent.heard(said)?),
            First::End => return Ok(()),
            First::Other | First::Time => {}
        }
    }
}

impl Agent<'_> {
    /// Takes a line; true if it interrupts.
    fn heard(&mut self, said: Said) -> io::Result<bool> {
        let Said::Request { id, request } = said else {
            match said {
                Said::Prompt(prompt) => self.prompts.push_back(prompt),
                // An answer that nobody waits for came too late.
                Said::Response(_) | Said::Request { .. } => {}
            }
            return Ok(false);
        };
        let subtype = request
            .get("subtype")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let answer = match subtype {
            "initialize" => Ok(json!({
                "commands": [], "agents": [], "models": [], "account": {},
                "output_style": "default", "available_output_styles": ["default"],
                "pid": process::id(),
            })),
            "set_model" => {
                let model = request
                    .get("model")
                    .and_then(Value::as_str)
                    .unwrap_or("default");
                self.model = if model == "default" { "play" } else { model }.to_owned();
                Ok(json!({}))
            }
            "interrupt" | "set_permission_mode" | "set_max_thinking_tokens" => Ok(json!({})),
            other => Err(format!("Unsupported control request subtype: {other}")),
        };
        let response = match answer {
            Ok(answer) => json!({"subtype": "success", "request_id": id, "response": answer}),
            Err(error) => json!({"subtype": "error", "request_id": id, "error": error}),
        };
        self.speech
            .control(&json!({"type": "control_response", "response": response}));
        self.speech.send()?;
        Ok(subtype == "interrupt")
    }

    fn turn(&mut self, prompt: &str) -> io::Result<()> {
        let begun = Instant::now();
        self.session.remember(prompt)?;
        let cwd = env::current_dir().unwrap_or_default();
        self.speech.init(&cwd.to_string_lossy(), &self.model);
        let over = |agent: &Self| {
            agent
                .flags
                .budget_micro_usd
                .is_some_and(|budget| agent.spent_micro_usd >= budget)
        };
        let went = if over(self) {
            Ok(Went::Well(String::new()))
        } else {
            self.answer(prompt)
        }?;
        let spent_before = over(self);
        if !spent_before {
            self.spent_micro_usd += PRICE_MICRO_USD;
        }
        let (subtype, result, error) = match &went {
            _ if spent_before => ("error_max_budget_usd", "", Some("the budget is used up")),
            Went::Well(text) => ("success", text.as_str(), None),
            Went::Interrupted => ("error_during_execution", "", Some("Request was aborted.")),
        };
        self.speech.result(&End {
            subtype,
            result,
            error,
            duration_ms: begun.elapsed().as_millis(),
            total_micro_usd: self.spent_micro_usd,
        });
        self.speech.send()
    }

    fn answer(&mut self, prompt: &str) -> io::Result<Went> {
        match words::read(prompt) {
            Word::Say(text) => self.say(&[&text]),
            Word::Markdown => self.say(&[words::SAMPLE]),
            Word::Bench => {
                self.begin();
                self.speech.text("first");
                self.speech.send()?;
                self.speech.text(" and the rest.");
                self.speech.end("end_turn");
                Ok(Went::Well("first and the rest.".into()))
            }
            Word::WhoamiSession => {
                let text = format!(
                    "session {}, {} prompts remembered",
                    self.session.id,
                    self.session.prompts()
                );
                self.say(&[&text])
            }
            Word::Slow(time, text) => self.slowly(time, &text),
            Word::Ask => self.ask_the_user(),
            Word::Flood => self.flood(),
            Word::Shell(command) => self.shell(&command),
            Word::Lie(lie) => {
                self.begin();
                self.speech.send()?;
                lie.tell()?;
                self.say(&["nobody noticed"])
            }
            Word::BigLine(megabytes) => {
                let padding = "x".repeat(megabytes << 20);
                self.speech
                    .control(&json!({"type": "system", "subtype": "big_line", "padding": padding}));
                self.say(&["that was a long line"])
            }
            Word::Garbage => {
                self.speech.raw(b"this line is not JSON");
                self.say(&["that line was not JSON"])
            }
            Word::Crash => {
                self.speech.send()?;
                process::abort()
            }
            Word::Exit0 => {
                self.speech.send()?;
                process::exit(0)
            }
            Word::Hang => {
                self.speech.send()?;
                loop {
                    std::thread::park();
                }
            }
        }
    }

    fn begin(&mut self) {
        let model = self.model.clone();
        self.speech.begin(&model);
    }

    fn say(&mut self, pieces: &[&str]) -> io::Result<Went> {
        self.begin();
        for piece in pieces {
            self.speech.text(piece);
        }
        self.speech.end("end_turn");
        Ok(Went::Well(pieces.concat()))
    }

    fn slowly(&mut self, time: Duration, text: &str) -> io::Result<Went> {
        let pieces: Vec<&str> = text.split_inclusive(' ').collect();
        let step = time / u32::try_from(pieces.len().max(1)).unwrap_or(u32::MAX);
        let mut next = Instant::now();
        self.begin();
        for piece in pieces {
            self.speech.text(piece);
            self.speech.send()?;
            next += step;
            if self.pause(next)? {
                return Ok(self.broken_off());
            }
        }
        self.speech.end("end_turn");
        Ok(Went::Well(text.to_owned()))
    }

    fn broken_off(&mut self) -> Went {
        self.speech.end("end_turn");
        Went::Interrupted
    }

    /// Listens until then; true if interrupted.
    fn pause(&mut self, until: Instant) -> io::Result<bool> {
        loop {
            match self.host.wait(None, Some(until))? {
                First::Said(said) => {
                    if self.heard(said)? {
                        return Ok(true);
                    }
                }
                First::Time | First::End | First::Other => return Ok(false),
            }
        }
    }

    fn flood(&mut self) -> io::Result<Went> {
        let wave = "all work and no play ".repeat(200);
        self.begin();
        loop {
            self.speech.text(&wave);
            self.speech.send()?;
            if self.pause(Instant::now())? {
                return Ok(self.broken_off());
            }
        }
    }

    /// Calls a tool, and asks the host if it is to be asked: its input if it may run, or why not.
    fn call(&mut self, tool: &str, input: &Value) -> io::Result<Call> {
        self.begin();
        let id = self.speech.tool(tool, input);
        self.speech.end("tool_use");
        if !self.flags.ask {
            return Ok(Call::Denied(
                id,
                "nobody can be asked whether it may run".into(),
            ));
        }
        self.requests += 1;
        let request = format!("play-{}", self.requests);
        self.speech.control(
            &json!({"type": "control_request", "request_id": request, "request": {
                "subtype": "can_use_tool", "tool_name": tool, "input": input, "tool_use_id": id,
            }}),
        );
        self.speech.send()?;
        loop {
            match self.host.wait(None, None)? {
                First::Said(Said::Response(response)) if response["request_id"] == *request => {
                    let answer = &response["response"];
                    return Ok(match answer["behavior"].as_str() {
                        Some("allow") => Call::Allowed(id, answer["updatedInput"].clone()),
                        Some("deny") => {
                            let why = answer["message"].as_str().unwrap_or("denied");
                            Call::Denied(id, why.to_owned())
                        }
                        _ => Call::Denied(id, "the host's answer is none".into()),
                    });
                }
                First::Said(said) => {
                    if self.heard(said)? {
                        self.speech.control(&json!({
                            "type": "control_cancel_request", "request_id": request,
                        }));
                        self.speech.tool_result(&id, "Interrupted", true);
                        return Ok(Call::Interrupted);
                    }
                }
                First::End => {
                    return Ok(Call::Denied(id, "there is nobody left to ask".into()));
                }
                First::Other | First::Time => {}
            }
        }
    }

    fn ask_the_user(&mut self) -> io::Result<Went> {
        let input = json!({"questions": [{
            "question": "Which colour shall it have?", "header": "Colour", "multiSelect": false,
            "options": [
                {"label": "Red", "description": "like fire"},
                {"label": "Blue", "description": "like the sea"},
            ],
        }]});
        match self.call("AskUserQuestion", &input)? {
            Call::Interrupted => Ok(Went::Interrupted),
            Call::Allowed(id, input) => {
                let answers = input["answers"].to_string();
                self.speech.tool_result(&id, &answers, false);
                self.say(&["You chose ", &answers])
            }
            Call::Denied(id, why) => {
                self.speech.tool_result(&id, &why, true);
                self.say(&["I shall wait for your answer."])
            }
        }
    }

    fn shell(&mut self, command: &str) -> io::Result<Went> {
        let input = json!({"command": command, "description": "What the user asked for"});
        let (id, input) = match self.call("Bash", &input)? {
            Call::Interrupted => return Ok(Went::Interrupted),
            Call::Allowed(id, input) => (id, input),
            Call::Denied(id, why) => {
                self.speech.tool_result(&id, &why, true);
                return self.say(&["I may not run that: ", &why]);
            }
        };
        let mut shell = match Shell::start(input["command"].as_str().unwrap_or(command)) {
            Ok(shell) => shell,
            Err(error) => {
                self.speech.tool_result(&id, &error.to_string(), true);
                return self.say(&["The shell cannot be started: ", &error.to_string()]);
            }
        };
        self.begin();
        let mut block = Block::default();
        let mut chunk = [0; 8 * 1024];
        let mut cut = false;
        loop {
            match self
                .host
                .wait(Some(std::os::fd::AsFd::as_fd(&shell)), None)?
            {
                First::Said(said) => {
                    if self.heard(said)? {
                        shell.end();
                        self.speech.tool_result(&id, "Interrupted", true);
                        return Ok(self.broken_off());
                    }
                }
                First::Other | First::Time | First::End => {
                    let count = shell.read(&mut chunk)?;
                    if count == 0 {
                        break;
                    }
                    if block.output.len() + count > OUTPUT {
                        cut = true;
                        shell.end();
                        break;
                    }
                    block.add(&chunk[..count], &mut self.speech);
                    self.speech.send()?;
                }
            }
        }
        let status = shell.wait()?;
        let remark = if cut {
            Some("ended: that was more output than fits an answer".to_owned())
        } else {
            shell::remark(status)
        };
        let (output, text) = block.end(remark.as_deref(), &mut self.speech);
        self.speech
            .tool_result(&id, &output, cut || !status.success());
        self.speech.end("end_turn");
        Ok(Went::Well(text))
    }
}

enum Call {
    Allowed(String, Value),
    Denied(String, String),
    Interrupted,
}

/// A command's output as a block of code.
#[derive(Default)]
struct Block {
    decoder: Decoder,
    output: String,
    text: String,
}

impl Block {
    fn add(&mut self, bytes: &[u8], speech: &mut Speech) {
        let text = self.decoder.text(bytes);
        self.say(&text, speech);
    }

    fn say(&mut self, text: &str, speech: &mut Speech) {
        if text.is_empty() {
            return;
        }
        let piece = if self.output.is_empty() {
            format!("```\n{text}")
        } else {
            text.to_owned()
        };
        self.output.push_str(text);
        self.text.push_str(&piece);
        speech.text(&piece);
    }

    /// Ends the block with a remark; the output, and the whole text.
    fn end(mut self, remark: Option<&str>, speech: &mut Speech) -> (String, String) {
        let rest = std::mem::take(&mut self.decoder).finish();
        self.say(&rest, speech);
        let mut tail = String::new();
        if !self.output.is_empty() {
            tail.push_str(if self.output.ends_with('\n') {
                "```"
            } else {
                "\n```"
            });
        }
        match remark {
            Some(remark) if tail.is_empty() => tail.push_str(remark),
            Some(remark) => tail = format!("{tail}\n{remark}"),
            None if tail.is_empty() => tail.push_str("Done, without output."),
            None => {}
        }
        speech.text(&tail);
        self.text.push_str(&tail);
        (self.output, self.text)
    }
}
