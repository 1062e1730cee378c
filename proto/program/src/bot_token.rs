//! What a bot's token looks like.

/// True for the form that @BotFather gives: the bot's number, a colon, and a secret. It goes into
/// the path of an address, so nothing else may.
#[must_use]
pub fn is_bot_token(text: &str) -> bool {
    let Some((number, secret)) = text.split_once(':') else {
        return false;
    };
    let secret_byte = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=20).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit())
        && (16..=128).contains(&secret.len())
        && secret.bytes().all(secret_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_a_number_a_colon_and_a_secret_that_fits_an_address() {
        assert!(is_bot_token("123456:AAbbCCddEEffGGhhIIjjKK-_0123456789"));
        for bad in ["", "123456", ":abc", "12a:AAbbCCddEEffGGhhIIjj", "1:short"] {
            assert!(!is_bot_token(bad), "{bad:?}");
        }
        assert!(!is_bot_token("123:AAbbCCddEEffGGhh/../IIjjKK"));
    }
}
