//! What the answers mean: which wall blocked what, and whether what is open is meant to be.

use kai_probe::{
    answer::Answer,
    attempts::{self, Attempt, Position},
    expected::Circumstances,
};
use serde::Serialize;

use super::walls::{Answers, Walls};

/// What was probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probed {
    /// Whose policy; none for that of a user of whom nothing is said.
    pub user: Option<String>,
    /// Which walls stood.
    pub walls: String,
    /// The kernel's Landlock ABI.
    pub landlock_abi: u8,
    /// How the policy lowers walls.
    pub weakened: Vec<String>,
}

/// How one attempt is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Blocked, as it should be.
    Blocked,
    /// Open, as it is meant to be.
    Open,
    /// Open, and not meant to be.
    Hole,
    /// Blocked, and meant to be open: something that users may want does not work.
    Shut,
    /// There is nothing of that kind on this host.
    Nothing,
    /// It came to no end.
    Unknown,
}

/// One attempt, judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Its group.
    pub group: String,
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// Who tried it: the agent, or one of its tools.
    pub from: &'static str,
    /// How it stands.
    pub standing: Standing,
    /// What the kernel answered.
    pub seen: String,
    /// Each wall that blocks it alone; if empty, several together do.
    pub walls: Vec<&'static str>,
    /// Why it is open on purpose.
    pub why: Option<&'static str>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What was probed.
    #[serde(flatten)]
    pub probed: Probed,
    /// Every attempt.
    pub attempts: Vec<Judged>,
}

impl Verdict {
    /// True if nothing is open that is not meant to be, and everything came to an end.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        let bad = [Standing::Hole, Standing::Unknown];
        !self
            .attempts
            .iter()
            .any(|judged| bad.contains(&judged.standing))
    }

    /// How many stand so.
    #[must_use]
    pub fn count(&self, standing: Standing) -> usize {
        let these = self
            .attempts
            .iter()
            .filter(|judged| judged.standing == standing);
        these.count()
    }
}

/// Judges `answers`, with those of each wall `alone`; the first of these is the account's.
#[must_use]
pub fn judge(
    probed: Probed,
    answers: &Answers,
    alone: &[(Walls, Answers)],
    here: &Circumstances,
) -> Verdict {
    let missing = Answer::Unknown("was not tried".to_owned());
    let attempts = attempts::all().map(|attempt| {
        let answer = answers.get(attempt.name).unwrap_or(&missing);
        let alone: Vec<(Walls, &Answer)> = alone
            .iter()
            .map(|(walls, answers)| (*walls, answers.get(attempt.name).unwrap_or(&missing)))
            .collect();
        judge_one(attempt, answer, &alone, here.why_open(attempt.name))
    });
    Verdict {
        probed,
        attempts: attempts.collect(),
    }
}

/// What the kernel says of files, devices, calls and protocols that it does not have.
const NOT_HERE: [&str; 6] = [
    "ENOENT",
    "ENXIO",
    "ENODEV",
    "ENOSYS",
    "EAFNOSUPPORT",
    "EPROTONOSUPPORT",
];

fn judge_one(
    attempt: &Attempt,
    answer: &Answer,
    alone: &[(Walls, &Answer)],
    why: Option<&'static str>,
) -> Judged {
    let walls = blocking(alone);
    // With no wall but the account, what is not there for it is not there at all.
    let not_here = matches!(
        alone.first(),
        Some((_, Answer::Blocked(errno))) if NOT_HERE.contains(&errno.as_str())
    );
    let blocked_by_the_account = matches!(alone.first(), Some((_, Answer::Blocked(_))));
    let standing = match answer {
        Answer::Open(_) if why.is_some() => Standing::Open,
        Answer::Open(_) => Standing::Hole,
        // What is meant to be open and is not so with no wall but the account, this host has not.
        Answer::Blocked(_) if why.is_some() && !blocked_by_the_account => Standing::Shut,
        Answer::Blocked(_) if why.is_some() || not_here => Standing::Nothing,
        Answer::Blocked(_) => Standing::Blocked,
        Answer::Nothing(_) => Standing::Nothing,
        Answer::Unknown(_) => Standing::Unknown,
    };
    Judged {
        group: attempt.group.to_string(),
        name: attempt.name,
        what: attempt.what,
        from: match attempt.from {
            Position::Agent => "agent",
            Position::Tool => "tool",
        },
        standing,
        seen: answer.detail().to_owned(),
        walls: if standing == Standing::Blocked {
            walls
        } else {
            Vec::new()
        },
        why: why.filter(|_| standing != Standing::Blocked),
    }
}

