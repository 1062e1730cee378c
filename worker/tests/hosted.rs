//! What a gateway sees of a worker, with a scripted agent.
#![allow(clippy::unwrap_used, clippy::panic)]

// Each test uses its own part of the stage.
#[allow(dead_code)]
mod stage;

use std::{
    fs,
    time::{Duration, Instant},
};

use kai_proto::{
    conversation::{Failure, FromWorker, Outcome, Prompt, ToWorker, TurnEvent},
    limits,
};
use stage::{Place, failed, prompt_id};

/// Answers each prompt with its text up to the first quote.
const ECHO: &str = r#"turn() { text=${line#*'"content":"'}; say "so: "; say "${text%%'"'*}"; done_; }
prompts"#;

#[test]
fn a_turn_is_accepted_started_streamed_and_finished_in_this_order() {
    let place = Place::new(ECHO);
    let mut worker = place.worker();
    let gateway = &mut worker.gateway;

    gateway.prompt(1, "hello");

    assert_eq!(gateway.event(1), TurnEvent::Accepted);
    assert_eq!(gateway.event(1), TurnEvent::Started);
    let (text, finished) = gateway.answer(1);
    assert_eq!(text, "so: hello");
    assert_eq!(
        (finished.outcome, finished.cost_micro_usd),
        (Outcome::Done, 1000)
    );
    worker.end();
}

#[test]
fn costs_are_of_the_turn_and_one_process_serves_many_turns() {
    let place = Place::new("turn() { say $$; done_; }\nprompts");
    let mut worker = place.worker();
    let gateway = &mut worker.gateway;
    gateway.prompt(1, "x");
    let first = gateway.answer(1);
    gateway.prompt(2, "x");
    let second = gateway.answer(2);

    assert_eq!(first.0, second.0, "the same process");
    assert_eq!(
        [first.1.cost_micro_usd, second.1.cost_micro_usd],
        [1000, 1000]
    );
    worker.end();
}

#[test]
fn a_prompt_sent_again_is_told_again_and_runs_once() {
    let count =
        "turn() { echo x >> $HOME/runs; say part; read -r go; say ' rest'; done_; }\nprompts";
    let place = Place::new(count);
    let mut worker = place.worker();
    worker.gateway.prompt(1, "x");
    while worker.gateway.event(1) != TurnEvent::Text("part".into()) {}

    worker.gateway.prompt(1, "x");
    assert_eq!(worker.gateway.event(1), TurnEvent::Accepted);
    assert_eq!(worker.gateway.event(1), TurnEvent::Started);
    assert_eq!(worker.gateway.event(1), TurnEvent::Text("part".into()));
    // The script takes any line as its leave to go on.
    worker.gateway.say(&ToWorker::Interrupt);
    assert_eq!(
        worker.gateway.answer(1).0,
        " rest",
        "is added to what was told"
    );
    assert_eq!(
        worker.gateway.ask(1, "x"),
        ("part rest".into(), Outcome::Done)
    );
    worker.gateway.say(&ToWorker::Acknowledge(prompt_id(1)));
    assert_eq!(worker.gateway.ask(1, "x"), (String::new(), Outcome::Done));

    assert_eq!(
        fs::read_to_string(place.home().join("runs")).unwrap(),
        "x\n"
    );
    worker.end();
}

#[test]
fn a_prompt_that_may_only_go_on_does_not_begin() {
    let place =
        Place::new("turn() { echo x >> $HOME/runs; say part; read -r go; done_; }\nprompts");
    let mut worker = place.worker();
    let go_on = |worker: &mut stage::Worker, id| {
        worker.gateway.say(&ToWorker::Prompt(Prompt {
            id: prompt_id(id),
            text: "x".to_owned(),
            model: None,
            only_if_begun: true,
        }));
    };
    go_on(&mut worker, 1);
    assert_eq!(worker.gateway.outcome(1), Outcome::NotBegun);
    assert!(!place.home().join("runs").exists());
    // Nothing is kept of it: without the condition it runs.
    worker.gateway.prompt(1, "x");
    while worker.gateway.event(1) != TurnEvent::Text("part".into()) {}
    go_on(&mut worker, 1);
    assert_eq!(worker.gateway.event(1), TurnEvent::Accepted);
    assert_eq!(worker.gateway.event(1), TurnEvent::Started);
    worker.gateway.say(&ToWorker::Interrupt);
    assert_eq!(worker.gateway.outcome(1), Outcome::Done);
    go_on(&mut worker, 1);
    assert_eq!(worker.gateway.outcome(1), Outcome::Done);
    assert_eq!(
        fs::read_to_string(place.home().join("runs")).unwrap(),
        "x\n"
    );
    worker.end();
}

