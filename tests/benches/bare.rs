//! The bare program: the same hops as a kai, and nothing else.
//!
//! It polls for updates, writes each prompt into its user's agent's standard input through a pipe,
//! reads the answer from another, posts the first words and edits in the full text. It checks
//! nobody, stores nothing, confines nothing, and is right only for the prompts of the benchmark.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
};

use serde_json::{Value, json};

/// A connection to the Bot API that is kept open.
struct Api {
    stream: BufReader<TcpStream>,
    prefix: String,
}

impl Api {
    fn connect(address: &str, token: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
            prefix: format!("/bot{token}"),
        }
    }

    fn call(&mut self, method: &str, body: &Value) -> Value {
        let body = body.to_string();
        let request = format!(
            "POST {}/{method} HTTP/1.1\r\nHost: bare\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.prefix,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).unwrap() == 0 {
                // The Telegram is gone: the measurement is over.
                return Value::Null;
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).unwrap();
        serde_json::from_slice(&answer).unwrap()
    }
}

/// One user's agent behind two pipes.
struct Agent {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Agent {
    fn start(program: &Path, home: &Path) -> Self {
        let mut child = Command::new(program)
            .args([
                "-p",
                "--input-format=stream-json",
                "--output-format=stream-json",
                "--verbose",
            ])
            .args([
                "--include-partial-messages",
                "--permission-prompt-tool=stdio",
            ])
            .args(["--setting-sources=", "--strict-mcp-config"])
            .env_clear()
            .env("HOME", home)
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            stdin,
            stdout,
        }
    }

    /// Gives one prompt; calls `text` with all text so far at each piece, until the result.
    fn turn(&mut self, prompt: &str, mut text: impl FnMut(&str)) -> String {
        let line = json!({"type": "user", "message": {"role": "user", "content": prompt}});
        self.stdin
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
        let mut so_far = String::new();
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).unwrap() == 0 {
                return so_far;
            }
            let line: Value = serde_json::from_str(&line).unwrap();
            if let Some(piece) = line["event"]["delta"]["text"].as_str() {
                so_far.push_str(piece);
                text(&so_far);
            }
            if line["type"] == "result" {
                return so_far;
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves the bot until the Telegram at `address` ends.
pub fn serve(address: String, token: String, agent: &Path, home: &Path) {
    let mut users: HashMap<i64, mpsc::Sender<String>> = HashMap::new();
    let mut api = Api::connect(&address, &token);
    let mut offset = 0;
    loop {
        let updates = api.call("GetUpdates", &json!({"offset": offset, "timeout": 30}));
        let Some(updates) = updates["result"].as_array() else {
            return;
        };
        for update in updates {
            offset = update["update_id"].as_i64().unwrap() + 1;
            let chat = update["message"]["chat"]["id"].as_i64().unwrap();
            let prompt = update["message"]["text"].as_str().unwrap().to_owned();
            let user = users.entry(chat).or_insert_with(|| {
                let (sender, prompts) = mpsc::channel::<String>();
                let mut api = Api::connect(&address, &token);
                let mut agent = Agent::start(agent, home);
                thread::spawn(move || {
                    for prompt in prompts {
                        answer(&mut api, &mut agent, chat, &prompt);
                    }
                });
                sender
            });
            user.send(prompt).unwrap();
        }
    }
}

fn answer(api: &mut Api, agent: &mut Agent, chat: i64, prompt: &str) {
    let mut posted = None;
    let full = agent.turn(prompt, |text| {
        if posted.is_none() {
            let sent = api.call("SendMessage", &json!({"chat_id": chat, "text": text}));
            posted = sent["result"]["message_id"]
                .as_i64()
                .map(|id| (id, text.to_owned()));
        }
    });
    if let Some((id, first)) = posted
        && first != full
    {
        let edit = json!({"chat_id": chat, "message_id": id, "text": full});
        api.call("EditMessageText", &edit);
    }
}