/// The walls that block it alone. Where the account does, nothing is known of the others: it always stands.
fn blocking(alone: &[(Walls, &Answer)]) -> Vec<&'static str> {
    let blocked = |answer: &Answer| matches!(answer, Answer::Blocked(_));
    let mut walls = Vec::new();
    for (stands, answer) in alone {
        let names = stands.names();
        if blocked(answer) {
            walls.extend(names.last().copied());
            if names.len() == 1 {
                return walls;
            }
        }
    }
    walls
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPT: fn() -> &'static Attempt = || attempts::all().next().unwrap();

    fn alone(answers: [Answer; 4]) -> Vec<(Walls, Answer)> {
        Walls::each_alone().into_iter().zip(answers).collect()
    }

    fn judged(answer: Answer, alone: &[(Walls, Answer)], why: Option<&'static str>) -> Judged {
        let alone: Vec<_> = alone
            .iter()
            .map(|(walls, answer)| (*walls, answer))
            .collect();
        judge_one(ATTEMPT(), &answer, &alone, why)
    }

    #[test]
    fn each_wall_that_blocks_alone_is_named_and_the_account_hides_the_others() {
        let open = Answer::open;
        let blocked = || Answer::Blocked("EPERM".into());
        let by = |answers| judged(blocked(), &alone(answers), None).walls;

        assert_eq!(
            by([blocked(), blocked(), blocked(), blocked()]),
            ["account"]
        );
        assert_eq!(
            by([open(), blocked(), open(), blocked()]),
            ["namespaces", "seccomp"]
        );
        assert_eq!(by([open(), open(), blocked(), open()]), ["landlock"]);
        assert!(by([open(), open(), open(), open()]).is_empty());
    }

    #[test]
    fn what_is_open_is_judged_by_the_expectation_and_what_is_not_there_is_neither() {
        let open = || {
            alone([
                Answer::open(),
                Answer::open(),
                Answer::open(),
                Answer::open(),
            ])
        };
        let blocked = || Answer::Blocked("EPERM".into());

        assert_eq!(
            judged(Answer::open(), &open(), None).standing,
            Standing::Hole
        );
        assert_eq!(
            judged(Answer::open(), &open(), Some("so")).standing,
            Standing::Open
        );
        assert_eq!(judged(blocked(), &open(), None).standing, Standing::Blocked);
        assert_eq!(
            judged(blocked(), &open(), Some("so")).standing,
            Standing::Shut
        );
        let mut not_there = open();
        not_there[0].1 = Answer::Blocked("ENOENT".into());
        assert_eq!(
            judged(blocked(), &not_there, None).standing,
            Standing::Nothing
        );
        let unknown = Answer::Unknown("killed".into());
        assert_eq!(judged(unknown, &open(), None).standing, Standing::Unknown);
    }

    #[test]
    fn an_attempt_without_an_answer_is_not_taken_for_blocked() {
        let probed = Probed {
            user: None,
            walls: String::new(),
            landlock_abi: 7,
            weakened: Vec::new(),
        };
        let here = Circumstances {
            landlock_abi: 7,
            hosts_network: true,
            ports_listed: true,
            login: false,
            allow: Vec::new(),
        };
        let verdict = judge(probed, &Answers::new(), &[], &here);

        assert!(!verdict.is_as_expected());
        assert_eq!(verdict.count(Standing::Unknown), verdict.attempts.len());
    }
}