#[test]
fn what_waits_behind_a_turn_begins_only_for_whoever_asks_on_the_living_connection() {
    let place =
        Place::new("turn() { echo x >> $HOME/runs; say part; read -r go; done_; }\nprompts");
    let mut worker = place.worker();
    worker.gateway.prompt(1, "x");
    while worker.gateway.event(1) != TurnEvent::Text("part".into()) {}
    worker.gateway.prompt(2, "x");
    assert_eq!(worker.gateway.event(2), TurnEvent::Accepted);
    let only_on = |id| {
        ToWorker::Prompt(Prompt {
            id: prompt_id(id),
            text: "x".to_owned(),
            model: None,
            only_if_begun: true,
        })
    };
    worker.gateway.say(&only_on(2));
    assert_eq!(worker.gateway.outcome(2), Outcome::NotBegun);
    worker.gateway.prompt(3, "x");
    assert_eq!(worker.gateway.event(3), TurnEvent::Accepted);

    worker.attach_again();
    worker.gateway.say(&only_on(3));
    assert_eq!(worker.gateway.outcome(3), Outcome::NotBegun);
    worker.gateway.say(&only_on(1));
    assert_eq!(worker.gateway.event(1), TurnEvent::Accepted);
    worker.gateway.say(&ToWorker::Interrupt);
    assert_eq!(worker.gateway.outcome(1), Outcome::Done);
    assert_eq!(
        fs::read_to_string(place.home().join("runs")).unwrap(),
        "x\n"
    );
    worker.end();
}

#[test]
fn answers_outlive_the_worker_and_what_it_was_killed_in_is_said_to_be_cut_off() {
    let place = Place::new(
        "turn() { case $line in *hang*) say half; sleep 60;; *) say whole; done_;; esac; }\nprompts",
    );
    let mut worker = place.worker();
    worker.gateway.prompt(1, "fine");
    assert_eq!(worker.gateway.outcome(1), Outcome::Done);
    worker.gateway.prompt(2, "hang");
    while worker.gateway.event(2) != TurnEvent::Text("half".into()) {}
    worker.gateway.prompt(3, "waits");
    assert_eq!(worker.gateway.event(3), TurnEvent::Accepted);
    worker.end();

    let mut worker = place.worker();
    assert_eq!(
        worker.gateway.ask(1, "fine"),
        ("whole".into(), Outcome::Done)
    );
    assert_eq!(
        worker.gateway.ask(2, "hang").1,
        failed(Failure::WorkerEnded)
    );
    assert_eq!(
        worker.gateway.ask(3, "waits"),
        ("whole".into(), Outcome::Done)
    );
    worker.end();
}

#[test]
fn every_way_to_fail_has_its_name_and_leaves_the_worker_usable() {
    let place = Place::new(
        r#"turn() { case $line in
        *crash*) kill -9 $$;;
        *seven*) say half; exit 7;;
        *zero*) exit 0;;
        *unknown*) echo 'No conversation found with session ID: x' >&2; exit 1;;
        *garbage*) echo 'this is not JSON';;
        *closed*) exec >&-; sleep 60;;
        *login*) result success true 'Not logged in';;
        *api*) result success true 'API Error: 500 it broke';;
        *budget*) result error_max_budget_usd true '';;
        *steps*) result error_max_turns true '';;
        *long*) head -c 9000000 /dev/zero | tr '\0' x; sleep 60;;
        *much*) text=$(head -c 60000 /dev/zero | tr '\0' x); while :; do say $text; done;;
        *) say fine; done_;;
        esac; }
        prompts"#,
    );
    let mut worker = place.worker();
    let table = [
        ("crash", "", Failure::AgentEnded { status: -9 }),
        ("seven", "half", Failure::AgentEnded { status: 7 }),
        ("zero", "", Failure::NoResult),
        ("unknown", "", Failure::SessionGone),
        ("garbage", "", Failure::Garbage),
        ("closed", "", Failure::AgentEnded { status: -9 }),
        ("login", "", Failure::NotLoggedIn),
        ("api", "", Failure::Api("API Error: 500 it broke".into())),
        ("budget", "", Failure::Budget),
        ("steps", "", Failure::TooManySteps),
        ("long", "", Failure::TooMuchOutput),
    ];

    let mut id = 0;
    for (prompt, text, failure) in table {
        let begin = Instant::now();
        assert_eq!(
            worker.gateway.ask(id, prompt),
            (text.to_owned(), failed(failure)),
            "{prompt}"
        );
        assert!(
            begin.elapsed() < Duration::from_secs(2),
            "{prompt} took {:?}",
            begin.elapsed()
        );
        let next = worker.gateway.ask(id + 1, "after it");
        assert_eq!(next, ("fine".to_owned(), Outcome::Done), "after {prompt}");
        id += 2;
    }
    let (text, outcome) = worker.gateway.ask(id, "much");
    assert_eq!(outcome, failed(Failure::TooMuchOutput));
    assert!(text.len() > 8_000_000 && text.len() <= 8 * 1024 * 1024);
    worker.end();
}

