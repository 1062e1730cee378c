//! What of the Python kai's environment has a place here: the token and the Messages API in install.yaml, what
//! concerns users in users.yaml, the rest in kai.yaml.

use std::path::{Path, PathBuf};

use kai_program::config::Config;
use kai_proto::ids::{AccountName, ModelName, TelegramId};

use super::{
    env::{Entry, Env},
    rows::Row,
};
use crate::{
    items::{configuration::KaiYaml, secrets::CONFIG},
    settings::{Settings, Token, is_address},
};

/// Keys whose values become one of kai.yaml's: section, key, and the unit behind the number.
const OF_KAI_YAML: [(&str, &str, &str, &str); 5] = [
    ("TOTP_SESSION_MINUTES", "second_factor", "idle", "m"),
    ("TOTP_CHALLENGE_SECONDS", "second_factor", "question", "s"),
    ("TOTP_LOCKOUT_ATTEMPTS", "second_factor", "failures", ""),
    ("TOTP_LOCKOUT_MINUTES", "second_factor", "lockout", "m"),
    ("CLAUDE_IDLE_TIMEOUT", "limits", "idle", "s"),
];

/// Keys that have no place here, and what to say of it.
const WITHOUT_PLACE: [(&str, &str); 15] = [
    ("WORKSPACE_BASE", "an agent works in its user's home"),
    (
        "ALLOWED_WORKSPACES",
        "an agent works in its user's home; more is opened by `paths` in users.yaml",
    ),
    ("WEBHOOK_PORT", ""),
    ("WEBHOOK_SECRET", ""),
    (
        "TELEGRAM_WEBHOOK_URL",
        "kai asks Telegram itself, and gets nothing before the bot's webhook is deleted (deleteWebhook)",
    ),
    ("TELEGRAM_WEBHOOK_SECRET", ""),
    ("PR_REVIEW_ENABLED", ""),
    ("ISSUE_TRIAGE_ENABLED", ""),
    ("VOICE_ENABLED", ""),
    ("TTS_ENABLED", ""),
    ("GITHUB_NOTIFY_CHAT_ID", ""),
    ("FILE_RETENTION_DAYS", ""),
    (
        "ANTHROPIC_API_KEY",
        "give each user a key of their own with `api_key_file` in users.yaml",
    ),
    ("DATA_DIR", "name it with --data"),
    (
        "TOTP_SECRET",
        "one secret for all; everybody enrols with their own",
    ),
];

/// What of it has a place here.
#[derive(Default)]
pub struct Taken {
    /// The bot's token.
    pub token: Option<Token>,
    /// A Messages API other than the agent's own.
    pub base_url: Option<String>,
    /// Who might write, and the file that says so.
    pub allowed: Option<(PathBuf, Vec<TelegramId>)>,
    /// The account that the agents of all ran as.
    pub account: Option<AccountName>,
    /// What each user has whose own entry says nothing else: a key of users.yaml and its value.
    pub for_everybody: Vec<(&'static str, String)>,
    /// What kai.yaml says beside what install.yaml does.
    pub kai_yaml: Vec<(&'static str, &'static str, String)>,
}

impl Taken {
    /// Takes what has a place here, and says of each key what becomes of it; `kept` says where a file is
    /// kept.
    pub fn of(env: &Env, kept: &dyn Fn(&Path) -> PathBuf, rows: &mut Vec<Row>) -> Self {
        let mut taken = Self::default();
        for entry in env.entries() {
            let row = match taken.one(entry) {
                Some(Ok(to)) => Row::brought(entry.shown(), &entry.file, to),
                Some(Err(why)) => Row::look(entry.shown(), &entry.file, why),
                None => {
                    let known = WITHOUT_PLACE.iter().find(|(key, _)| *key == entry.key);
                    let why = known.map_or("", |(_, why)| why);
                    Row::kept(entry.shown(), &entry.file, why, &kept(&entry.file))
                }
            };
            rows.push(row);
        }
        taken
    }

