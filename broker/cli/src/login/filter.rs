//! What of an agent's output reaches the admin's terminal: text, ends of lines, colours, and movements of the
//! cursor.
//!
//! Nothing is passed through: each sequence is parsed, and those of the tables below are written anew from
//! their numbers, so that no terminal sees one that it might understand otherwise than the parser does. What
//! is not in a table is dropped, whatever it means: titles, clipboard and links (OSC), questions that a
//! terminal answers by typing (DA, DSR, DECRQSS, ENQ), keys and modes (mouse, paste, focus, other
//! screens), character sets, resets, and strings for devices (DCS, SOS, PM, APC), however long.
//!
//! On a terminal that is not set to UTF-8 the second byte of a character may be a control character (C1), so
//! that nothing but ASCII is shown there.

use std::{env, ffi::OsString, io::Write};

use kai_program::json::printable;
use vte::{Params, Parser, Perform};

/// Control characters: backspace, tab, end of line, return.
const CONTROLS: &[u8] = b"\x08\t\n\r";

/// Sequences of ESC and one letter: the cursor is kept, put back, and goes up a line.
const ESCAPES: &[u8] = b"78M";

/// Sequences of CSI with numbers alone: cursor (A to H, a, d, e, f, `), what is erased (J, K, X), inserted and
/// deleted (@, L, M, P), scrolled (S, T), coloured (m), and the cursor's keeping (s, u).
const SEQUENCES: &str = "@ABCDEFGHJKLMPSTXad`efmsu";

/// The cursor shown and hidden, the only modes (DECTCEM).
const CURSOR: (u16, [char; 2]) = (25, ['h', 'l']);

/// What J would take with this number is what the admin did before (xterm's).
const SCROLLED_BACK: u16 = 3;

/// What says which characters a terminal understands, the first that is set (locale(7)).
const LOCALE: [&str; 3] = ["LC_ALL", "LC_CTYPE", "LANG"];

/// Shown for a character that is not ASCII where only ASCII is.
const NOT_ASCII: u8 = b'?';

/// Reads what an agent writes, in pieces that may end anywhere.
pub struct Filter {
    /// The terminal understands UTF-8.
    utf_8: bool,
    // Without the crate's feature `std`, so that a string without an end stays in a kilobyte.
    parser: Parser,
}

impl Filter {
    /// For the terminal that this command runs on.
    #[must_use]
    pub fn of_this_terminal() -> Self {
        Self::new(is_utf_8(|name| env::var_os(name)))
    }

    fn new(utf_8: bool) -> Self {
        Self {
            utf_8,
            parser: Parser::default(),
        }
    }

    /// Adds to `shown` what of `written` may be shown, at most some three bytes for each.
    pub fn pass(&mut self, written: &[u8], shown: &mut Vec<u8>) {
        let mut shown = Shown(shown, self.utf_8);
        self.parser.advance(&mut shown, written);
    }
}

/// True if the environment says that the terminal understands UTF-8.
fn is_utf_8(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let mut set = LOCALE.iter().filter_map(|name| variable(name));
    let locale = set.find(|value| !value.is_empty()).unwrap_or_default();
    let locale = locale.as_os_str().to_ascii_lowercase();
    let locale = locale.to_str().unwrap_or("");
    let charset = locale.split_once('.').map_or("", |(_, charset)| charset);
    let charset = charset.split('@').next();
    matches!(charset, Some("utf-8" | "utf8"))
}

/// What is shown, and whether in UTF-8.
struct Shown<'a>(&'a mut Vec<u8>, bool);