#[test]
fn an_agent_that_is_missing_is_said_to_be() {
    let mut place = Place::new("");
    let there = place.assignment.agent.clone();
    for missing in ["/nowhere/claude", "/etc/passwd", "/etc"] {
        place.assignment.agent = vec![missing.to_owned()];
        let mut worker = place.worker();
        assert_eq!(
            worker.gateway.ask(1, "x").1,
            failed(Failure::AgentMissing),
            "{missing}"
        );
        worker.gateway.say(&ToWorker::Acknowledge(prompt_id(1)));
        worker.end();
        fs::remove_dir_all(&place.assignment.state).unwrap();
        fs::create_dir(&place.assignment.state).unwrap();
    }
    place.assignment.agent = there;
}

#[test]
fn the_session_is_resumed_also_by_the_next_worker_and_a_new_one_is_new() {
    let place = Place::new(
        r#"turn() { whole "$ARGS"; case $line in *die*) exit 1;; esac; done_; }
        ARGS="$*"; prompts"#,
    );
    let resumed = "--resume=2c797a4c-d557-4c2e-a63c-9f6b29bafb1b";
    let mut worker = place.worker();
    let first = worker.gateway.ask(1, "die").0;
    assert!(first.contains("--input-format=stream-json") && !first.contains("--resume"));
    assert!(worker.gateway.ask(2, "x").0.contains(resumed));
    worker.end();

    let mut worker = place.worker();
    assert!(worker.gateway.ask(3, "x").0.contains(resumed));
    worker.gateway.say(&ToWorker::NewSession);
    let Some(FromWorker::Description(description)) = worker.gateway.next() else {
        panic!("a description")
    };
    assert_eq!((description.session, description.turns), (None, 0));
    assert!(!worker.gateway.ask(4, "x").0.contains("--resume"));
    worker.end();
}

#[test]
fn an_interrupt_ends_the_turn_and_what_waits_behind_it() {
    let place = Place::new(
        "turn() { case $line in *wait*) say half;; *) say fine; done_;; esac; }\nprompts",
    );
    let mut worker = place.worker();
    let gateway = &mut worker.gateway;
    gateway.prompt(1, "wait");
    gateway.prompt(2, "queued");
    assert_eq!(gateway.event(2), TurnEvent::Accepted);

    gateway.say(&ToWorker::Interrupt);

    assert_eq!(gateway.outcome(2), Outcome::Interrupted);
    assert_eq!(gateway.outcome(1), Outcome::Interrupted);
    assert_eq!(gateway.ask(3, "x"), ("fine".into(), Outcome::Done));
    worker.end();
}

#[test]
fn an_agent_that_ignores_the_interrupt_is_ended() {
    let place = Place::new(
        "turn() { case $line in *hang*) exec sleep 60;; *) say fine; done_;; esac; }\nprompts",
    );
    let mut worker = place.worker();
    worker.gateway.prompt(1, "hang");
    worker.gateway.say(&ToWorker::Interrupt);
    let begin = Instant::now();

    assert_eq!(worker.gateway.outcome(1), Outcome::Interrupted);
    let took = begin.elapsed();
    assert!(
        took > Duration::from_secs(4) && took < Duration::from_secs(7),
        "{took:?}"
    );
    assert_eq!(worker.gateway.ask(2, "x"), ("fine".into(), Outcome::Done));
    worker.end();
}

