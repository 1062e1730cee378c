//! A Python kai that has been in use, in a tree of its own.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown, lchown},
    path::Path,
};

use crate::ground::{Ground, TOKEN, said};

/// The account that it ran as.
pub const BOT: u32 = 900;
/// What is nobody's to see.
pub const SECRETS: [&str; 5] = [
    TOKEN,
    "hunter2-webhook",
    "hunter2-weather",
    "HUNTER2TOTP",
    "hunter2-prompt",
];

const USERS: &str = "users:
- telegram_id: 11
  name: Alice
  role: admin
  os_user: alice
  github: alice-gh
  home_workspace: /srv/alice
  max_budget: 5
  model: opus
  timeout: 300
  context_window: 200000
- {telegram_id: 12, name: carol, os_user: carol}
- {telegram_id: 13, name: Dave D., os_user: dave}
- {telegram_id: 14, name: Erin E.}
";

const ENV: &str = "# the bot
export TELEGRAM_BOT_TOKEN=\"TOKEN\"
ALLOWED_USER_IDS=11,12,13,14,99
CLAUDE_MODEL=sonnet
CLAUDE_TIMEOUT_SECONDS=120
CLAUDE_MAX_BUDGET_USD=10.0
WORKSPACE_BASE=/srv/kai
WEBHOOK_PORT=8080
WEBHOOK_SECRET=hunter2-webhook
TELEGRAM_WEBHOOK_URL=https://bot.example.org/hunter2-webhook
PR_REVIEW_ENABLED=true
TOTP_SESSION_MINUTES=45
TOTP_LOCKOUT_ATTEMPTS=5
CLAUDE_IDLE_TIMEOUT=900
CLAUDE_USER=claude
WEATHER_KEY=hunter2-weather
";

/// Puts it into the tree, which has no settings of the new one then.
pub fn put(ground: &Ground) {
    fs::remove_file(ground.path("etc/kai/install.yaml")).unwrap();
    ground.write(
        "etc/kai/env",
        &ENV.replace("TOKEN\"", &format!("{TOKEN}\"")),
        0o600,
    );
    ground.write("etc/kai/users.yaml", USERS, 0o600);
    ground.write(
        "etc/kai/services.yaml",
        "services:\n  weather:\n    url: https://api.example.org/hunter2-weather\n    auth: {type: bearer, env: WEATHER_KEY}\n",
        0o600,
    );
    ground.write(
        "etc/kai/workspaces.yaml",
        "site: {model: opus, env: {KEY: hunter2-weather}}\ntools: {budget: 3}\n",
        0o644,
    );
    ground.write("etc/kai/totp.secret", "HUNTER2TOTP", 0o600);
    ground.write("etc/kai/totp.attempts", "{\"failures\": 0}", 0o600);
    ground.write(
        "etc/sudoers.d/kai",
        "kai ALL=(ALL) NOPASSWD: /usr/bin/claude\n",
        0o440,
    );
    ground.write(
        "etc/systemd/system/kai.service",
        "[Service]\nExecStart=/opt/kai/kai\n",
        0o644,
    );
    fs::create_dir_all(ground.path("etc/systemd/system/multi-user.target.wants")).unwrap();
    std::os::unix::fs::symlink(
        "/etc/systemd/system/kai.service",
        ground.path("etc/systemd/system/multi-user.target.wants/kai.service"),
    )
    .unwrap();
    ground.write("opt/kai/main.py", "print('kai')\n", 0o644);
    ground.write("opt/kai/.env", "WEBHOOK_PORT=9090\n", 0o644);
    ground.write(
        "var/lib/kai/memory/MEMORY.md",
        "# Memory\nThe server is grey.\n",
        0o600,
    );
    for chat in [11, 12, 13, 99, -100_123] {
        day(ground, chat, "2026-01-01", &line(chat, "hello"));
    }
    day(
        ground,
        12,
        "2026-01-02",
        &[line(12, "one"), line(11, "of another"), line(12, "two")].concat(),
    );
    database(ground);
    fs::create_dir_all(ground.path("home/carol")).unwrap();
    chown(ground.path("home/carol"), Some(1500), Some(1500)).unwrap();
    for place in ["opt/kai", "var/lib/kai"] {
        own(&ground.path(place), BOT);
    }
}

