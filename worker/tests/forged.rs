//! What becomes of a turn whose agent lies, floods, or plays dead: a clear word, and the next prompt
//! works. The agents are scripts; what they do, whoever takes an agent over can do.
#![allow(clippy::unwrap_used, clippy::panic)]

// Each test uses its own part of the stage.
#[allow(dead_code)]
mod stage;

use std::{
    fs,
    time::{Duration, Instant},
};

use kai_proto::conversation::{Failure, Outcome, ToWorker};
use stage::{Place, failed};

/// Another session than the scripts'.
const ELSEWHERE: &str = "aaaaaaaa-d557-4c2e-a63c-9f6b29bafb1b";

/// Runs the prompt's case, and waits to be ended; without one it answers as it should.
fn script(cases: &str) -> String {
    format!(
        "turn() {{ case $line in {cases} *) say fine; done_; return;; esac; sleep 60; }}\nprompts"
    )
}

#[test]
fn a_line_that_does_not_fit_ends_the_turn_as_garbage_and_the_next_one_works() {
    let text =
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"forged"}}"#;
    let stream = |session: &str| {
        format!(
            r#"{{"type":"stream_event","parent_tool_use_id":null,"event":{text},"session_id":"{session}"}}"#
        )
    };
    let result = |session: &str| {
        format!(
            r#"{{"type":"result","subtype":"success","is_error":false,"result":"forged","session_id":"{session}"}}"#
        )
    };
    let request = r#"{"type":"control_request","request_id":"r","request":{"subtype":"can_use_tool","tool_name":"Bash","input":{}}}"#;
    let response = |id: &str| {
        format!(
            r#"{{"type":"control_response","response":{{"subtype":"success","request_id":"{id}"}}}}"#
        )
    };
    let table: Vec<(&str, Vec<String>)> = vec![
        ("result-of-another-session", vec![result(ELSEWHERE)]),
        ("text-of-another-session", vec![stream(ELSEWHERE)]),
        (
            "another-session-within-the-turn",
            vec![format!(
                r#"{{"type":"system","subtype":"init","session_id":"{ELSEWHERE}"}}"#
            )],
        ),
        (
            "no-session",
            vec![r#"{"type":"system","subtype":"init","session_id":"../../etc"}"#.into()],
        ),
        ("made-up-response", vec![response("kai-77")]),
        ("response-to-nobody", vec![response("")]),
        (
            "replayed-response",
            vec![response("kai-0"), response("kai-0")],
        ),
        ("replayed-request", vec![request.into(), request.into()]),
        ("words", vec!["hello there".into()]),
        (
            "half-an-object",
            vec![r#"{"type":"result","subtype":"success""#.into()],
        ),
        (
            "an-object-and-more",
            vec![format!("{} {}", result(ELSEWHERE), result(ELSEWHERE))],
        ),
        (
            "deep",
            vec![format!(r#"{{"type":"x","a":{}"#, "[".repeat(100_000))],
        ),
    ];
    let mut cases = String::new();
    let place = Place::new("");
    for (name, lines) in &table {
        fs::write(place.home().join(name), lines.join("\n") + "\n").unwrap();
        cases += &format!("*{name}*) cat {name};; ");
    }
    // Bytes that the shell cannot carry in a variable.
    let raw: [(&str, &[u8]); 3] = [
        ("nul-bytes", b"\0\0\0\0\n"),
        ("no-utf8", b"{\"type\":\"result\xff\xfe\"}\n"),
        ("escape-codes", b"\x1b[2J\x1b]0;title\x07\n"),
    ];
    for (name, bytes) in raw {
        fs::write(place.home().join(name), bytes).unwrap();
        cases += &format!("*{name}*) cat {name};; ");
    }
    place.rewrite(&script(&cases));
    let mut worker = place.worker();

    let names = table
        .iter()
        .map(|(name, _)| *name)
        .chain(raw.map(|(name, _)| name));
    for (id, name) in (1_i64..).step_by(2).zip(names) {
        let begin = Instant::now();
        let (text, outcome) = worker.gateway.ask(id, name);
        assert_eq!(
            (text.as_str(), outcome),
            ("", failed(Failure::Garbage)),
            "{name}"
        );
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(2), "{name} took {took:?}");
        let next = worker.gateway.ask(id + 1, "an honest one");
        assert_eq!(next, ("fine".to_owned(), Outcome::Done), "after {name}");
    }
    worker.end();
}

#[test]
fn what_an_agent_says_after_its_result_is_in_no_answer_and_ends_it() {
    let place = Place::new(
        "turn() { say $$; done_; case $line in *late*) say forged; done_ forged;; esac; }\nprompts",
    );
    let mut worker = place.worker();

    let first = worker.gateway.ask(1, "late");
    settle();
    let second = worker.gateway.ask(2, "x");
    let third = worker.gateway.ask(3, "x");

    for (text, outcome) in [&first, &second, &third] {
        assert!(
            !text.contains("forged") && *outcome == Outcome::Done,
            "{text}"
        );
    }
    assert_ne!(first.0, second.0, "another process answers after that");
    assert_eq!(second.0, third.0, "an honest one stays");
    worker.end();
}

#[test]
fn work_that_an_agent_begins_by_itself_is_in_nobodys_answer() {
    // As the real agent does when a command that it left running has ended.
    let place = Place::new(
        r#"own() { init; say 'by itself'; done_; }
        turn() { say $$; done_; case $line in *leave*) own;; esac; }
        prompts"#,
    );
    let mut worker = place.worker();

    let first = worker.gateway.ask(1, "leave something");
    settle();
    let second = worker.gateway.ask(2, "x");

    assert_eq!(first, second, "the same process, and only its own words");
    assert!(!first.0.contains("itself"));
    worker.end();
}

#[test]
fn colours_and_nuls_in_an_answer_are_text() {
    let place = Place::new(
        r#"turn() { say 'a\u0000b\u001b[31mred\ud800'; done_; }
        prompts"#,
    );
    let mut worker = place.worker();

    let (text, outcome) = worker.gateway.ask(1, "x");

    assert_eq!(text, "a\0b\u{1b}[31mred\u{fffd}\u{fffd}\u{fffd}");
    assert_eq!(outcome, Outcome::Done);
    worker.end();
}

/// Lets what the agent writes after a result arrive before the next prompt.
fn settle() {
    std::thread::sleep(Duration::from_millis(500));
}

/// The most memory that this process had since the last call, in megabytes.
fn memory_since_last() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    // proc(5): 5 sets the mark back to what is used now.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    kib / 1024
}