#[test]
fn the_clocks_interrupt() {
    let mut place = Place::new(
        r#"turn() { case $line in
        *silent*) say half;;
        *tool*) tool Bash;;
        *) i=0; while [ $i -lt 12 ]; do say x; i=$((i+1)); sleep 0.1; done;;
        esac; }
        prompts"#,
    );
    place.assignment.clocks.silence = Duration::from_millis(300);
    place.assignment.clocks.tool = Duration::from_millis(500);
    place.assignment.clocks.turn = Duration::from_millis(1000);
    let mut worker = place.worker();
    for (id, prompt, failure) in [
        (1, "silent", Failure::Silent),
        (2, "tool", Failure::ToolTooLong),
        (3, "chatty", Failure::TurnTooLong),
    ] {
        assert_eq!(
            worker.gateway.ask(id, prompt).1,
            failed(failure),
            "{prompt}"
        );
    }
    worker.end();
}

#[test]
fn a_second_connection_replaces_the_first_in_the_middle_of_a_turn() {
    let place = Place::new("turn() { say one; read -r go; say two; done_; }\nprompts");
    let mut worker = place.worker();
    worker.gateway.prompt(1, "x");
    while worker.gateway.event(1) != TurnEvent::Text("one".into()) {}

    let mut earlier = worker.attach_again();

    assert_eq!(earlier.next(), None);
    worker.gateway.prompt(1, "x");
    worker.gateway.say(&ToWorker::Interrupt);
    assert_eq!(worker.gateway.answer(1).0, "onetwo");
    worker.end();
}

#[test]
fn a_turn_goes_on_without_a_gateway() {
    let place = Place::new("turn() { sleep 0.3; say late; done_; }\nprompts");
    let mut worker = place.worker();
    worker.gateway.prompt(1, "x");
    while worker.gateway.event(1) != TurnEvent::Started {}

    drop(worker.attach_again());
    std::thread::sleep(Duration::from_millis(600));
    drop(worker.attach_again());

    assert_eq!(worker.gateway.ask(1, "x"), ("late".into(), Outcome::Done));
    worker.end();
}

#[test]
fn a_gateway_that_says_what_cannot_be_is_cut_off_and_the_worker_goes_on() {
    let place = Place::new(ECHO);
    let mut worker = place.worker();
    worker.gateway.send_bytes(&[0xff; 8]);
    assert_eq!(worker.gateway.next(), None);

    worker.attach_again();
    worker.gateway.say(&ToWorker::Prompt(Prompt {
        id: prompt_id(1),
        text: "x".repeat(limits::PROMPT + 1),
        model: None,
        only_if_begun: false,
    }));
    assert_eq!(worker.gateway.next(), None);

    worker.attach_again();
    worker.gateway.send_bytes(&[9, 0]);
    let begin = Instant::now();
    assert_eq!(worker.gateway.next(), None);
    assert!(begin.elapsed() >= limits::FRAME_DEADLINE);

    worker.attach_again();
    assert_eq!(worker.gateway.ask(2, "hello").0, "so: hello");
    worker.end();
}