/// Makes carol the only one who ever used it.
pub fn of_carol_alone(ground: &Ground) {
    let users = "users: [{telegram_id: 12, name: carol, os_user: carol}]\n";
    ground.write("etc/kai/users.yaml", users, 0o600);
    let env = ground.read("etc/kai/env").replace("=11,12,13,14,99", "=12");
    ground.write("etc/kai/env", &env, 0o600);
    for chat in [11, 13, 99, -100_123] {
        fs::remove_dir_all(ground.path(&format!("var/lib/kai/history/{chat}"))).unwrap();
    }
}

pub fn line(chat: i64, text: &str) -> String {
    format!(
        "{{\"ts\": \"2026-01-01T10:00:00\", \"dir\": \"user\", \"chat_id\": {chat}, \"text\": \"{text}\", \"media\": null}}\n"
    )
}

pub fn day(ground: &Ground, chat: i64, day: &str, text: &str) {
    ground.write(
        &format!("var/lib/kai/history/{chat}/{day}.jsonl"),
        text,
        0o600,
    );
}

fn database(ground: &Ground) {
    let database = rusqlite::Connection::open(ground.path("var/lib/kai/kai.db")).unwrap();
    database
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE sessions(chat_id INTEGER, session_id TEXT, model TEXT, created_at TEXT,
                last_used_at TEXT, total_cost_usd REAL);
             CREATE TABLE jobs(id TEXT, chat_id INTEGER, name TEXT, job_type TEXT, prompt TEXT,
                schedule_type TEXT, schedule_data TEXT, created_at TEXT, active INTEGER,
                auto_remove INTEGER, notify_on_check INTEGER);
             CREATE TABLE settings(key TEXT, value TEXT);
             INSERT INTO sessions VALUES (11, 'x', 'opus', '', '', 0.5), (12, 'y', 'opus', '', '', 0.5);
             INSERT INTO jobs VALUES
                ('a', 12, 'daily', 'prompt', 'hunter2-prompt', 'cron', '0 9 * * *', '', 1, 0, 0),
                ('b', 12, 'hourly', 'prompt', 'look', 'cron', '0 * * * *', '', 1, 0, 0),
                ('c', -100123, 'group', 'prompt', 'look', 'cron', '0 * * * *', '', 1, 0, 0);",
        )
        .unwrap();
    // As a kai leaves it that is killed: nothing of it is in the file itself yet.
    for file in ["kai.db", "kai.db-wal"] {
        let from = ground.path("var/lib/kai").join(file);
        fs::copy(&from, ground.beside(file)).unwrap();
    }
    drop(database);
    for file in ["kai.db", "kai.db-wal"] {
        fs::rename(ground.beside(file), ground.path("var/lib/kai").join(file)).unwrap();
    }
}

/// Gives all at `path` to an account.
pub fn own(path: &Path, uid: u32) {
    lchown(path, Some(uid), Some(uid)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            own(&entry.unwrap().path(), uid);
        }
    }
}

/// Runs it, and returns how it ended and what it said, in which no secret ever is.
pub fn migrate(ground: &Ground, arguments: &[&str]) -> (Option<i32>, String) {
    let output = ground
        .command(&[&["migrate"], arguments].concat())
        .output()
        .unwrap();
    let said = said(&output);
    for secret in SECRETS {
        assert!(!said.contains(secret), "{said}");
    }
    (output.status.code(), said)
}

pub fn migrated(ground: &Ground, arguments: &[&str]) -> String {
    let (status, said) = migrate(ground, arguments);
    assert_eq!(status, Some(0), "{said}");
    said
}

pub fn old_ground() -> Option<Ground> {
    let ground = Ground::new()?;
    put(&ground);
    Some(ground)
}

/// Owner and mode.
pub fn access(ground: &Ground, path: &str) -> (u32, u32) {
    let found = fs::symlink_metadata(ground.path(path)).unwrap();
    (found.uid(), found.mode() & 0o7777)
}
