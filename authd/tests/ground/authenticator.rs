//! What a user's phone does.

use std::{
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kai_proto::code::{Code, TotpCode};
use totp_rs::{Builder, Totp};

/// Seconds of a step.
const STEP: u64 = 30;

/// An authenticator with one secret.
pub struct Authenticator {
    totp: Totp,
    /// The secret in base 32, if it came in a URI.
    pub secret: String,
}

impl Authenticator {
    /// Takes the secret out of the URI that `kai-auth enroll` prints.
    pub fn of(uri: &str) -> Self {
        let query = uri.split_once('?').unwrap().1;
        let secret = query
            .split('&')
            .find_map(|part| part.strip_prefix("secret="))
            .unwrap();
        let mut authenticator = Self::with(&from_base32(secret));
        authenticator.secret = secret.to_owned();
        authenticator
    }

    /// The secret itself, from an enrolment over the socket.
    pub fn with(secret: &[u8; 20]) -> Self {
        Self {
            totp: Builder::new().with_secret(*secret).build().unwrap(),
            secret: String::new(),
        }
    }

    /// The six digits of a step.
    pub fn code(&self, step: u64) -> String {
        self.totp.generate(step * STEP).to_string()
    }

    /// The same, as it goes over the wire.
    pub fn totp(&self, step: u64) -> TotpCode {
        match Code::parse(&self.code(step)) {
            Some(Code::Totp(code)) => code,
            other => panic!("{other:?}"),
        }
    }

    /// A code that is none of the steps around now.
    pub fn wrong(&self) -> TotpCode {
        let now = step();
        let near: Vec<String> = (now - 3..=now + 3).map(|step| self.code(step)).collect();
        let wrong = (0..10)
            .map(|n| format!("{n:06}"))
            .find(|code| !near.contains(code));
        match Code::parse(&wrong.unwrap()) {
            Some(Code::Totp(code)) => code,
            other => panic!("{other:?}"),
        }
    }
}

/// RFC 4648, without padding.
fn from_base32(text: &str) -> [u8; 20] {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'2'..=b'7' => letter - b'2' + 26,
            other => panic!("{other} is no letter of base 32"),
        };
        bits = bits << 5 & 0xffff | u32::from(value);
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes.try_into().unwrap()
}

/// Which step it is now.
pub fn step() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        / STEP
}

/// The same, at least two seconds before it ends: waits for the next one if need be.
pub fn settled_step() -> u64 {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let left =
            Duration::from_secs(STEP) - Duration::from_millis((now.as_millis() % 30_000) as u64);
        if left > Duration::from_secs(2) {
            return now.as_secs() / STEP;
        }
        thread::sleep(left);
    }
}
