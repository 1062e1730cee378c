//! The chat page as a browser, another account and another site's script meet it.

#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use kai_emulators::prerequisite::found_or_skipped;
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};

/// A running playground, ended as by a service manager.
struct Playground {
    child: Child,
    port: u16,
    token: String,
}

impl Playground {
    /// Starts one; none where it cannot run.
    fn start() -> Option<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kai-playground"))
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let Some(link) = lines.find(|line| line.contains("http://")) else {
            child.wait().unwrap();
            let may_be = if geteuid().is_root() {
                Ok(())
            } else {
                Err("it needs user namespaces")
            };
            assert!(
                found_or_skipped(may_be).is_none(),
                "the playground did not start"
            );
            return None;
        };
        let (address, token) = link.trim().split_once("/#").unwrap();
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        Some(Self {
            child,
            port,
            token: token.to_owned(),
        })
    }

    /// Sends a request with these headers, and gives the first bytes of the answer.
    fn ask(&self, request: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut text = format!("{request} HTTP/1.1\r\nconnection: close\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += &format!("content-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = vec![0; 4096];
        let mut length = 0;
        while length < answer.len() {
            match stream.read(&mut answer[length..]) {
                Ok(0) | Err(_) => break,
                Ok(read) => length += read,
            }
        }
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    fn status(&self, request: &str, headers: &[(&str, &str)], body: &str) -> u16 {
        let answer = self.ask(request, headers, body);
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

#[test]
fn only_whoever_has_the_link_may_look_or_act() {
    let Some(mut playground) = Playground::start() else {
        return;
    };
    let host = format!("127.0.0.1:{}", playground.port);
    let token = playground.token.clone();
    let ours = ("host", host.as_str());
    let with_token = ("x-kai-token", token.as_str());
    let json = ("content-type", "application/json");
    let say = r#"{"who": "alice", "text": "/start"}"#;

    let page = playground.ask("GET /", &[ours], "");
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    assert!(
        page.contains("content-security-policy: default-src 'none'"),
        "{page}"
    );
    assert!(!page.contains(&token));
    let status = |request, headers: &[_], body| playground.status(request, headers, body);
    assert_eq!(status("GET /", &[("host", "evil.example")], ""), 421);
    assert_eq!(status("GET /api/news", &[ours], ""), 403);
    assert_eq!(status("POST /api/say", &[ours, json], say), 403);
    let foreign = ("origin", "http://evil.example");
    assert_eq!(
        status("POST /api/say", &[ours, with_token, foreign, json], say),
        403
    );
    assert_eq!(status("POST /api/say", &[ours, with_token, json], say), 204);
    let other_kind = ("content-type", "text/plain");
    assert_eq!(
        status("POST /api/say", &[ours, with_token, other_kind], say),
        415
    );
    let nobody = r#"{"target": "worker stranger"}"#;
    assert_eq!(
        status("POST /api/kill", &[ours, with_token, json], nobody),
        404
    );

    kill(
        Pid::from_raw(playground.child.id().cast_signed()),
        Signal::SIGTERM,
    )
    .unwrap();
    assert!(playground.child.wait().unwrap().success());
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
    for name in ["page.html", "page.css", "page.js"] {
        let text = std::fs::read_to_string(page.join(name)).unwrap();
        for (at, _) in text.match_indices("://") {
            let start = text[..at]
                .rfind(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(0)
                + 1;
            // The name of a format, which nobody fetches.
            let is_namespace = text[at..].starts_with("://www.w3.org/2000/svg");
            assert!(
                is_namespace,
                "{name}: {}",
                &text[start..(at + 40).min(text.len())]
            );
        }
    }
}
