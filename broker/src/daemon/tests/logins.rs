//! Logins that are not begun; those that are need a real worker, and are tested with one.

use kai_proto::admin_broker::Reply;

use super::stage::Stage;

fn refusal(reply: Reply) -> String {
    match reply {
        Reply::LoginRefused(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_login_for_nobody_is_refused_with_who_there_is_and_both_are_in_the_log() {
    let running = Stage::new().run();

    let why = refusal(running.log_in("mallory"));

    assert_eq!(why, "users.yaml has no user `mallory`; it has alice, bob");
    let asked = &running.lines("admin.login")[0];
    assert_eq!(
        (&asked["admin"], &asked["user"]),
        (&7.into(), &"mallory".into())
    );
    let refused = &running.lines("login.refused")[0];
    assert_eq!(refused["why"], why);
}

#[test]
fn a_login_that_cannot_be_written_down_is_not_begun() {
    let running = Stage::new().without_audit().run();

    let why = refusal(running.log_in("alice"));

    assert!(why.contains("audit log cannot be written"), "{why}");
    assert!(running.lines("login.started").is_empty());
}

#[test]
fn a_login_whose_worker_cannot_be_started_says_why() {
    let running = Stage::new().run();

    let why = refusal(running.log_in("bob"));

    assert!(!why.is_empty());
    assert_eq!(running.lines("login.refused")[0]["why"], why);
    assert!(running.lines("login.started").is_empty());
}
