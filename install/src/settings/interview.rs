//! The questions of `kai-install config`, each answer judged as it is given.

use std::io;

use kai_proto::ids::{AccountName, Role, TelegramId, UserName};

use super::{Settings, Token, User, is_address, prove::Proof};

/// The answer that takes back a value that is known.
const NONE: &str = "-";

/// Somebody who answers questions.
pub trait Answers {
    /// Shows `text` as a line of its own.
    ///
    /// # Errors
    /// The terminal is gone.
    fn say(&mut self, text: &str) -> io::Result<()>;

    /// Asks for a line; what is typed is shown.
    ///
    /// # Errors
    /// The terminal is gone, or its input has ended.
    fn ask(&mut self, question: &str) -> io::Result<String>;

    /// Asks for a line that is not shown as it is typed.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    fn ask_secretly(&mut self, question: &str) -> io::Result<zeroize::Zeroizing<String>>;
}

/// What the answers are judged by, beside their form.
pub struct Judges<'a> {
    /// Asks the Bot API about a token.
    pub token: &'a dyn Fn(&Token, &Settings) -> Proof,
    /// Whether an account exists and may host an agent: `Ok(true)` if it does, `Ok(false)` if there is
    /// none, or why it may not.
    pub account: &'a dyn Fn(&AccountName) -> Result<bool, String>,
    /// Whether a token is installed, so that none need be given.
    pub has_token: bool,
    /// Whether kai made the account, or is to.
    pub is_made: &'a dyn Fn(&AccountName) -> bool,
}

/// Asks until all is known; `known` gives the defaults.
///
/// # Errors
/// The terminal is gone, or its input has ended. Nothing was written then.
pub fn interview(
    known: &Settings,
    judges: &Judges<'_>,
    with: &mut dyn Answers,
) -> io::Result<Settings> {
    let mut settings = known.clone();
    ask_for_the_token(&mut settings, judges, with)?;
    ask_for_the_agent(&mut settings, with)?;
    loop {
        with.say(&match settings.users.len() {
            0 => "Who shall have an agent? Their Telegram id is what @userinfobot tells them."
                .to_owned(),
            n => format!("{n} users so far."),
        })?;
        match ask_for_a_user(&settings, judges, with)? {
            Some(user) => settings.users.push(user),
            None => break,
        }
    }
    ask_for_admins(&mut settings, judges, with)?;
    Ok(settings)
}

fn ask_for_the_token(
    settings: &mut Settings,
    judges: &Judges<'_>,
    with: &mut dyn Answers,
) -> io::Result<()> {
    let keep = settings.token.is_some() || judges.has_token;
    loop {
        let answer = with.ask_secretly(if keep {
            "The bot's token (empty keeps the one that is known): "
        } else {
            "The bot's token, from @BotFather (it is not shown): "
        })?;
        if keep && answer.trim().is_empty() {
            return Ok(());
        }
        let token = match Token::parse(&answer) {
            Ok(token) => token,
            Err(problem) => {
                with.say(&problem.to_string())?;
                continue;
            }
        };
        match (judges.token)(&token, settings) {
            Proof::Known(name) => with.say(&format!("It is the token of @{name}."))?,
            Proof::Unknown(why) => with.say(&format!(
                "It has the right form, and cannot be checked: {why}."
            ))?,
            Proof::Refused => {
                with.say("Telegram does not know this token: copy it again from @BotFather.")?;
                continue;
            }
        }
        settings.token = Some(token);
        return Ok(());
    }
}

fn ask_for_the_agent(settings: &mut Settings, with: &mut dyn Answers) -> io::Result<()> {
    loop {
        let known = settings.agent_command.as_ref().map(|words| words.join(" "));
        let answer = with.ask(&format!(
            "The agent's program ({}): ",
            or_none(known.as_deref(), "the one that kai-install agent installs")
        ))?;
        let words: Vec<String> = answer.split_whitespace().map(str::to_owned).collect();
        match words.first() {
            None => break,
            Some(none) if none == NONE => {
                settings.agent_command = None;
                break;
            }
            Some(program) if program.starts_with('/') => {
                settings.agent_command = Some(words);
                break;
            }
            Some(_) => with.say("Its absolute path, please: it begins with a slash.")?,
        }
    }
    loop {
        let answer = with.ask(&format!(
            "A Messages API other than the agent's own ({}): ",
            or_none(settings.base_url.as_deref(), "none")
        ))?;
        let answer = answer.trim();
        if answer.is_empty() {
            return Ok(());
        }
        if answer == NONE {
            settings.base_url = None;
            return Ok(());
        }
        if is_address(answer) {
            settings.base_url = Some(answer.to_owned());
            return Ok(());
        }
        with.say("An http:// or https:// address without credentials, please.")?;
    }
}

