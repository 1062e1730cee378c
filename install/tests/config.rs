//! `kai-install config`, run as the admin runs it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod skipped;

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
};

use skipped::skipped;

const TOKEN: &str = "123456:AAbbCCddEEffGGhhIIjjKKllMMnn";

/// A Bot API server that gives one answer, and the address it has.
fn bot_api(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 4096];
        let length = stream.read(&mut asked).unwrap();
        let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
        assert!(
            asked.starts_with(&format!("GET /bot{TOKEN}/getMe ")),
            "{asked}"
        );
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).unwrap();
    });
    address
}

fn config(directory: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kai-install"))
        .args(["config", "--file"])
        .arg(directory.join("install.yaml"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end before it reads.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn flags_make_a_file_of_root_s_alone_and_no_token_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let server = bot_api(
        "200 OK",
        r#"{"ok":true,"result":{"username":"kai_test_bot"}}"#,
    );
    let user = "11:kai-no-such-account:Alice:admin";

    let output = config(
        directory.path(),
        &[
            "--token-file",
            "-",
            "--api-url",
            &server,
            "--user",
            user,
            "--create-accounts",
        ],
        &format!("{TOKEN}\n"),
    );

    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("@kai_test_bot") && !said.contains(TOKEN),
        "{said}"
    );
    let file = directory.path().join("install.yaml");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let text = fs::read_to_string(file).unwrap();
    assert!(
        text.contains(TOKEN) && text.contains("create: true"),
        "{text}"
    );
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_token_that_telegram_refuses_is_an_error_and_no_network_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    let token = token.to_str().unwrap();
    let refusing = bot_api("401 Unauthorized", r#"{"ok":false,"error_code":401}"#);
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };

    let refused = config(
        directory.path(),
        &["--token-file", token, "--api-url", &refusing],
        "",
    );
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("@BotFather"), "{}", said(&refused));
    assert!(!directory.path().join("install.yaml").exists());

    let unknown = config(
        directory.path(),
        &["--token-file", token, "--api-url", &nobody],
        "",
    );
    assert_eq!(unknown.status.code(), Some(0), "{}", said(&unknown));
    assert!(
        said(&unknown).contains("cannot be checked"),
        "{}",
        said(&unknown)
    );
    for output in [refused, unknown] {
        assert!(!said(&output).contains(TOKEN));
    }
}

#[test]
fn wrong_input_is_one_sentence_and_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let from = directory.path().join("from.yaml");
    fs::write(&from, "telegram:\n  tokn: hunter2\n").unwrap();
    fs::set_permissions(&from, PermissionsExt::from_mode(0o600)).unwrap();
    let from = from.to_str().unwrap();
    let cases: [(&[&str], &str); 7] = [
        (&[], "no terminal"),
        (&["--from", from], "from.yaml:2: `telegram.tokn`"),
        (&["--token-file", "-"], "@BotFather"),
        (&["--user", "alice"], "ID:ACCOUNT"),
        (&["--user", "11:kai-no-such-account"], "--create-accounts"),
        (&["--user", "11:root"], "uid 0"),
        (&["--agent-command", "claude"], "absolute path"),
    ];
    for (arguments, expected) in cases {
        let output = config(directory.path(), arguments, "hunter2\n");
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
        assert!(!said.contains("hunter2"), "{said}");
        assert!(!directory.path().join("install.yaml").exists());
    }
}

#[test]
fn at_a_terminal_it_asks_and_does_not_show_the_token_as_it_is_typed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("install.yaml");
    // script(1) gives the command a terminal, and types what it is given.
    let command = format!(
        "{} config --offline --file {}",
        env!("CARGO_BIN_EXE_kai-install"),
        file.display()
    );
    let child = Command::new("timeout")
        .args([
            "--kill-after=5",
            "60",
            "script",
            "--quiet",
            "--return",
            "--command",
            &command,
            "/dev/null",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        return skipped("script is not installed");
    };
    let mut keys = child.stdin.take().unwrap();
    let mut screen = child.stdout.take().unwrap();
    let mut shown = String::new();
    // Each answer is typed once its question stands there, as people do.
    for (question, answer) in [
        ("it is not shown): ", "no token"),
        ("it is not shown): ", TOKEN),
        ("agent installs): ", ""),
        ("for none): ", ""),
        ("that is all): ", "11"),
        ("on this host: ", "kai-no-such-account"),
        ("alone? [Y/n] ", "y"),
        ("[kai-no-such-account]: ", "Alice"),
        ("[y/N] ", "y"),
        ("that is all): ", ""),
        ("no change): ", ""),
    ] {
        let mut since = String::new();
        while !since.ends_with(question) {
            let mut byte = [0];
            assert_eq!(screen.read(&mut byte).unwrap(), 1, "{shown}{since}");
            since.push(char::from(byte[0]));
        }
        shown.push_str(&since);
        writeln!(keys, "{answer}").unwrap();
    }
    screen.read_to_string(&mut shown).unwrap();
    assert!(child.wait().unwrap().success(), "{shown}");

    assert!(
        shown.contains("@BotFather gave") && shown.contains("wrote "),
        "{shown}"
    );
    assert!(!shown.contains(TOKEN) && !shown.contains("AAbb"), "{shown}");
    let text = fs::read_to_string(file).unwrap();
    assert!(
        text.contains(TOKEN) && text.contains("name: \"Alice\""),
        "{text}"
    );
    assert!(
        text.contains("create: true") && text.contains("role: admin"),
        "{text}"
    );
}