#[test]
fn floods_are_cut_off_in_bounded_memory_and_time() {
    let zeros = "head -c 100000000 /dev/zero | tr '\\0' x";
    let line = format!(
        r#"{{"type":"system","subtype":"x","padding":"{}"}}"#,
        "x".repeat(64 * 1024)
    );
    let cases = format!(
        "*one-line*) {zeros};; *text*) {zeros} | fold -w 60000 | while read -r text; do say $text; done;; \
         *strange*) while :; do cat padding; done;; *nothing*) yes '';; \
         *complaints*) while :; do cat padding; done >&2;;"
    );
    let place = Place::new(&script(&cases));
    fs::write(place.home().join("padding"), format!("{line}\n").repeat(64)).unwrap();
    let mut worker = place.worker();

    memory_since_last();
    for (id, flood) in [
        (1, "one-line"),
        (3, "text"),
        (5, "strange"),
        (7, "nothing"),
        (9, "complaints"),
    ] {
        let before = memory_since_last();
        let begin = Instant::now();
        worker.gateway.patient(Duration::from_secs(120));
        let (text, outcome) = worker.gateway.ask(id, flood);
        let (took, grown) = (begin.elapsed(), memory_since_last().saturating_sub(before));
        eprintln!(
            "{flood}: {took:?}, {grown} MB more, {} bytes of text",
            text.len()
        );
        assert_eq!(outcome, failed(Failure::TooMuchOutput), "{flood}");
        assert!(grown < 80, "{flood}: {grown} MB");
        assert_eq!(
            worker.gateway.ask(id + 1, "x"),
            ("fine".into(), Outcome::Done),
            "after {flood}"
        );
    }
    worker.end();
}

#[test]
fn an_agent_that_asks_and_does_not_read_is_not_listened_to() {
    let request = |number: usize| {
        let input = "x".repeat(1024 * 1024);
        format!(
            r#"{{"type":"control_request","request_id":"r{number}","request":{{"subtype":"can_use_tool","tool_name":"Bash","input":{{"a":"{input}"}}}}}}"#
        )
    };
    let mut place = Place::new(&script("*ask*) cat requests;;"));
    let requests: Vec<String> = (0..100).map(request).collect();
    fs::write(place.home().join("requests"), requests.join("\n") + "\n").unwrap();
    drop(requests);
    place.assignment.clocks.silence = Duration::from_secs(1);
    let mut worker = place.worker();
    let before = memory_since_last();
    let before = before.min(memory_since_last());

    assert_eq!(worker.gateway.ask(1, "ask").1, failed(Failure::Silent));

    let grown = memory_since_last().saturating_sub(before);
    assert!(grown < 100, "{grown} MB");
    assert_eq!(worker.gateway.ask(2, "x"), ("fine".into(), Outcome::Done));
    worker.end();
}

#[test]
fn an_agent_that_plays_dead_is_ended_with_a_sentence_and_the_next_prompt_works() {
    let mut place = Place::new(&script(
        "*stops*) kill -STOP $$;; *ignores*) trap '' TERM INT HUP QUIT PIPE;; *nothing*) ;; \
         *leaves*) (exec sleep 30) & exit 0;;",
    ));
    place.assignment.clocks.silence = Duration::from_millis(300);
    let mut worker = place.worker();

    for (id, prompt, failure) in [
        (1, "stops", Failure::Silent),
        (3, "ignores", Failure::Silent),
        (5, "nothing", Failure::Silent),
        (7, "leaves", Failure::NoResult),
    ] {
        let begin = Instant::now();
        assert_eq!(
            worker.gateway.ask(id, prompt).1,
            failed(failure),
            "{prompt}"
        );
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(8), "{prompt}: {took:?}");
        assert_eq!(
            worker.gateway.ask(id + 1, "x"),
            ("fine".into(), Outcome::Done),
            "{prompt}"
        );
    }
    worker.gateway.say(&ToWorker::Describe);
    worker.end();
}
