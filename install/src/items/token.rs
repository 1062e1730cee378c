//! The bot's token, where systemd takes it from for the gateway alone: encrypted where the host can, in a
//! file of root's otherwise.

use std::{fmt, path::Path};

use zeroize::Zeroizing;

use super::{
    Goes, Item, Standing,
    secrets::{SECRET, TOKEN, is_root_s_alone},
};
use crate::{
    credentials::Keys,
    failure::Failure,
    root::{Access, Root},
    settings::{Settings, Token},
    source::Unit,
};

/// Where the token is encrypted.
pub const ENCRYPTED: &str = "/etc/kai/credentials/telegram-token.cred";
/// What the gateway knows it by.
const NAME: &str = "telegram-token";

/// How the token is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// As it is.
    Plain,
    /// Encrypted.
    Encrypted(Keys),
    /// Encrypted with the key of another host, whose tree this is: what is in it cannot be known here.
    Elsewhere,
}

impl Kept {
    /// How it is, or is to be, kept in this tree. Nothing is changed.
    #[must_use]
    pub fn of(root: &Root, settings: &Settings) -> Self {
        // Only root can see whether it is there.
        let is_encrypted = || matches!(root.look(ENCRYPTED.as_ref()), Ok(Some(_)));
        if root.is_host() {
            return match Keys::of_the_host() {
                Some(keys) => Self::Encrypted(keys),
                None if is_encrypted() => Self::Encrypted(Keys::Host),
                None => Self::Plain,
            };
        }
        match settings.token {
            None if is_encrypted() => Self::Elsewhere,
            _ => Self::Plain,
        }
    }

    /// The token as something that there shall be.
    #[must_use]
    pub fn item(&self, token: Option<Token>) -> Box<dyn Item> {
        match self {
            Self::Plain => Box::new(Plain(token)),
            Self::Encrypted(keys) => Box::new(Encrypted {
                token,
                keys: Some(keys.clone()),
            }),
            Self::Elsewhere => Box::new(Encrypted { token, keys: None }),
        }
    }

    /// The file of the other way to keep it, which nothing needs once the units run with this one.
    #[must_use]
    pub fn other(&self) -> Option<&'static Path> {
        match self {
            Self::Plain => Some(ENCRYPTED.as_ref()),
            Self::Encrypted(_) => Some(TOKEN.as_ref()),
            Self::Elsewhere => None,
        }
    }

    /// The unit, taking the token from where it is kept.
    #[must_use]
    pub fn unit(&self, unit: &Unit) -> Unit {
        let plain = format!("LoadCredential={NAME}:{TOKEN}\n");
        let text = match self {
            Self::Plain => unit.text.clone(),
            Self::Encrypted(_) | Self::Elsewhere => unit.text.replace(
                &plain,
                &format!("LoadCredentialEncrypted={NAME}:{ENCRYPTED}\n"),
            ),
        };
        Unit {
            name: unit.name.clone(),
            text,
        }
    }
}

/// The token in a file of root's.
struct Plain(Option<Token>);

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret {TOKEN}")
    }
}

impl Item for Plain {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        let there = is_root_s_alone(root, TOKEN.as_ref())?;
        Ok(match (&self.0, there) {
            (None, false) => return Err(Failure::NoToken),
            (None, true) => Standing::Right,
            (Some(_), false) => Standing::Missing,
            (Some(token), true) => {
                let text = Zeroizing::new(root.read_text(TOKEN.as_ref())?.unwrap_or_default());
                compared(&text, token)
            }
        })
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        let token = self.0.as_ref().ok_or(Failure::NoToken)?;
        let text = line(token);
        root.write(TOKEN.as_ref(), &mut text.as_bytes(), Access::root(SECRET))
    }

    fn take_away(&self, root: &Root) -> Result<bool, Failure> {
        take_away(root, TOKEN.as_ref())
    }

    fn goes(&self) -> Goes {
        Goes::WithData
    }
}

/// The token in a file that this host alone can decrypt.
struct Encrypted {
    token: Option<Token>,
    /// None if they are another host's.
    keys: Option<Keys>,
}

impl Encrypted {
    /// The token that is given, or else the one that was kept as it is.
    fn given(&self, root: &Root) -> Result<Option<Token>, Failure> {
        if self.token.is_some() || !is_root_s_alone(root, TOKEN.as_ref())? {
            return Ok(self.token.clone());
        }
        let text = Zeroizing::new(root.read_text(TOKEN.as_ref())?.unwrap_or_default());
        match Token::parse(&text) {
            Ok(token) => Ok(Some(token)),
            Err(problem) => Err(Failure::Secret {
                path: root.shown(TOKEN.as_ref()),
                problem: Box::new(problem),
            }),
        }
    }
}

impl fmt::Display for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret {ENCRYPTED}")
    }
}

impl Item for Encrypted {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        if !is_root_s_alone(root, ENCRYPTED.as_ref())? {
            return match self.given(root)? {
                Some(_) => Ok(Standing::Missing),
                None => Err(Failure::NoToken),
            };
        }
        let Some(keys) = &self.keys else {
            return Ok(Standing::Right);
        };
        Ok(match (decrypted(root, keys), &self.token) {
            (Ok(text), Some(token)) => compared(&text, token),
            // A new one that the admin wrote beside it is what counts.
            (Ok(text), None) => match self.given(root)? {
                Some(token) => compared(&text, &token),
                None => Standing::Right,
            },
            (Err(problem), _) => match self.given(root)? {
                Some(_) => Standing::Differs("cannot be decrypted on this host".to_owned()),
                None => return Err(problem),
            },
        })
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        let (Some(token), Some(keys)) = (self.given(root)?, &self.keys) else {
            return Err(Failure::NoToken);
        };
        let encrypted = keys.encrypt(NAME, &line(&token))?;
        root.write(
            ENCRYPTED.as_ref(),
            &mut encrypted.as_bytes(),
            Access::root(SECRET),
        )
    }

    fn take_away(&self, root: &Root) -> Result<bool, Failure> {
        take_away(root, ENCRYPTED.as_ref())
    }

    fn goes(&self) -> Goes {
        Goes::WithData
    }
}

/// What the encrypted file holds.
///
/// # Errors
/// [`Failure::Undecryptable`].
pub fn decrypted(root: &Root, keys: &Keys) -> Result<Zeroizing<String>, Failure> {
    let encrypted = root.read_text(ENCRYPTED.as_ref())?.unwrap_or_default();
    keys.decrypt(NAME, &encrypted)
        .map_err(|problem| Failure::Undecryptable {
            path: root.shown(ENCRYPTED.as_ref()),
            problem: Box::new(problem),
        })
}

fn compared(text: &str, token: &Token) -> Standing {
    if text.trim() == token.reveal() {
        Standing::Right
    } else {
        Standing::Differs("is another token".to_owned())
    }
}

fn line(token: &Token) -> Zeroizing<String> {
    Zeroizing::new(format!("{}\n", token.reveal()))
}

fn take_away(root: &Root, path: &Path) -> Result<bool, Failure> {
    let there = root.look(path)?.is_some();
    root.remove(path)?;
    Ok(there)
}
