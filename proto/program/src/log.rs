//! Where events go: lines for people on a terminal, prioritised lines for the journal
//! (`sd-daemon(3)`), JSON lines otherwise.
//!
//! Only kai's own events are written. A library's may quote what kai never logs: an HTTP client, for
//! one, the address that holds the bot's token.

use std::{
    env, fmt,
    io::{self, IsTerminal},
    os::{fd::AsFd, unix::fs::MetadataExt},
    time::{SystemTime, UNIX_EPOCH},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{DefaultFields, Writer},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{
    config::LogLevel,
    json::{FlatObject, printable},
};

/// The target of the audit logs' marks: they are written whatever the level, because a log can be
/// verified only as far as they reach.
pub const MARKS: &str = "kai_audit::mark";

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Terminal,
    Journal,
    Json,
}

/// Sends events of kai's crates to standard error from now on; a second call changes nothing.
pub fn start(program: &'static str, level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        // It would be told by a panic that standard error is gone.
        .log_internal_errors(false)
        .fmt_fields(DefaultFields::new())
        .event_format(Line {
            program,
            form: form(),
        });
    let ours = tracing_subscriber::filter::filter_fn(move |metadata| {
        let target = metadata.target();
        target == MARKS || (target.starts_with("kai") && *metadata.level() <= level)
    });
    let _ = tracing_subscriber::registry()
        .with(tracing_subscriber::Layer::with_filter(lines, ours))
        .try_init();
}

fn form() -> Form {
    if io::stderr().is_terminal() {
        Form::Terminal
    } else if is_journal() {
        Form::Journal
    } else {
        Form::Json
    }
}

/// True if standard error is the stream that systemd connected to the journal, as
/// `JOURNAL_STREAM` in systemd.exec(5) describes.
fn is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Some((device, inode)) = stream.split_once(':') else {
        return false;
    };
    let Ok(descriptor) = io::stderr().as_fd().try_clone_to_owned() else {
        return false;
    };
    let Ok(found) = std::fs::File::from(descriptor).metadata() else {
        return false;
    };
    device.parse() == Ok(found.dev()) && inode.parse() == Ok(found.ino())
}

struct Line {
    program: &'static str,
    form: Form,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        match self.form {
            Form::Terminal => {
                let mut text = Text::default();
                event.record(&mut text);
                writeln!(
                    out,
                    "{} {level:>5}{}{}",
                    self.program, text.message, text.fields
                )
            }
            Form::Journal => {
                let mut text = Text::default();
                event.record(&mut text);
                writeln!(
                    out,
                    "<{}>{}{}",
                    priority(level),
                    text.message.trim_start(),
                    text.fields
                )
            }
            Form::Json => {
                let mut object = FlatObject::new();
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                object
                    .number("time_ms", i128::try_from(now.as_millis()).unwrap_or(0))
                    .text("level", &level.to_string().to_lowercase())
                    .text("program", self.program);
                event.record(&mut Json(&mut object));
                writeln!(out, "{}", object.finish())
            }
        }
    }
}

/// The journal's priority, as syslog(3) numbers them.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// An event as `message field=value`, without anything that could begin another line.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn add(&mut self, field: &Field, value: &str) {
        let value: String = value.chars().map(printable).collect();
        if field.name() == "message" {
            self.message = format!(" {value}");
        } else {
            self.fields.push_str(&format!(" {}={value}", field.name()));
        }
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

struct Json<'a>(&'a mut FlatObject);

impl Visit for Json<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.text(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.number(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.number(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.boolean(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.text(field.name(), &format!("{value:?}"));
    }
}