/// What an empty answer means, and how a value is taken back.
fn or_none(known: Option<&str>, none: &str) -> String {
    match known {
        None => format!("empty for {none}"),
        Some(known) => format!("empty keeps {known}, {NONE} for {none}"),
    }
}

fn ask_for_a_user(
    settings: &Settings,
    judges: &Judges<'_>,
    with: &mut dyn Answers,
) -> io::Result<Option<User>> {
    let telegram_id = loop {
        let answer = with.ask("Telegram id of a user (empty if that is all): ")?;
        if answer.trim().is_empty() {
            return Ok(None);
        }
        match telegram_id(answer.trim()) {
            Some(id) if settings.users.iter().any(|user| user.telegram_id == id) => {
                with.say("This id is another user's.")?;
            }
            Some(id) => break id,
            None => with.say("A Telegram id is a positive number.")?,
        }
    };
    let (os_user, exists) = loop {
        let answer = with.ask("Their account on this host: ")?;
        let account = match AccountName::try_from(answer.trim().to_owned()) {
            Ok(account) => account,
            Err(invalid) => {
                with.say(&invalid.to_string())?;
                continue;
            }
        };
        if settings.users.iter().any(|user| user.os_user == account) {
            with.say("This account is another user's.")?;
            continue;
        }
        match (judges.account)(&account) {
            Err(why) => with.say(&format!("os_user {why}"))?,
            Ok(true) => break (account, true),
            Ok(false) => {
                if yes(
                    with,
                    &format!("There is no account {account}. Make it, for the agent alone? [Y/n] "),
                    true,
                )? {
                    break (account, false);
                }
            }
        }
    };
    let name = loop {
        let answer = with.ask(&format!("Their name [{os_user}]: "))?;
        let text = match answer.trim() {
            "" => os_user.as_str(),
            other => other,
        };
        match UserName::try_from(text.to_owned()) {
            Ok(name) if settings.users.iter().any(|user| user.name == name) => {
                with.say("This name is another user's.")?;
            }
            Ok(name) => break name,
            Err(invalid) => with.say(&invalid.to_string())?,
        }
    };
    let admin = yes(
        with,
        "Are they told of what concerns everybody? [y/N] ",
        false,
    )?;
    Ok(Some(User {
        telegram_id,
        name,
        create: !exists || (judges.is_made)(&os_user),
        os_user,
        role: if admin { Role::Admin } else { Role::User },
        uid: None,
    }))
}

fn ask_for_admins(
    settings: &mut Settings,
    judges: &Judges<'_>,
    with: &mut dyn Answers,
) -> io::Result<()> {
    'again: loop {
        let answer = with.ask(
            "Accounts that may look at kai with sudo, with spaces between them (empty for no change): ",
        )?;
        let mut admins = Vec::new();
        for word in answer.split_whitespace() {
            match AccountName::try_from(word.to_owned()) {
                Err(invalid) => {
                    with.say(&invalid.to_string())?;
                    continue 'again;
                }
                Ok(account) if settings.users.iter().any(|user| user.os_user == account) => {
                    with.say(&format!(
                        "The agent of {account} would be such an admin: name another account."
                    ))?;
                    continue 'again;
                }
                Ok(account) if matches!((judges.account)(&account), Ok(false)) => {
                    with.say(&format!("There is no account {account}."))?;
                    continue 'again;
                }
                Ok(account) => admins.push(account),
            }
        }
        if !admins.is_empty() {
            settings.admins = admins;
        }
        return Ok(());
    }
}

fn yes(with: &mut dyn Answers, question: &str, default: bool) -> io::Result<bool> {
    loop {
        match with.ask(question)?.trim().to_lowercase().as_str() {
            "" => return Ok(default),
            "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => with.say("y or n, please.")?,
        }
    }
}

