//! The bot's token in install.yaml: once it is kept encrypted, it does not stay there for all to read who
//! come by a copy of the file.

use std::{fmt, path::Path};

use zeroize::Zeroizing;

use super::{
    Goes, Item, Standing,
    token::{Kept, decrypted},
};
use crate::{
    credentials::Keys,
    failure::Failure,
    root::{Kind, Root},
    settings::{self, Settings, Token, text},
};

/// An install.yaml without the token that is kept encrypted.
pub struct NotInClear {
    /// The token that install.yaml gives.
    pub token: Option<Token>,
    /// What it is encrypted with.
    pub keys: Keys,
}

impl NotInClear {
    /// install.yaml without this token; none if it is not there, or is not to be changed here.
    fn without(&self, root: &Root) -> Result<Option<String>, Failure> {
        let path = Path::new(settings::DEFAULT);
        let Some(token) = &self.token else {
            return Ok(None);
        };
        // A link, or a file of two names, is made by something that would bring it back.
        if root
            .look(path)?
            .is_none_or(|found| found.kind != Kind::File || found.names != 1)
        {
            return Ok(None);
        }
        let text = Zeroizing::new(root.read_text(path)?.unwrap_or_default());
        // Which cannot be read if the settings were taken from another file.
        let gives_it =
            Settings::parse(path, &text).is_ok_and(|it| it.token.as_ref() == Some(token));
        Ok(gives_it
            .then(|| text::without_token(&text))
            .and_then(Result::ok))
    }
}

impl fmt::Display for NotInClear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {}", settings::DEFAULT)
    }
}

impl Item for NotInClear {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        Ok(match self.without(root)? {
            None => Standing::Right,
            Some(_) => Standing::Differs("has the bot's token, which is kept encrypted".to_owned()),
        })
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        let path = Path::new(settings::DEFAULT);
        let (Some(found), Some(text), Some(token)) =
            (root.look(path)?, self.without(root)?, &self.token)
        else {
            return Ok(());
        };
        // Nothing else may have it.
        if decrypted(root, &self.keys)?.trim() != token.reveal() {
            return Ok(());
        }
        root.write(path, &mut text.as_bytes(), found.access)
    }

    fn take_away(&self, _: &Root) -> Result<bool, Failure> {
        Ok(false)
    }

    fn goes(&self) -> Goes {
        Goes::Never
    }
}

/// What is to be said of a token that stays in the settings although it is kept encrypted too.
///
/// # Errors
/// If install.yaml cannot be read.
pub fn left(
    root: &Root,
    settings: &Settings,
    file: &Path,
    kept: &Kept,
) -> Result<Option<String>, Failure> {
    let Kept::Encrypted(keys) = kept else {
        return Ok(None);
    };
    let not_in_clear = NotInClear {
        token: settings.token.clone(),
        keys: keys.clone(),
    };
    let is_default = file == root.shown(settings::DEFAULT.as_ref());
    if settings.token.is_none() || is_default && not_in_clear.without(root)?.is_some() {
        return Ok(None);
    }
    Ok(Some(format!(
        "{} still has the bot's token, which is kept encrypted; take `token` below `telegram` out of it",
        file.display()
    )))
}
