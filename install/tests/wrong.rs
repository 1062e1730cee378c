//! What `kai-install apply` refuses: each with one sentence that says how to mend it, and before anything is
//! changed.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

mod ground;
mod skipped;

use std::{
    fs,
    os::unix::fs::{chown, symlink},
};

use ground::{Ground, TOKEN, said, set_mode};

/// What is done to a ground before `apply`, and what it must say then.
type Wrong = (&'static str, fn(&Ground), &'static str);

const ALICE: &str = "users: [{telegram_id: 11, name: a, os_user: alice, create: true";

#[test]
fn wrong_input_is_one_sentence_and_changes_nothing() {
    let agent = "agent: {command: /opt/agents/claude}\ntelegram: {token: \"123456:AAbbCCddEEffGGhhIIjjKKllMMnn\"}\n";
    static AGENT: std::sync::OnceLock<&str> = std::sync::OnceLock::new();
    AGENT.get_or_init(|| agent);
    fn settings(ground: &Ground, more: &str) {
        ground.settings(&format!("{}{more}\n", AGENT.get().unwrap()));
    }
    let cases: [Wrong; 34] = [
        (
            "no settings",
            |g| fs::remove_file(g.path("etc/kai/install.yaml")).unwrap(),
            "install.yaml",
        ),
        (
            "settings of others",
            |g| set_mode(&g.path("etc/kai/install.yaml"), 0o644),
            "chmod 0600",
        ),
        (
            "bad YAML",
            |g| settings(g, "users: [\n- x"),
            "install.yaml:4:",
        ),
        (
            "an unknown key",
            |g| settings(g, "usrs: []"),
            "install.yaml:3: `usrs`",
        ),
        (
            "a bad token",
            |g| g.settings("telegram:\n  token: hunter2\n"),
            "install.yaml:2: `telegram.token` must be a bot's token",
        ),
        (
            "bad YAML of users",
            |g| g.write("etc/kai/users.yaml", "users:\n- {name: a\n", 0o600),
            "users.yaml:3:",
        ),
        (
            "an unknown key of users",
            |g| g.write("etc/kai/users.yaml", "users: []\nlimts: 3\n", 0o600),
            "users.yaml:2: `limts`",
        ),
        (
            "an account of root's power in the table of users",
            |g| {
                let dave = "users:\n- telegram_id: 1\n  name: n\n  os_user: dave\n";
                g.write("etc/kai/users.yaml", dave, 0o600);
            },
            "group `sudo`",
        ),
        (
            "an unknown key of the configuration",
            |g| {
                let text = "agent: {command: /opt/agents/claude}\nagnt: 1\n";
                g.write("etc/kai/kai.yaml", text, 0o644);
            },
            "kai.yaml:2: `agnt`",
        ),
        (
            "a missing account",
            |g| {
                settings(
                    g,
                    "users: [{telegram_id: 1, name: n, os_user: nobody-here}]",
                )
            },
            "useradd --create-home nobody-here",
        ),
        (
            "an account in sudo",
            |g| settings(g, "users: [{telegram_id: 1, name: n, os_user: dave}]"),
            "group `sudo`",
        ),
        (
            "a taken uid",
            |g| settings(g, &format!("{ALICE}, uid: 1500}}]")),
            "uid 1500, which alice shall have, is that of carol",
        ),
        (
            "a group of the host's",
            |g| {
                settings(
                    g,
                    "users: [{telegram_id: 1, name: n, os_user: sudo, create: true}]",
                )
            },
            "there is a group sudo already",
        ),
        (
            "a directory of others on the way",
            |g| {
                fs::create_dir_all(g.path("opt/kai")).unwrap();
                chown(g.path("opt"), Some(1500), None).unwrap();
            },
            "root/opt: belongs to uid 1500",
        ),
        (
            "a home of others",
            |g| {
                fs::create_dir_all(g.path("home/alice")).unwrap();
                chown(g.path("home/alice"), Some(1500), None).unwrap();
            },
            "belongs to uid 1500",
        ),
        (
            "a person's account to be closed",
            |g| {
                settings(
                    g,
                    "users: [{telegram_id: 1, name: n, os_user: carol, create: true}]",
                )
            },
            "will not close",
        ),
        (
            "a link in the place of secrets",
            |g| {
                fs::create_dir_all(g.path("srv")).unwrap();
                symlink("/srv", g.path("etc/kai/credentials")).unwrap();
            },
            "credentials: is not a directory",
        ),
        (
            "a token of others",
            |g| {
                g.write("etc/kai/credentials/telegram-token", "x", 0o640);
                set_mode(&g.path("etc/kai/credentials"), 0o700);
            },
            "chmod 0600",
        ),
        (
            "a token that somebody else owns",
            |g| {
                g.write("etc/kai/credentials/telegram-token", "x", 0o600);
                set_mode(&g.path("etc/kai/credentials"), 0o700);
                let token = g.path("etc/kai/credentials/telegram-token");
                chown(token, Some(1500), None).unwrap();
            },
            "has owner 1500 and mode 0600",
        ),
        (
            "a database of others",
            |g| {
                g.write("var/lib/kai/authd/authd.sqlite", "x", 0o644);
                set_mode(&g.path("var/lib/kai/authd"), 0o700);
            },
            "chmod 0600",
        ),
        (
            "settings that somebody else owns",
            |g| chown(g.path("etc/kai/install.yaml"), Some(1500), None).unwrap(),
            "chown 0",
        ),
        (
            "secrets of others",
            |g| {
                fs::create_dir_all(g.path("var/lib/kai/authd")).unwrap();
                chown(g.path("var/lib/kai/authd"), Some(1500), None).unwrap();
            },
            "has owner 1500",
        ),
        (
            "users of others",
            |g| g.write("etc/kai/users.yaml", "users: []\n", 0o644),
            "chmod 0600",
        ),
        (
            "a lost database",
            |g| {
                g.write("var/lib/kai/authd/authd.sqlite.before-1", "", 0o600);
                set_mode(&g.path("var/lib/kai/authd"), 0o700);
            },
            "kai-auth init --restore",
        ),
        (
            "no token",
            |g| g.settings("agent: {command: /opt/agents/claude}\n"),
            "--token-file",
        ),
        (
            "no agent",
            |g| fs::remove_file(g.path("opt/agents/claude")).unwrap(),
            "does not exist",
        ),
        (
            "an agent of everybody",
            |g| set_mode(&g.path("opt/agents/claude"), 0o777),
            "chmod go-w",
        ),
        (
            "an agent of somebody else's",
            |g| chown(g.path("opt/agents/claude"), Some(1500), None).unwrap(),
            "can be changed by others than root; mend it: chown root",
        ),
        (
            "an agent in a directory of everybody's",
            |g| set_mode(&g.path("opt/agents"), 0o777),
            "chmod go-w",
        ),
        (
            "an agent that nobody may run",
            |g| set_mode(&g.path("opt/agents/claude"), 0o644),
            "chmod a+x",
        ),
        (
            "a package without a program",
            |g| fs::remove_file(g.beside("package/kai-worker")).unwrap(),
            "kai-worker cannot be used",
        ),
        (
            "rules that sudo cannot read",
            |g| fs::write(g.beside("package/sudoers.d/kai"), "ALL ALL\n").unwrap(),
            "visudo",
        ),
        (
            "a configuration that says otherwise",
            |g| g.write("etc/kai/kai.yaml", "agent: {command: /bin/other}\n", 0o644),
            "say different things for `agent.command`",
        ),
        (
            "a directory of others",
            |g| chown(g.path("opt"), Some(1500), None).unwrap(),
            "chown root",
        ),
    ];
    for (name, harm, expected) in cases {
        let Some(ground) = Ground::new() else { return };
        harm(&ground);
        let listing = ground.listing();

        let output = ground.install(&["apply"]);

        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains(expected), "{name}: {said}");
        assert_eq!(said.trim().lines().count(), 1, "{name}: {said}");
        assert!(!said.contains(TOKEN), "{name}: {said}");
        assert_eq!(ground.listing(), listing, "{name}");
    }
}

#[test]
fn a_full_disk_is_known_before_anything_is_changed() {
    for (full, size) in [("opt", "1m"), ("var/lib", "64k"), ("var/log", "64k")] {
        let Some(ground) = Ground::new() else { return };
        fs::remove_file(ground.path("opt/agents/claude")).unwrap();
        ground.write("srv/claude", "#!/bin/true\n", 0o755);
        let settings = ground.read("etc/kai/install.yaml");
        ground.settings(&settings.replace("/opt/agents", "/srv"));
        fs::create_dir_all(ground.path(full)).unwrap();
        let listing = ground.listing();
        let mut command = ground.command(&["apply"]);
        command.arg("--source").arg(ground.beside("package"));

        let output = ground.run_with_tmpfs(&ground.path(full), &format!("size={size}"), &command);

        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{full}: {said}");
        assert!(
            said.contains("no space is left") && said.contains("MiB"),
            "{full}: {said}"
        );
        assert!(said.contains(full), "{said}");
        assert_eq!(said.trim().lines().count(), 1, "{full}: {said}");
        assert_eq!(ground.listing(), listing, "{full}");
    }
}
