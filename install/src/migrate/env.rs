//! The environment of the Python kai: `KEY=value` lines, from `/etc/kai/env` and `.env`. What a key says is
//! taken over where it has a place here; a value is never shown.

use std::path::{Path, PathBuf};

use kai_program::config::Config;
use kai_proto::ids::{AccountName, ModelName, TelegramId};
use zeroize::Zeroizing;

use super::rows::Row;
use crate::{
    items::{configuration::KaiYaml, secrets::CONFIG},
    settings::{Settings, Token, is_address},
};

/// Longest environment, in bytes.
pub const LONGEST: u64 = 256 * 1024;

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

/// Longest key that is shown.
const LONGEST_SHOWN: usize = 40;

/// One key.
struct Entry {
    /// The number of its line.
    line: usize,
    key: String,
    value: Zeroizing<String>,
    file: PathBuf,
}

impl Entry {
    /// Its key, if that looks like one; otherwise its line. A secret on a line of its own may end in `=` and
    /// so look like a key too.
    fn shown(&self) -> String {
        let key = &self.key;
        let is_name = key.len() <= LONGEST_SHOWN
            && key.starts_with(|c: char| c.is_ascii_uppercase())
            && key
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        // Base32 has capitals and digits alone.
        let is_padded = !key.contains('_') && self.value.trim_matches('=').is_empty();
        if is_name && !is_padded {
            key.clone()
        } else {
            format!("line {}", self.line)
        }
    }
}

/// All that the files say.
#[derive(Default)]
pub struct Env(Vec<Entry>);

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

impl Env {
    /// Adds what `text`, that of `file`, says. What an earlier file says stands; in one file, the last line.
    pub fn add(&mut self, file: &Path, text: &str, rows: &mut Vec<Row>) {
        let mut new: Vec<Entry> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((key, value)) = pair(line) else {
                rows.push(Row::look(
                    format!("line {}", at + 1),
                    file,
                    "is not of the form KEY=value, and was passed over",
                ));
                continue;
            };
            new.retain(|entry| entry.key != key);
            new.push(Entry {
                line: at + 1,
                key: key.to_owned(),
                value,
                file: file.to_owned(),
            });
        }
        for entry in new {
            if self.0.iter().all(|known| known.key != entry.key) {
                self.0.push(entry);
            }
        }
    }

    /// What the key says.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let entry = self.0.iter().find(|entry| entry.key == key)?;
        Some(entry.value.as_str())
    }

    /// Takes what has a place here, and says of each key what becomes of it; `kept` says where a file is
    /// kept.
    pub fn take(&self, kept: &dyn Fn(&Path) -> PathBuf, rows: &mut Vec<Row>) -> Taken {
        let mut taken = Taken::default();
        for entry in &self.0 {
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
}

impl Taken {
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

/// Key and value of a line, as dotenv and systemd's EnvironmentFile= have them alike.
fn pair(line: &str) -> Option<(&str, Zeroizing<String>)> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let is_key = (1..=64).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !key.starts_with(|c: char| c.is_ascii_digit());
    if !is_key || value.contains('\0') {
        return None;
    }
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            let (inside, behind) = rest.split_once(quote)?;
            let behind = behind.trim();
            let is_all = behind.is_empty() || behind.starts_with('#');
            return is_all.then(|| (key, Zeroizing::new(inside.to_owned())));
        }
    }
    let value = value.split_once(" #").map_or(value, |(value, _)| value);
    Some((key, Zeroizing::new(value.trim_end().to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(text: &str) -> (Env, Vec<Row>) {
        let (mut env, mut rows) = (Env::default(), Vec::new());
        env.add(Path::new("/etc/kai/env"), text, &mut rows);
        (env, rows)
    }

    #[test]
    fn lines_are_read_as_dotenv_and_systemd_read_them() {
        let (env, rows) = env(
            "# c\r\n\nexport A=1\r\nB = two words # c\nC='a # b' # c\nD=\"x\"\nE=\nA=2\nF=a#b\nG=a=b\n",
        );

        for (key, value) in [
            ("A", "2"),
            ("B", "two words"),
            ("C", "a # b"),
            ("D", "x"),
            ("E", ""),
            ("F", "a#b"),
            ("G", "a=b"),
        ] {
            assert_eq!(env.get(key), Some(value), "{key}");
        }
        assert!(rows.is_empty());
    }

    #[test]
    fn an_unreadable_line_is_named_by_its_number_and_never_shown() {
        let (env, rows) = env("A=1\nhunter2\nhunter 2=x\nB=\"hunter2\nC='a' hunter2\n");

        let said = serde_json::to_string(&rows).unwrap();
        assert_eq!(rows.len(), 4);
        assert!(said.contains("line 2") && said.contains("line 5"), "{said}");
        assert!(!said.contains("hunter"), "{said}");
        assert_eq!(env.get("A"), Some("1"));
    }

    #[test]
    fn what_does_not_look_like_a_key_is_not_shown_either() {
        let long = "A".repeat(LONGEST_SHOWN + 1);
        let (env, mut rows) = env(&format!(
            "MY_KEY2=x\nhunterHunter==\nJBSWY3DPEHPK3PXP=\n{long}=x\n_HUNTER=x\nMY_EMPTY=\n"
        ));
        env.take(&|_| "/kept".into(), &mut rows);

        let said = serde_json::to_string(&rows).unwrap();
        for named in [
            "MY_KEY2", "line 2", "line 3", "line 4", "line 5", "MY_EMPTY",
        ] {
            assert!(said.contains(&format!("\"{named}\"")), "{named}: {said}");
        }
        for hidden in ["unter", "JBSW", "AAAA", "HUNTER"] {
            assert!(!said.contains(hidden), "{hidden}: {said}");
        }
    }

    #[test]
    fn each_key_is_named_once_and_no_value_is() {
        let (env, mut rows) = env(
            "TELEGRAM_BOT_TOKEN=123456:AAbbCCddEEffGGhhIIjjKK\nWEBHOOK_SECRET=hunter2\nMY_KEY=hunter2\n\
             CLAUDE_TIMEOUT_SECONDS=hunter2\nTOTP_LOCKOUT_ATTEMPTS=99\nTOTP_SESSION_MINUTES=45\n\
             CLAUDE_MODEL=--hunter2\nALLOWED_USER_IDS=11, 12\nCLAUDE_MAX_BUDGET_USD=NaN\n\
             CLAUDE_USER=../hunter2\nANTHROPIC_BASE_URL=http://u:hunter2@x\n",
        );
        let taken = env.take(&|_| "/kept".into(), &mut rows);

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

    #[test]
    fn what_an_earlier_file_says_stands() {
        let (mut env, mut rows) = env("A=1\n");
        env.add(Path::new("/opt/kai/.env"), "A=2\nB=3\n", &mut rows);

        assert_eq!((env.get("A"), env.get("B")), (Some("1"), Some("3")));
    }
}
