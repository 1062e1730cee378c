//! The bot's token: where it is, and what keeps it from being shown.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use kai_program::{
    bot_token::is_bot_token,
    trusted_file::{Distrust, Trust, TrustedFile},
};
use zeroize::Zeroizing;

/// The name of the credential that systemd hands to the unit.
const CREDENTIAL: &str = "telegram-token";

/// A token of the right form, wiped from memory when dropped and never shown.
#[derive(Clone)]
pub struct BotToken(Zeroizing<String>);

impl BotToken {
    /// The token itself, for the one place that sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BotToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BotToken(…)")
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be trusted or read.
    #[error(transparent)]
    Distrust(#[from] Distrust),
    /// The file holds something else.
    #[error(
        "{0}: does not hold a bot token of the form NUMBER:LETTERS; \
         write the line there that @BotFather gave"
    )]
    Form(PathBuf),
}

/// Reads the token from the directory of systemd's credentials, if it is there, or else from `file`.
///
/// # Errors
/// One sentence that names the file and how to mend it, never its content.
pub fn read(credentials: Option<&Path>, file: &Path) -> Result<BotToken, TokenError> {
    let credential = credentials
        .map(|directory| directory.join(CREDENTIAL))
        .filter(|path| path.exists());
    let path = credential.as_deref().unwrap_or(file);
    let text = TrustedFile::open(path, Trust::GroupSecret)?.read()?;
    let token = text.trim();
    if !is_bot_token(token) {
        return Err(TokenError::Form(path.to_owned()));
    }
    Ok(BotToken(Zeroizing::new(token.to_owned())))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    const TOKEN: &str = "123456:AAbbCCddEEffGGhhIIjjKK-_0123456789";

    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    }

    #[test]
    fn the_credential_of_the_unit_wins_over_the_configured_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        write(&file, TOKEN);
        write(
            &directory.path().join(CREDENTIAL),
            "7:AAbbCCddEEffGGhhIIjj\n",
        );

        let token = read(Some(directory.path()), &file).unwrap();

        assert_eq!(token.reveal(), "7:AAbbCCddEEffGGhhIIjj");
        assert_eq!(read(None, &file).unwrap().reveal(), TOKEN);
    }

    #[test]
    fn a_token_is_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        write(&file, "not-a-token-but-secret");
        let error = read(None, &file).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
        assert_eq!(
            format!("{:?}", BotToken(Zeroizing::new(TOKEN.to_owned()))),
            "BotToken(…)"
        );
    }
}