/// A Telegram id as people type it.
#[must_use]
pub fn telegram_id(text: &str) -> Option<TelegramId> {
    text.parse::<i64>()
        .ok()
        .filter(|number| (1..1 << 52).contains(number))
        .and_then(|number| TelegramId::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use zeroize::Zeroizing;

    use super::*;

    const TOKEN: &str = "123456:AAbbCCddEEffGGhhIIjjKK";

    struct Typist {
        lines: VecDeque<&'static str>,
        shown: String,
    }

    impl Answers for Typist {
        fn say(&mut self, text: &str) -> io::Result<()> {
            self.shown.push_str(text);
            self.shown.push('\n');
            Ok(())
        }
        fn ask(&mut self, question: &str) -> io::Result<String> {
            let line = self.lines.pop_front();
            let line = line.ok_or(io::ErrorKind::UnexpectedEof)?;
            self.shown.push_str(question);
            self.shown.push_str(line);
            Ok(line.to_owned())
        }
        fn ask_secretly(&mut self, question: &str) -> io::Result<Zeroizing<String>> {
            self.shown.push_str(question);
            let line = self.lines.pop_front();
            Ok(line.ok_or(io::ErrorKind::UnexpectedEof)?.to_owned().into())
        }
    }

    fn asked(lines: &[&'static str]) -> (io::Result<Settings>, String) {
        asked_where(false, lines)
    }

    fn asked_where(has_token: bool, lines: &[&'static str]) -> (io::Result<Settings>, String) {
        asked_again(&Settings::default(), has_token, lines)
    }

    fn asked_again(
        known: &Settings,
        has_token: bool,
        lines: &[&'static str],
    ) -> (io::Result<Settings>, String) {
        let mut typist = Typist {
            lines: lines.iter().copied().collect(),
            shown: String::new(),
        };
        let judges = Judges {
            token: &|token, _| match token.reveal() {
                TOKEN => Proof::Known("a_bot".to_owned()),
                _ => Proof::Refused,
            },
            account: &|name| match name.as_str() {
                "root" => Err("names an account with uid 0".to_owned()),
                "alice" | "carol" => Ok(true),
                _ => Ok(false),
            },
            has_token,
            is_made: &|_| false,
        };
        let settings = interview(known, &judges, &mut typist);
        (settings, typist.shown)
    }

    #[test]
    fn wrong_answers_are_told_at_once_and_asked_again() {
        let (settings, shown) = asked(&[
            "not a token",
            "123456:AAbbCCddEEffGGhhIIjjKKnobodys",
            TOKEN,
            "claude",
            "",
            "ftp://x",
            "",
            "me",
            "11",
            "root",
            "Alice",
            "alice",
            "",
            "",
            "11",
            "12",
            "bob",
            "n",
            "bob",
            "y",
            "Bob B.",
            "y",
            "",
            "alice",
            "carol",
        ]);

        let settings = settings.unwrap();
        assert_eq!(settings.users.len(), 2);
        assert!(!settings.users[0].create && settings.users[1].create);
        assert_eq!(settings.users[1].name.as_str(), "Bob B.");
        assert_eq!(settings.users[1].role, Role::Admin);
        assert_eq!(settings.admins.len(), 1);
        for said in [
            "@BotFather",
            "does not know this token",
            "@a_bot",
            "begins with a slash",
            "positive number",
            "uid 0",
            "another user's",
        ] {
            assert!(shown.contains(said), "{said}: {shown}");
        }
        assert!(!shown.contains("AAbb"), "{shown}");
    }

    #[test]
    fn a_token_that_is_installed_is_kept_by_an_empty_answer() {
        let (settings, shown) = asked_where(true, &["", "", "", "", ""]);

        assert_eq!(settings.unwrap().token, None);
        assert!(shown.contains("empty keeps"), "{shown}");
        assert!(asked(&["", ""]).0.is_err());
    }

    #[test]
    fn what_is_known_is_shown_and_kept_or_taken_back() {
        let known = Settings {
            agent_command: Some(vec!["/opt/a".to_owned(), "--x".to_owned()]),
            base_url: Some("https://model.example".to_owned()),
            ..Settings::default()
        };
        let (kept, shown) = asked_again(&known, true, &["", "", "", "", ""]);
        let kept = kept.unwrap();
        assert_eq!(kept.agent_command, known.agent_command);
        assert_eq!(kept.base_url, known.base_url);
        for said in ["keeps /opt/a --x, -", "keeps https://model.example, -"] {
            assert!(shown.contains(said), "{said}: {shown}");
        }
        let (taken_back, _) = asked_again(&known, true, &["", "-", "-", "", ""]);
        let taken_back = taken_back.unwrap();
        assert_eq!(
            (taken_back.agent_command, taken_back.base_url),
            (None, None)
        );
    }

    #[test]
    fn an_end_of_input_is_an_error_and_no_endless_question() {
        assert!(asked(&[TOKEN, ""]).0.is_err());
    }
}