    /// Where this key goes, or why it does not; none if it has no place.
    fn one(&mut self, entry: &Entry) -> Option<Result<String, String>> {
        let value = entry.value.as_str();
        if value.is_empty() {
            return Some(Err("is empty, and was passed over".to_owned()));
        }
        let number = || value.parse::<u32>().ok();
        let all = |key: &str| {
            Ok(format!(
                "{key} in /etc/kai/users.yaml, of whoever has none of their own"
            ))
        };
        Some(match entry.key.as_str() {
            "TELEGRAM_BOT_TOKEN" => match Token::parse(value) {
                Ok(token) => {
                    self.token = Some(token);
                    Ok("telegram.token in /etc/kai/install.yaml".to_owned())
                }
                Err(problem) => Err(problem.to_string()),
            },
            "ANTHROPIC_BASE_URL" if is_address(value) => {
                self.base_url = Some(value.to_owned());
                Ok("agent.base_url in /etc/kai/install.yaml".to_owned())
            }
            "ALLOWED_USER_IDS" => self.allow(value, &entry.file),
            "CLAUDE_USER" => match AccountName::try_from(value.to_owned()) {
                Ok(account) => {
                    self.account = Some(account);
                    Ok("the account of the user, if there is only one".to_owned())
                }
                Err(invalid) => Err(invalid.to_string()),
            },
            "CLAUDE_MODEL" => match ModelName::try_from(value.to_owned()) {
                Ok(model) => {
                    self.for_everybody
                        .push(("model", crate::settings::quoted(model.as_str())));
                    all("model")
                }
                Err(invalid) => Err(invalid.to_string()),
            },
            "CLAUDE_TIMEOUT_SECONDS" => match number().filter(|n| (1..=600).contains(n)) {
                Some(seconds) => {
                    self.for_everybody.push(("timeout", seconds.to_string()));
                    all("timeout")
                }
                None => Err(
                    "must be a whole number of seconds up to 600; limits.turn is that of all"
                        .to_owned(),
                ),
            },
            "CLAUDE_MAX_BUDGET_USD" => match budget(value) {
                Some(dollars) => {
                    self.for_everybody.push(("max_budget", dollars));
                    all("max_budget")
                }
                None => Err("must be US dollars from 0.01 to 100000".to_owned()),
            },
            key => {
                let (_, section, key, unit) = OF_KAI_YAML.iter().find(|row| row.0 == key)?;
                match number().map(|number| format!("{number}{unit}")) {
                    Some(value) if is_taken(section, key, &value) => {
                        self.kai_yaml.push((section, key, value));
                        Ok(format!("{section}.{key} in /etc/kai/kai.yaml"))
                    }
                    _ => Err(format!("is no value that {section}.{key} can have")),
                }
            }
        })
    }

    fn allow(&mut self, value: &str, file: &Path) -> Result<String, String> {
        let ids: Option<Vec<TelegramId>> = value
            .split(',')
            .map(str::trim)
            .filter(|id| !id.is_empty())
            .map(|id| TelegramId::try_from(id.parse::<i64>().ok()?).ok())
            .collect();
        let ids = ids.ok_or("must be Telegram ids with commas between them")?;
        self.allowed = Some((file.to_owned(), ids));
        Ok("the users that are listed here".to_owned())
    }

    /// The kai.yaml that says what install.yaml does and what was taken; none if the one that apply writes
    /// says all.
    #[must_use]
    pub fn kai_yaml(&self, settings: &Settings) -> Option<String> {
        if self.kai_yaml.is_empty() {
            return None;
        }
        let mut text = usual(settings);
        for section in ["second_factor", "limits"] {
            let of_it = self.kai_yaml.iter().filter(|row| row.0 == section);
            let lines: Vec<String> = of_it
                .map(|(_, key, value)| format!("  {key}: {value}\n"))
                .collect();
            if !lines.is_empty() {
                text.push_str(&format!("{section}:\n{}", lines.concat()));
            }
        }
        Some(text)
    }
}

fn usual(settings: &Settings) -> String {
    let item = KaiYaml {
        settings: settings.clone(),
        agent: crate::agent::COMMAND,
    };
    item.text()
}

/// Whether kai.yaml can say this.
fn is_taken(section: &str, key: &str, value: &str) -> bool {
    let text = format!(
        "{}{section}: {{{key}: {value}}}\n",
        usual(&Settings::default())
    );
    Config::parse(CONFIG.as_ref(), &text).is_ok()
}

/// US dollars as users.yaml takes them.
pub fn budget(value: &str) -> Option<String> {
    let dollars: f64 = value.parse().ok()?;
    (0.01..=100_000.0)
        .contains(&dollars)
        .then(|| format!("{dollars}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_named_once_and_no_value_is() {
        let (mut env, mut rows) = (Env::default(), Vec::new());
        let text = "TELEGRAM_BOT_TOKEN=123456:AAbbCCddEEffGGhhIIjjKK\nWEBHOOK_SECRET=hunter2\nMY_KEY=hunter2\n\
             CLAUDE_TIMEOUT_SECONDS=hunter2\nTOTP_LOCKOUT_ATTEMPTS=99\nTOTP_SESSION_MINUTES=45\n\
             CLAUDE_MODEL=--hunter2\nALLOWED_USER_IDS=11, 12\nCLAUDE_MAX_BUDGET_USD=NaN\n\
             CLAUDE_USER=../hunter2\nANTHROPIC_BASE_URL=http://u:hunter2@x\n";
        env.add(Path::new("/etc/kai/env"), text, &mut rows);
        let taken = Taken::of(&env, &|_| "/kept".into(), &mut rows);

        let said = serde_json::to_string(&rows).unwrap();
        assert_eq!(rows.len(), 11, "{said}");
        assert!(
            !said.contains("hunter2") && !said.contains("AAbb"),
            "{said}"
        );
        assert!(taken.token.is_some() && taken.for_everybody.is_empty());
        assert_eq!(taken.allowed.as_ref().unwrap().1.len(), 2);
        let text = taken.kai_yaml(&Settings::default()).unwrap();
        let config = Config::parse(CONFIG.as_ref(), &text).unwrap();
        assert_eq!(config.second_factor.idle.as_secs(), 45 * 60);
    }
}
