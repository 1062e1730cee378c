//! The verdict for people: a line an attempt, group by group, and what matters at the end.

use comfy_table::{Table, presets};
use kai_probe::attempts::Group;

use super::verdict::{Judged, Standing, Verdict};

/// All of it.
#[must_use]
pub fn verdict(verdict: &Verdict) -> String {
    let mut text = String::new();
    for group in Group::ALL {
        let name = group.to_string();
        text.push_str(&format!("{}\n", name.to_uppercase()));
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        for judged in verdict
            .attempts
            .iter()
            .filter(|judged| judged.group == name)
        {
            table.add_row([mark(judged), judged.what, &result(judged)]);
        }
        text.push_str(&format!("{table}\n\n"));
    }
    text.push_str(&summary(verdict));
    text
}

/// In the first column, so that it is found by eye and by grep.
fn mark(judged: &Judged) -> &'static str {
    match judged.standing {
        Standing::Hole | Standing::Unknown => "!",
        Standing::Shut => "?",
        _ => " ",
    }
}

fn result(judged: &Judged) -> String {
    let seen = match judged.seen.as_str() {
        "" => String::new(),
        seen => format!(" ({seen})"),
    };
    match judged.standing {
        Standing::Blocked => match judged.walls.as_slice() {
            [] => format!("blocked by several walls together{seen}"),
            walls => format!("blocked by {}{seen}", walls.join(", ")),
        },
        Standing::Open => format!("open: {}", judged.why.unwrap_or_default()),
        Standing::Hole => format!("OPEN, and should not be{seen}"),
        Standing::Shut => format!(
            "blocked{seen}, though meant to be open: {}",
            judged.why.unwrap_or_default()
        ),
        Standing::Nothing => format!("nothing of that kind here{seen}"),
        Standing::Unknown => format!("came to no end{seen}"),
    }
}

fn summary(verdict: &Verdict) -> String {
    let probed = &verdict.probed;
    let of = probed.user.as_ref().map_or_else(
        || "the default policy".to_owned(),
        |user| format!("the policy of {user}"),
    );
    let mut text = format!(
        "{} attempts against {}, with {of}, Landlock ABI {}: {} blocked, {} open on purpose, {} not on this host",
        verdict.attempts.len(),
        probed.walls,
        probed.landlock_abi,
        verdict.count(Standing::Blocked),
        verdict.count(Standing::Open),
        verdict.count(Standing::Nothing),
    );
    for weakened in &probed.weakened {
        text.push_str(&format!("\nweakened: {weakened}"));
    }
    for judged in &verdict.attempts {
        let sentence = match judged.standing {
            Standing::Hole => "is open and should not be",
            Standing::Unknown => "came to no end",
            Standing::Shut => "is blocked, though meant to be open",
            _ => continue,
        };
        text.push_str(&format!(
            "\n{} {} ({}): {}",
            mark(judged),
            judged.name,
            judged.group,
            sentence
        ));
    }
    if verdict.is_as_expected() {
        text.push_str("\nnothing is open that should not be");
    }
    text
}
