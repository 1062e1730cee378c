//! A secret as authenticators take it: an `otpauth` URI, in the form that Google Authenticator's wiki
//! page "Key Uri Format" describes and all others follow.

use kai_proto::admin_authd::{SECRET, Secret};
use zeroize::Zeroizing;

/// Who issues the codes, shown above them.
pub const ISSUER: &str = "kai";

/// RFC 4648.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Letters of a secret in base 32: five bits each, and 160 bits need no padding.
const LETTERS: usize = SECRET * 8 / 5;

/// The secret in base 32.
#[must_use]
pub fn base32(secret: &Secret) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(LETTERS));
    let (mut bits, mut held) = (0_u16, 0_u32);
    for byte in secret.0 {
        bits = bits << 8 | u16::from(byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(char::from(BASE32[usize::from(bits >> held & 31)]));
        }
    }
    text
}

/// The URI for the user `name` of this `host`.
#[must_use]
pub fn otpauth(secret: &Secret, name: &str, host: &str) -> Zeroizing<String> {
    let label = format!("{ISSUER}:{}", encoded(&format!("{name}@{host}")));
    let secret = base32(secret);
    let parts = [
        "otpauth://totp/",
        &label,
        "?secret=",
        &secret,
        "&issuer=",
        ISSUER,
        "&algorithm=SHA1&digits=6&period=30",
    ];
    // All of its room at once: a text that grows leaves copies behind.
    let mut uri = Zeroizing::new(String::with_capacity(parts.iter().map(|p| p.len()).sum()));
    for part in parts {
        uri.push_str(part);
    }
    uri
}

/// Percent-encoded but for what RFC 3986 calls unreserved.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_uri_of_a_known_secret_is_this_one() {
        let secret = Secret(*b"12345678901234567890");

        assert_eq!(
            otpauth(&secret, "alice", "host.example").as_str(),
            "otpauth://totp/kai:alice%40host.example?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
             &issuer=kai&algorithm=SHA1&digits=6&period=30"
        );
    }

    proptest! {
        #[test]
        fn no_name_adds_a_part_to_the_uri(name in "\\PC{1,32}") {
            let uri = otpauth(&Secret([7; SECRET]), &name, "host");

            let label = uri.strip_prefix("otpauth://totp/kai:").unwrap().split_once('?').unwrap().0;
            prop_assert!(label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
            prop_assert_eq!(uri.matches(['?', '&', '=', '#']).count(), 10);
            prop_assert_eq!(decoded(label), format!("{name}@host"));
        }

        #[test]
        fn base32_reads_back(bytes: [u8; SECRET]) {
            let text = base32(&Secret(bytes));

            prop_assert_eq!(text.len(), LETTERS);
            let mut bits = text.bytes().flat_map(|letter| {
                let value = BASE32.iter().position(|b| *b == letter).unwrap();
                (0..5).rev().map(move |at| value >> at & 1)
            });
            for byte in bytes {
                let read = (0..8).fold(0, |value, _| value << 1 | bits.next().unwrap());
                prop_assert_eq!(read, usize::from(byte));
            }
        }
    }

    fn decoded(text: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(if byte == b'%' {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            } else {
                byte
            });
        }
        String::from_utf8(bytes).unwrap()
    }
}