impl Perform for Shown<'_> {
    fn print(&mut self, c: char) {
        if !self.1 && !c.is_ascii() {
            self.0.push(NOT_ASCII);
            return;
        }
        let mut bytes = [0; 4];
        let text = printable(c).encode_utf8(&mut bytes);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn execute(&mut self, byte: u8) {
        if CONTROLS.contains(&byte) {
            self.0.push(byte);
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], ignore: bool, byte: u8) {
        if !ignore && intermediates.is_empty() && ESCAPES.contains(&byte) {
            self.0.extend_from_slice(&[0x1b, byte]);
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        let first = params.iter().next().and_then(<[u16]>::first);
        let (mode, shown_or_hidden) = CURSOR;
        let mark = match intermediates {
            [] if SEQUENCES.contains(action) => "",
            b"?" if shown_or_hidden.contains(&action)
                && params.len() == 1
                && first == Some(&mode) =>
            {
                "?"
            }
            _ => return,
        };
        if ignore || (action == 'J' && first == Some(&SCROLLED_BACK)) {
            return;
        }
        // Into memory, which does not fail.
        let _ = write!(self.0, "\x1b[{mark}");
        for (at, param) in params.iter().enumerate() {
            for (sub, number) in param.iter().enumerate() {
                let between = match (at, sub) {
                    (0, 0) => "",
                    (_, 0) => ";",
                    _ => ":",
                };
                let _ = write!(self.0, "{between}{number}");
            }
        }
        let _ = write!(self.0, "{action}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(written: &[u8]) -> String {
        let mut out = Vec::new();
        Filter::new(true).pass(written, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_colours_and_the_cursor_are_shown() {
        for written in [
            "naïve → 😀\r\n\tx\x08",
            "\x1b[1;38;5;174mred\x1b[0m",
            "\x1b[38:2:0:1:2:3mx",
            "\x1b[12G\x1b[2K\x1b[1A\x1b[3;4H",
            "\x1b[?25l\x1b[?25h\x1b7\x1b8\x1bM",
        ] {
            assert_eq!(shown(written.as_bytes()), written);
        }
        assert_eq!(shown(b"\x1b[2J\x1b[3J\x1b[m"), "\x1b[2J\x1b[0m");
    }

    #[test]
    fn what_steers_asks_or_opens_is_not() {
        for (what, written) in [
            ("title", &b"\x1b]0;pwned\x07"[..]),
            ("title, C1", b"\x9d0;pwned\x9c"),
            ("title, C1 in UTF-8", b"\xc2\x9d0;pwned\x07"),
            ("clipboard", b"\x1b]52;c;cm0gLXJmIC8K\x1b\\"),
            ("link", b"\x1b]8;;http://evil\x1b\\"),
            ("notification", b"\x1b]777;notify;a;b\x07"),
            ("device attributes", b"\x1b[c\x1b[>c\x1b[=c\x1b[0c"),
            ("status", b"\x1b[5n\x1b[6n\x1b[?6n"),
            ("version", b"\x1b[>0q"),
            ("settings", b"\x1bP$qm\x1b\\"),
            ("terminfo", b"\x1bP+q544e\x1b\\"),
            ("sixel", b"\x1bPq#0;2;0;0;0\x1b\\"),
            ("keys", b"\x1bP1;1|17/17\x1b\\"),
            ("strings", b"\x1bXa\x1b\\\x1b^b\x1b\\\x1b_c\x1b\\"),
            ("window", b"\x1b[21t\x1b[8;1;1t"),
            ("mouse", b"\x1b[?1000h\x1b[?1006h"),
            ("paste, focus", b"\x1b[?2004h\x1b[?1004h"),
            ("two modes", b"\x1b[?25;1000h"),
            ("other screen", b"\x1b[?1049h"),
            ("keyboard", b"\x1b[>4m\x1b[<u\x1b[>1u\x1b[?u"),
            ("margins, media, tabs", b"\x1b[r\x1b[5i\x1b[3g"),
            ("resets", b"\x1bc\x1b[!p"),
            ("character sets", b"\x0e\x0f\x1b(0\x1b%@"),
            ("answer back, bell", b"\x05\x07\x7f\x00\x0b\x0c"),
            ("repeat", b"x\x1b[65535b"),
            ("C1", b"\x84\x85\x9b6n"),
        ] {
            let shown = shown(written);
            // Without its introducer a string is text, which is harmless.
            assert!(shown.chars().all(|c| !c.is_control()), "{what}: {shown:?}");
            assert!(shown.len() < 20, "{what}: {shown:?}");
        }
    }

    #[test]
    fn what_is_no_utf_8_or_turns_text_around_is_marked() {
        assert_eq!(
            shown(b"a\xff(\xc3(\xf0\x9fb").matches('\u{fffd}').count(),
            3
        );
        assert!(!shown("\u{202e}txt.exe".as_bytes()).contains('\u{202e}'));
    }

    #[test]
    fn only_ascii_is_shown_where_the_terminal_is_not_set_to_utf_8() {
        let mut out = Vec::new();
        // U+06DB is D8 9B, and 9B is CSI to a terminal of single bytes.
        Filter::new(false).pass("\x1b[31ma\u{6db}5i\u{202e}\u{9b}6n".as_bytes(), &mut out);
        assert_eq!(out, b"\x1b[31ma?5i?6n");

        let says = |all: &str, ctype: Option<&str>, lang: &str| {
            is_utf_8(|name| match name {
                "LC_ALL" => Some(all.into()),
                "LC_CTYPE" => ctype.map(OsString::from),
                _ => Some(lang.into()),
            })
        };
        assert!(says("", None, "de_DE.UTF-8"));
        assert!(says("C.utf8", Some("C"), "C"));
        assert!(says("", Some("ca_ES.UTF-8@valencia"), "C"));
        assert!(!says("", Some("C"), "de_DE.UTF-8"));
        assert!(!says("de_DE@euro", None, "de_DE.UTF-8"));
        assert!(!says("", None, ""));
        assert!(!is_utf_8(|_| None));
    }

    #[test]
    fn a_sequence_may_come_in_pieces_and_without_an_end() {
        let mut filter = Filter::new(true);
        let mut out = Vec::new();
        for byte in b"\x1b[31mred\x1b]52;c;" {
            filter.pass(&[*byte], &mut out);
        }
        let endless = vec![b'A'; 1 << 20];
        for _ in 0..16 {
            filter.pass(&endless, &mut out);
        }
        filter.pass(b"\x07.", &mut out);
        assert_eq!(out, b"\x1b[31mred.");
        // Its room for strings is within, and of a fixed size.
        assert!((1024..4096).contains(&size_of::<Filter>()));
    }

    /// True if nothing in it steers a terminal.
    fn is_plain(text: &str) -> bool {
        text.chars()
            .all(|c| !c.is_control() || CONTROLS.iter().any(|control| char::from(*control) == c))
    }

    /// What follows an escape that stands in a table; none for any other.
    fn behind(escape: &str) -> Option<&str> {
        let Some(sequence) = escape.strip_prefix('[') else {
            let known = ESCAPES.contains(escape.as_bytes().first()?);
            return known.then(|| &escape[1..]);
        };
        if let Some(rest) = ["?25h", "?25l"]
            .iter()
            .find_map(|known| sequence.strip_prefix(known))
        {
            return Some(rest);
        }
        let rest = sequence.trim_start_matches(|c: char| c.is_ascii_digit() || ";:".contains(c));
        rest.strip_prefix(|c| SEQUENCES.contains(c))
    }

    proptest! {
        #[test]
        fn only_what_the_tables_hold_is_ever_shown(
            written in prop::collection::vec(
                prop_oneof![
                    any::<u8>(),
                    prop::sample::select(b"\x1b\x1b[[]?>0;:25mhlcnP\\\x07\x9b\xc2".to_vec()),
                ],
                0..300,
            ),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut filter = Filter::new(true);
            let mut out = Vec::new();
            let (first, second) = written.split_at(cut.index(written.len() + 1));
            filter.pass(first, &mut out);
            filter.pass(second, &mut out);
            let text = String::from_utf8(out).unwrap();
            let mut pieces = text.split('\x1b');
            prop_assert!(is_plain(pieces.next().unwrap_or("")), "{text:?}");
            for escape in pieces {
                prop_assert!(behind(escape).is_some_and(is_plain), "{text:?}");
            }
        }
    }
}
