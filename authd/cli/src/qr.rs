//! A QR code as text. Two rows a line by half blocks, and both colours said outright: black on white
//! on dark terminals and on light ones, because a phone's camera wants it so.

use qrcodegen::{QrCode, QrCodeEcc};
use zeroize::Zeroizing;

/// Blank modules on each side, which ISO/IEC 18004 asks for.
const QUIET: i32 = 4;

/// Black on white by their numbers among the 256 colours, which themes leave alone.
const COLOURS: &str = "\x1b[38;5;16;48;5;231m";

const RESET: &str = "\x1b[0m";

/// Draws `text` in at most `columns` columns; none if it does not fit.
#[must_use]
pub fn draw(text: &str, columns: usize) -> Option<Zeroizing<String>> {
    // The lowest correction keeps it small: a screen has no stains, and what fits is corrected more.
    let code = QrCode::encode_text(text, QrCodeEcc::Low).ok()?;
    let (from, to) = (-QUIET, code.size() + QUIET);
    let width = usize::try_from(to - from).ok()?;
    if width > columns {
        return None;
    }
    let line = COLOURS.len() + width * '█'.len_utf8() + RESET.len() + 1;
    let mut drawn = Zeroizing::new(String::with_capacity(line * width.div_ceil(2)));
    for upper in (from..to).step_by(2) {
        drawn.push_str(COLOURS);
        for x in from..to {
            // Beyond its edge every module is light.
            drawn.push(
                match (code.get_module(x, upper), code.get_module(x, upper + 1)) {
                    (true, true) => '█',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (false, false) => ' ',
                },
            );
        }
        drawn.push_str(RESET);
        drawn.push('\n');
    }
    Some(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    const URI: &str = "otpauth://totp/kai:alice%40host.example?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
                       &issuer=kai&algorithm=SHA1&digits=6&period=30";

    #[test]
    fn it_fits_an_ordinary_terminal_and_never_wraps() {
        let drawn = draw(URI, 80).unwrap();

        let plain = drawn.replace(COLOURS, "").replace(RESET, "");
        let width = plain.lines().next().unwrap().chars().count();
        assert!(plain.lines().all(|line| line.chars().count() == width));
        assert!(width <= 80 && plain.lines().count() <= 30);
        assert!(draw(URI, width - 1).is_none());
        assert!(draw(URI, width).is_some());
    }

    #[test]
    fn the_quiet_zone_is_light_on_all_sides() {
        let drawn = draw(URI, 80).unwrap();

        let plain = drawn.replace(COLOURS, "").replace(RESET, "");
        let lines: Vec<&str> = plain.lines().collect();
        let blank = |line: &str| line.chars().all(|c| c == ' ');
        assert!(blank(lines[0]) && blank(lines[1]) && blank(lines[lines.len() - 1]));
        for line in lines {
            assert!(line.starts_with("    ") && line.ends_with("    "));
        }
    }

    #[test]
    fn its_buffer_never_grows() {
        let drawn = draw(URI, 80).unwrap();
        let width = drawn.lines().next().unwrap().chars().count() - COLOURS.len() - RESET.len();

        let line = COLOURS.len() + width * '█'.len_utf8() + RESET.len() + 1;
        assert!(drawn.len() <= line * width.div_ceil(2));
    }
}
