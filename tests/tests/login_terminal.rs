//! The terminals of `kai-broker login`: what of the agent's output is shown, what of the keys arrives, and what is
//! left when one of them goes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    thread,
    time::{Duration, Instant},
};

use kai_playground::ground::Daemon;
use kai_tests::{
    Kai, Screen, is_root,
    login::{QUESTION, SOON, asked, command, field, login, processes, ran, uid, wait_until_none},
};
use nix::sys::signal::Signal;

#[test]
fn every_key_goes_to_the_agent_and_the_window_has_the_admins_size() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let mut screen = asked(&kai);
    assert_eq!(ran(&mut screen, "stty size"), "30 90");
    screen.resize(50, 133);
    let due = Instant::now() + SOON;
    while ran(&mut screen, "stty size") != "50 133" {
        assert!(Instant::now() < due);
    }
    // A command in the foreground is interrupted, and the login with it.
    screen.type_in("!sleep 1000\r");
    thread::sleep(Duration::from_millis(300));
    screen.type_in("\x03");
    assert_eq!(screen.end().code(), Some(128 + 2), "{}", screen.text());
    wait_until_none(uid(&kai, "alice"));
}

#[test]
fn nothing_is_left_when_the_terminal_or_the_command_goes() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let alice = uid(&kai, "alice");
    let stubborn = "!trap '' HUP INT TERM; setsid sleep 1000 & trap '' HUP; sleep 1000\r";
    for way in ["hang-up", "SIGHUP", "SIGTERM", "SIGKILL", "keys", "broker"] {
        let mut screen = login(&kai, "alice");
        let before = screen.settings();
        screen.wait_for(QUESTION);
        assert_ne!(screen.settings(), before, "is raw");
        screen.type_in(stubborn);
        thread::sleep(Duration::from_millis(300));
        assert!(processes(alice).len() >= 4);

        match way {
            "hang-up" => {
                let status = screen.hang_up().end();
                assert_eq!(status.code(), Some(128 + 1));
            }
            "broker" => {
                kai.ground.kill(Daemon::Broker).unwrap();
                assert_eq!(screen.end().code(), Some(1));
                assert!(screen.text().contains("kai-brokerd is gone"));
                assert_eq!(screen.settings(), before);
            }
            "SIGKILL" => {
                screen.signal(Signal::SIGKILL);
                assert_eq!(screen.end().signal(), Some(9));
            }
            way => {
                let status = match way {
                    "SIGHUP" => {
                        screen.signal(Signal::SIGHUP);
                        129
                    }
                    "SIGTERM" => {
                        screen.signal(Signal::SIGTERM);
                        143
                    }
                    _ => {
                        screen.type_in("\x1d\x1d\x1d");
                        1
                    }
                };
                assert_eq!(screen.end().code(), Some(status), "{way}");
                assert_eq!(screen.settings(), before, "{way}: is as it was");
            }
        }
        wait_until_none(alice);
    }
}

#[test]
fn an_agent_that_reads_nothing_is_left_by_keys() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let mut screen = asked(&kai);
    screen.type_in("!stty raw -echo; sleep 1000\r");
    thread::sleep(Duration::from_millis(300));
    // More than two terminals hold.
    for _ in 0..300 {
        screen.type_in(&"x".repeat(1024));
        thread::sleep(Duration::from_millis(5));
    }
    screen.type_in("\x1d\x1d\x1d");
    assert_eq!(screen.end().code(), Some(1));
    assert!(screen.text().contains("was ended by Ctrl-]"));
    wait_until_none(uid(&kai, "alice"));
}

#[test]
fn the_window_says_until_the_end_that_it_is_a_login() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let begins = "\x1b[22;2t\x1b]2;kai-broker login alice\x1b\\";
    let ends = "\x1b]2;\x1b\\\x1b[23;2t";
    let mut screen = login(&kai, "alice");
    let shown = screen.wait_for(QUESTION);
    assert!(shown.contains(begins) && !shown.contains(ends), "{shown:?}");
    let printed = ran(
        &mut screen,
        r"printf '\033]2;\033\\\033[23;2t\033]0;bash\007A'",
    );
    assert_eq!(printed, "A");
    screen.type_in("wrong\r");
    assert_eq!(screen.end().code(), Some(1));
    assert!(screen.text().contains(ends), "{:?}", screen.text());
}

#[test]
fn a_terminal_that_is_not_set_to_utf_8_is_shown_ascii() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let mut command = command(&kai, &["login", "alice"]);
    let mut screen = Screen::start(command.env("LC_ALL", "C"), (30, 90));
    screen.wait_for(QUESTION);
    // U+06DB, whose second byte is CSI.
    let printed = ran(&mut screen, r"printf 'A\330\2335iB'");
    assert_eq!(printed, "A?5iB");
}

#[test]
fn hostile_output_is_text_colour_and_cursor_and_may_be_endless() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let mut screen = asked(&kai);
    let printed = ran(
        &mut screen,
        r"printf 'A\033]52;c;cm0=\007B\033]0;title\033\\C\033[c\033[6n\033[?1000hD\233c\302\233cE\377F\033[31mG\033[0m\005H\033P$qm\033\\I'",
    );
    let letters: String = printed.chars().filter(char::is_ascii_uppercase).collect();
    assert_eq!(letters, "ABCDEFGHI");
    assert!(printed.contains("\x1b[31mG\x1b[0m"), "{printed:?}");
    assert!(printed.contains("E\u{fffd}F"), "{printed:?}");
    let escapes = printed.matches('\x1b').count();
    assert_eq!(escapes, 2, "{printed:?}");
    assert!(
        printed
            .chars()
            .all(|c| !c.is_control() || c == '\x1b' || c == '\n'),
        "{printed:?}"
    );

    // Gigabytes, if they were taken; neither line nor string ends.
    for endless in ["yes | tr -d '\\n'", "printf '\\033]52;c;'; cat /dev/zero"] {
        screen.type_in(&format!("!{endless}\r"));
        let due = Instant::now() + Duration::from_secs(3);
        while Instant::now() < due {
            screen.look(Duration::from_millis(100));
        }
        let status = fs::read_to_string(format!("/proc/{}/status", screen.pid())).unwrap();
        let peak = field(&status, "VmHWM:");
        let kib: u32 = peak.split(' ').next().unwrap().parse().unwrap();
        assert!(kib < 40 * 1024, "{peak}");
        screen.type_in("\x03");
        assert_eq!(screen.end().code(), Some(130));
        screen = asked(&kai);
    }
}
