//! What authd's word about a user means for what they send.

use kai_proto::{gateway_authd::Standing, gateway_broker::SecondFactor, ids::UnixSeconds};

/// What bars the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bar {
    /// A code is wanted.
    Code,
    /// A second factor has to be enrolled first.
    NotEnrolled,
    /// It has to be enrolled again.
    Changed,
}

/// The way of what a user sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Way {
    /// It is free: there is no second factor, and there needs to be none.
    Free,
    /// It is free: the grant stands.
    Proven {
        /// Its absolute end.
        until: UnixSeconds,
    },
    /// It is barred.
    Barred {
        /// By what.
        bar: Bar,
        /// Until when no code is taken.
        locked: Option<UnixSeconds>,
    },
    /// Nobody knows: ask again.
    Unknown,
}

/// The way of a user under this rule who stands so; `held` if a grant was named in the question.
///
/// | | optional | required |
/// |---|---|---|
/// | not enrolled | free | barred until enrolled |
/// | changed | barred until enrolled again | the same |
/// | proven | free, if a grant is held | the same |
/// | code needed, locked | barred until a code | the same |
/// | unavailable | unknown | unknown |
pub fn way(standing: Standing, rule: SecondFactor, held: bool) -> Way {
    let barred = |bar, locked| Way::Barred { bar, locked };
    match standing {
        Standing::NotEnrolled => match rule {
            SecondFactor::Optional => Way::Free,
            SecondFactor::Required => barred(Bar::NotEnrolled, None),
        },
        Standing::Changed => barred(Bar::Changed, None),
        Standing::Proven { until } if held => Way::Proven { until },
        // Without a grant nothing can have been proved here.
        Standing::Proven { .. } | Standing::CodeNeeded => barred(Bar::Code, None),
        Standing::Locked { until } => barred(Bar::Code, Some(until)),
        Standing::Unavailable => Way::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_the_documented_table() {
        use SecondFactor::{Optional, Required};
        let barred = |bar| Way::Barred { bar, locked: None };
        let until = 9;
        let locked = Way::Barred {
            bar: Bar::Code,
            locked: Some(until),
        };
        for held in [false, true] {
            let proven = if held {
                Way::Proven { until }
            } else {
                barred(Bar::Code)
            };
            for (standing, optional, required) in [
                (Standing::NotEnrolled, Way::Free, barred(Bar::NotEnrolled)),
                (
                    Standing::Changed,
                    barred(Bar::Changed),
                    barred(Bar::Changed),
                ),
                (Standing::Proven { until }, proven, proven),
                (Standing::CodeNeeded, barred(Bar::Code), barred(Bar::Code)),
                (Standing::Locked { until }, locked, locked),
                (Standing::Unavailable, Way::Unknown, Way::Unknown),
            ] {
                assert_eq!(way(standing, Optional, held), optional, "{standing:?}");
                assert_eq!(way(standing, Required, held), required, "{standing:?}");
            }
        }
    }
}