#[test]
fn every_tool_may_run_a_question_is_shown_and_an_unknown_request_is_answered() {
    let place = Place::new(
        r#"ask() { out '{"type":"control_request","request_id":"r'$1'","request":{"subtype":"'$2'","tool_name":"'$3'","input":'"$4"'}}'; read -r answer; echo "$answer" >> $HOME/answers; }
        turn() {
            block; say before
            ask 1 can_use_tool Bash '{"command":"id","n":1.0}'
            ask 2 can_use_tool AskUserQuestion '{"questions":[{"question":"Which?","options":[{"label":"A"}]}]}'
            ask 3 hook_callback x '{}'
            block; say after; done_; }
        prompts"#,
    );
    let mut worker = place.worker();

    assert_eq!(
        worker.gateway.ask(1, "x").0,
        "before\n\nWhich?\n- A\n\nafter"
    );

    let answers = fs::read_to_string(place.home().join("answers")).unwrap();
    let answers: Vec<&str> = answers.lines().collect();
    assert!(answers[0].contains(r#""behavior":"allow","updatedInput":{"command":"id","n":1.0}"#));
    assert!(answers[1].contains(r#""behavior":"deny""#) && answers[1].contains("next message"));
    assert!(answers[2].contains(r#""subtype":"error","request_id":"r3""#));
    worker.end();
}

#[test]
fn prompts_beyond_the_queue_are_refused_and_the_others_run_in_order() {
    let place = Place::new(
        "turn() { [ -e $HOME/go ] || { while [ ! -e $HOME/go ]; do sleep 0.05; done; }; done_ ok; }\nprompts",
    );
    let mut worker = place.worker();
    for id in 0..=65 {
        worker.gateway.prompt(id, "x");
    }
    assert_eq!(worker.gateway.outcome(65), failed(Failure::QueueFull));
    fs::write(place.home().join("go"), "").unwrap();

    for id in 0..=64 {
        let (text, finished) = worker.gateway.answer(id);
        assert_eq!((text.as_str(), finished.outcome), ("ok", Outcome::Done));
    }
    worker.end();
}

#[test]
fn instructions_of_the_home_and_a_change_of_model_reach_the_agent() {
    let place = Place::new(
        r#"read -r first; MODEL=none
        turn() { case $line in *first*) out "$(printf '%s' "$first" >> $HOME/first)";; esac; echo "$MODEL" >> $HOME/models; done_ ok; }
        prompts"#,
    );
    fs::write(place.home().join("CLAUDE.md"), "be brief").unwrap();
    let mut worker = place.worker();
    let mut ask = |id, model: Option<&str>| {
        worker.gateway.say(&ToWorker::Prompt(Prompt {
            id: prompt_id(id),
            text: if id == 1 { "first".into() } else { "x".into() },
            model: model.map(|model| model.to_owned().try_into().unwrap()),
            only_if_begun: false,
        }));
        worker.gateway.outcome(id)
    };
    for (id, model) in [(1, None), (2, Some("opus")), (3, Some("opus")), (4, None)] {
        assert_eq!(ask(id, model), Outcome::Done);
    }

    let first = fs::read_to_string(place.home().join("first")).unwrap();
    assert!(
        first.contains(r#""appendSystemPrompt":"be brief""#),
        "{first}"
    );
    let models = fs::read_to_string(place.home().join("models")).unwrap();
    let models: Vec<&str> = models.lines().collect();
    assert_eq!(models[0], "none");
    assert!(models[1].contains(r#""model":"opus""#));
    assert_eq!(models[1], models[2], "nothing is said when nothing changes");
    assert!(models[3].contains(r#""model":"default""#));
    worker.end();
}

#[test]
fn below_the_free_space_of_the_policy_a_turn_is_refused_and_the_agent_never_sees_it() {
    let mut place = Place::new("turn() { say text; done_; }\nprompts");
    place.assignment.walls.free = u64::MAX;
    let mut worker = place.worker();
    assert_eq!(
        worker.gateway.ask(1, "x"),
        (String::new(), failed(Failure::LowSpace))
    );
    worker.end();

    place.assignment.walls.free = 4096;
    let mut worker = place.worker();
    assert_eq!(worker.gateway.ask(2, "x"), ("text".into(), Outcome::Done));
    worker.end();
}

#[test]
fn what_the_disk_does_not_take_is_said_and_told_again() {
    let place = Place::new("turn() { say text; done_; }\nprompts");
    let mut worker = place.worker();
    assert_eq!(worker.gateway.ask(1, "x").1, Outcome::Done);
    let answers = std::path::Path::new(&place.assignment.state).join("answers");
    fs::remove_dir_all(&answers).unwrap();
    fs::write(&answers, "in the way").unwrap();

    assert_eq!(
        worker.gateway.ask(2, "x"),
        ("text".into(), failed(Failure::Disk))
    );
    assert_eq!(worker.gateway.ask(2, "x").1, failed(Failure::Disk));
    fs::remove_file(&answers).unwrap();
    assert_eq!(worker.gateway.ask(3, "x"), ("text".into(), Outcome::Done));
    worker.end();
}

#[test]
fn the_broker_hears_of_the_agent_and_the_turn() {
    let place = Place::new("turn() { say $$; done_; }\nprompts");
    let mut worker = place.worker();
    assert_eq!(worker.report().agent_pid, 0);
    let pid: u32 = worker.gateway.ask(1, "x").0.parse().unwrap();

    let report = loop {
        let report = worker.report();
        if report.turns == 1 {
            break report;
        }
    };

    assert_eq!((report.agent_pid, report.in_turn), (pid, false));
    assert!(report.session().is_some());
    worker.end();
}

#[test]
fn without_pieces_whole_messages_are_the_answer_and_a_bare_result_is_too() {
    let place = Place::new(
        r#"turn() { case $line in *bare*) done_ 'only a result';; *) whole one; whole two; done_ two;; esac; }
        prompts"#,
    );
    let mut worker = place.worker();

    assert_eq!(worker.gateway.ask(1, "x").0, "one\n\ntwo");
    assert_eq!(worker.gateway.ask(2, "bare").0, "only a result");
    worker.end();
}
