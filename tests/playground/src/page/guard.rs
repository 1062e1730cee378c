//! Who may use the page: whoever has the link.
//!
//! The page listens on loopback, which every account and every web page in a browser of this machine
//! can reach. So every request that does or shows something carries a random token, which is in the
//! part of the link that browsers send to no server, and which the page's own script adds as a header:
//! not a cookie, because those go to every port. `Host` and `Origin` are checked too, so that no name
//! that somebody lets point here makes another site's script the page's own.

use std::{fs::File, io, io::Read};

use axum::http::{HeaderMap, header};

/// The header with the token.
pub const HEADER: &str = "x-kai-token";

/// The page's address and the token for it.
#[derive(Debug, Clone)]
pub struct Guard {
    port: u16,
    token: String,
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// It was sent to another name than the page's.
    Host,
    /// Another site's script sent it.
    Origin,
    /// The token is missing or another one.
    Token,
}

impl Guard {
    /// Makes a new token for the page on `port`.
    ///
    /// # Errors
    /// If the kernel gives no random bytes.
    pub fn new(port: u16) -> io::Result<Self> {
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let token = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { port, token })
    }

    /// What to open in a browser.
    #[must_use]
    pub fn link(&self) -> String {
        format!("http://127.0.0.1:{}/#{}", self.port, self.token)
    }

    /// Whether a request for the page itself, which holds nothing secret, is answered.
    ///
    /// # Errors
    /// Why not.
    pub fn may_load(&self, headers: &HeaderMap) -> Result<(), Turned> {
        let host = text(headers, header::HOST.as_str()).ok_or(Turned::Host)?;
        if self.is_ours(host) {
            Ok(())
        } else {
            Err(Turned::Host)
        }
    }

    /// Whether a request that shows or does something is answered.
    ///
    /// # Errors
    /// Why not.
    pub fn may_act(&self, headers: &HeaderMap) -> Result<(), Turned> {
        self.may_load(headers)?;
        if headers.contains_key(header::ORIGIN) {
            let origin = text(headers, header::ORIGIN.as_str()).ok_or(Turned::Origin)?;
            if !origin
                .strip_prefix("http://")
                .is_some_and(|host| self.is_ours(host))
            {
                return Err(Turned::Origin);
            }
        }
        let token = text(headers, HEADER).ok_or(Turned::Token)?;
        if same(token.as_bytes(), self.token.as_bytes()) {
            Ok(())
        } else {
            Err(Turned::Token)
        }
    }

    fn is_ours(&self, host: &str) -> bool {
        host.rsplit_once(':').is_some_and(|(name, port)| {
            matches!(name, "127.0.0.1" | "localhost") && port.parse() == Ok(self.port)
        })
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Compares in a time that does not tell where the first difference is.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .fold(0, |difference, (l, r)| difference | (l ^ r))
            == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn only_the_page_s_own_script_with_the_link_s_token_may_act() {
        let guard = Guard::new(8088).unwrap();
        let token = guard.token.clone();
        let host = ("host", "127.0.0.1:8088");
        let right = (HEADER, token.as_str());

        let may = |pairs: &[(&'static str, &str)]| guard.may_act(&headers(pairs));

        assert_eq!(may(&[host, right]), Ok(()));
        assert_eq!(may(&[("host", "localhost:8088"), right]), Ok(()));
        assert_eq!(
            may(&[host, right, ("origin", "http://127.0.0.1:8088")]),
            Ok(())
        );
        assert_eq!(may(&[host]), Err(Turned::Token));
        assert_eq!(may(&[host, (HEADER, &token[1..])]), Err(Turned::Token));
        assert_eq!(may(&[right]), Err(Turned::Host));
        for other in ["evil.example:8088", "127.0.0.1:8089", "127.0.0.1", ""] {
            assert_eq!(may(&[("host", other), right]), Err(Turned::Host), "{other}");
        }
        for other in [
            "http://evil.example",
            "null",
            "https://127.0.0.1:8088",
            "http://127.0.0.1:8089",
        ] {
            assert_eq!(
                may(&[host, right, ("origin", other)]),
                Err(Turned::Origin),
                "{other}"
            );
        }
    }

    #[test]
    fn no_two_tokens_are_the_same_and_the_link_keeps_it_from_servers() {
        let (one, two) = (Guard::new(1).unwrap(), Guard::new(1).unwrap());
        assert_ne!(one.token, two.token);
        assert_eq!(one.token.len(), 32);
        assert_eq!(one.link(), format!("http://127.0.0.1:1/#{}", one.token));
    }
}
