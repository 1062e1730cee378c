//! Enrolling somebody by the real `kai-auth`, and what their authenticator then shows.

use std::{
    cell::Cell,
    io::{BufRead, BufReader, Read, Write},
    process::Stdio,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use totp_rs::{Builder, Totp};

use crate::Kai;

/// Seconds of a step.
const STEP: u64 = 30;

/// What `kai-auth enroll` gave.
#[derive(Debug)]
pub struct Enrolled {
    /// The phone.
    pub authenticator: Authenticator,
    /// The recovery codes.
    pub recovery: Vec<String>,
}

/// A phone that gives each code once.
///
/// authd takes a step before and a step after its own: a fresh secret is good for three codes at once,
/// of which the enrolment takes the first.
pub struct Authenticator {
    totp: Totp,
    /// The step of the last code that was given.
    given: Cell<u64>,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticator(…)")
    }
}

impl Authenticator {
    /// Of the secret of an `otpauth` URI, in base 32.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    #[allow(clippy::unwrap_used)]
    pub fn new(base32: &str) -> Self {
        let secret = decode(base32);
        let totp = Builder::new()
            .with_secret(secret)
            .with_step_duration(STEP)
            .with_skew(0)
            .build()
            .unwrap();
        Self {
            totp,
            given: Cell::new(0),
        }
    }

    /// A code that was not given before and is taken now; waits for its time if it must.
    #[must_use]
    pub fn code(&self) -> String {
        let next = (self.given.get() + 1).max(step() - 1);
        while step() + 1 < next {
            thread::sleep(Duration::from_millis(100));
        }
        self.given.set(next);
        self.totp.generate(next * STEP).to_string()
    }

    /// The last code that was given, again.
    #[must_use]
    pub fn used(&self) -> String {
        self.totp.generate(self.given.get() * STEP).to_string()
    }

    /// A code that is certainly wrong now.
    #[must_use]
    pub fn wrong(&self) -> String {
        let now = step();
        let right: Vec<String> = (now - 2..=now + 2)
            .map(|step| self.totp.generate(step * STEP).to_string())
            .collect();
        (0..)
            .map(|number: u32| format!("{number:06}"))
            .find(|code| !right.contains(code))
            .unwrap_or_default()
    }
}

fn step() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs()) / STEP
}

/// RFC 4648, without padding.
fn decode(base32: &str) -> Vec<u8> {
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
    for letter in base32.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'2'..=b'7' => letter - b'2' + 26,
            _ => continue,
        };
        bits = bits << 5 | u32::from(value);
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}

impl Kai {
    /// Enrolls the person called `name`, as root does it on the host.
    ///
    /// # Panics
    /// If `kai-auth enroll` does not; shows what it said.
    #[allow(clippy::unwrap_used, clippy::panic)]
    pub fn enroll(&self, name: &str) -> Enrolled {
        self.enroll_with(&["enroll", name])
    }

    /// The same, with these arguments of `kai-auth`.
    ///
    /// # Panics
    /// If it does not; shows what it said.
    #[allow(clippy::unwrap_used, clippy::panic)]
    pub fn enroll_with(&self, arguments: &[&str]) -> Enrolled {
        let mut child = self
            .ground
            .auth(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        let uri = loop {
            let mut line = String::new();
            if output.read_line(&mut line).unwrap() == 0 {
                let mut problem = String::new();
                let _ = child.stderr.take().unwrap().read_to_string(&mut problem);
                let _ = child.wait();
                panic!("kai-auth {arguments:?} gave no secret: {said}{problem}");
            }
            said.push_str(&line);
            if let Some(at) = line.find("otpauth://") {
                break line[at..].trim().to_owned();
            }
        };
        let (_, rest) = uri.split_once("secret=").unwrap();
        let authenticator = Authenticator::new(rest.split('&').next().unwrap());
        writeln!(child.stdin.take().unwrap(), "{}", authenticator.code()).unwrap();
        output.read_to_string(&mut said).unwrap();
        let mut problem = String::new();
        let _ = child.stderr.take().unwrap().read_to_string(&mut problem);
        let status = child.wait().unwrap();
        assert!(
            status.success(),
            "kai-auth {arguments:?}: {status}: {problem}"
        );
        let recovery: Vec<String> = said
            .split_whitespace()
            .filter(|word| word.starts_with("kai-") && word.len() == 15)
            .map(str::to_owned)
            .collect();
        Enrolled {
            authenticator,
            recovery,
        }
    }
}
