//! users.yaml as a ground without root writes it: accounts are all the same, so homes are named.

use std::path::{Path, PathBuf};

use kai_brokerd::users::second_factor;
use kai_program::{
    trusted_file::{Distrust, Trust, TrustedFile},
    yaml::{Document, Map, Mistake, Node},
};
use kai_proto::{
    gateway_broker::{SecondFactor, UserEntry},
    ids::{AccountName, Invalid, Role, TelegramId},
};

use super::HOME_KEY;

/// Somebody who may talk to an agent.
#[derive(Debug, Clone)]
pub struct Person {
    /// What the gateway is told.
    pub entry: UserEntry,
    /// The account that everything runs under.
    pub account: AccountName,
    /// Their own directory.
    pub home: PathBuf,
    /// The file with their key for the agent.
    pub key_file: Option<PathBuf>,
}

/// Why there is nobody.
#[derive(Debug, thiserror::Error)]
pub enum NoPeople {
    /// The file cannot be trusted or read.
    #[error(transparent)]
    Distrust(#[from] Distrust),
    /// The file says something that has no meaning here.
    #[error(transparent)]
    Mistake(#[from] Mistake),
}

/// Reads the file.
///
/// # Errors
/// One sentence that names the file and, where there is one, the line and key.
pub fn load(file: &Path) -> Result<Vec<Person>, NoPeople> {
    let text = TrustedFile::open(file, Trust::Private)?.read()?;
    let mut root = Document::parse(file, &text)?.into_map()?;
    let list = root.required("users")?.into_list()?;
    let rule = root
        .optional("second_factor")
        .map_or(Ok(SecondFactor::Optional), |node| second_factor(&node))?;
    root.finish()?;
    let mut people = Vec::new();
    for node in list {
        people.push(person(node.into_map()?, rule)?);
    }
    Ok(people)
}

fn person(mut map: Map, rule: SecondFactor) -> Result<Person, Mistake> {
    let id = map.required("telegram_id")?;
    let invalid = |node: &Node| {
        let node = node.mistake("is not valid");
        move |_: Invalid| node
    };
    let id = TelegramId::try_from(id.number(1..=i64::MAX)?).map_err(invalid(&id))?;
    let name = map.required("name")?;
    let account = map.required("os_user")?;
    let model = map.optional("model");
    let person = Person {
        entry: UserEntry {
            id,
            name: name.text()?.to_owned().try_into().map_err(invalid(&name))?,
            role: Role::User,
            second_factor: map
                .optional("second_factor")
                .map_or(Ok(rule), |node| second_factor(&node))?,
            chats: Vec::new(),
            model: model
                .map(|node| node.text()?.to_owned().try_into().map_err(invalid(&node)))
                .transpose()?,
        },
        account: account
            .text()?
            .to_owned()
            .try_into()
            .map_err(invalid(&account))?,
        home: map.required(HOME_KEY)?.path()?,
        key_file: map
            .optional("api_key_file")
            .map(|node| node.path())
            .transpose()?,
    };
    map.finish()?;
    Ok(person)
}
