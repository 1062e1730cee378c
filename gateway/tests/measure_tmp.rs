#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod stage;
use std::time::{Duration, Instant};
use kai_emulators::bot_api::*;
use stage::*;

#[test]
fn measure() {
    let stage = Stage::dark();
    stage.authd.start();
    stage.broker.start();
    let mut stage = stage;
    stage.start_gateway();
    // let it attach, several users so that the pace of edits does not matter
    let users: Vec<UserId> = (0..40).map(|n| UserId(5000 + n)).collect();
    for u in &users { stage.telegram.add_user(*u, "x", None); }
    let empty: Vec<(UserId, &[ChatId])> = users.iter().map(|u| (*u, &[][..])).collect();
    std::thread::sleep(Duration::from_millis(500));
    let pid = stage.gateway_pid();
    let pss = |what: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let line = text.lines().find(|l| l.starts_with("Pss:")).unwrap().to_owned();
        println!("{what}: {line}");
    };
    pss("idle at start");
    stage.broker.reload(&empty);
    std::thread::sleep(Duration::from_millis(300));
    let mut times = Vec::new();
    let mut firsts = Vec::new();
    for round in 0..3 {
        for u in &users {
            let chat = u.private_chat();
            let start = Instant::now();
            let sent = stage.telegram.send_text(*u, chat, "hello").unwrap();
            if round == 0 {
                let worker = stage.worker(*u);
                let p = worker.prompt().id;
                worker.answer(p, "warm");
                stage.telegram.wait_for_answer(chat, sent.message, LONG, |m| m.text() == "warm").unwrap();
                std::thread::spawn(move || loop {
                    match worker.told() {
                        Some(kai_proto::conversation::ToWorker::Prompt(p)) => {
                            worker.accept(p.id);
                            worker.text(p.id, "first words");
                            if p.text != "hello" { std::thread::sleep(Duration::from_millis(100)); }
                            worker.text(p.id, " and the rest");
                            worker.finish(p.id, kai_proto::conversation::Outcome::Done);
                        }
                        None => return,
                        _ => {}
                    }
                });
            } else {
                stage.telegram.wait_for_answer(chat, sent.message, LONG, |_| true).unwrap();
                firsts.push(start.elapsed());
                stage.telegram.wait_for_answer(chat, sent.message, LONG, |m| m.text() == "first words and the rest").unwrap();
                times.push(start.elapsed());
            }
            std::thread::sleep(Duration::from_millis(80));
        }
    }
    times.sort(); firsts.sort();
    println!("first median {:?}; final median {:?} p90 {:?}", firsts[firsts.len()/2], times[times.len()/2], times[times.len()*9/10]);
    std::thread::sleep(Duration::from_secs(5));
    pss("after 120 turns, 40 users");
}
