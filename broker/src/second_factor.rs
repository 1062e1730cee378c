//! The broker's rule about the second factor: who may be attached, and whose worker may stay.

use kai_proto::{
    broker_authd::Standing,
    gateway_broker::{Refusal, SecondFactor},
};

/// Whether a user under this rule, who stands so with authd, may be attached.
///
/// | | required | optional |
/// |---|---|---|
/// | not enrolled | refused | attached |
/// | proven | attached | attached |
/// | anything else | refused | refused |
///
/// # Errors
/// What the gateway is told.
pub fn may_attach(rule: SecondFactor, standing: Standing) -> Result<(), Refusal> {
    match (standing, rule) {
        (Standing::Proven { .. }, _) | (Standing::NotEnrolled, SecondFactor::Optional) => Ok(()),
        (Standing::NotEnrolled, SecondFactor::Required) => Err(Refusal::NotEnrolled),
        (Standing::Changed, _) => Err(Refusal::EnrolmentChanged),
        (Standing::CodeNeeded | Standing::Locked { .. }, _) => Err(Refusal::SecondFactor),
        (Standing::Unavailable, _) => Err(Refusal::AuthdUnavailable),
    }
}

/// Whether the worker of a user under this rule may stay, who was attached while standing as `then` and
/// stands as `now`. While authd cannot tell, or is not there at all, only those stay who had no second
/// factor to prove: nobody can say of the others that their proof still holds.
///
/// | now | required | optional, attached without one | optional, attached by a proof |
/// |---|---|---|---|
/// | unavailable | ended | stays | ended |
/// | anything else | as [`may_attach`] | as [`may_attach`] | as [`may_attach`] |
///
/// # Errors
/// What the gateway is told, where it can still be told something.
pub fn may_stay(rule: SecondFactor, then: Standing, now: Standing) -> Result<(), Refusal> {
    match (now, rule, then) {
        (Standing::Unavailable, SecondFactor::Optional, Standing::NotEnrolled) => Ok(()),
        _ => may_attach(rule, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [SecondFactor; 2] = [SecondFactor::Required, SecondFactor::Optional];
    const PROVEN: Standing = Standing::Proven { until: 9 };
    const LOCKED: Standing = Standing::Locked { until: 9 };
    const STANDINGS: [Standing; 6] = [
        Standing::NotEnrolled,
        Standing::Changed,
        PROVEN,
        Standing::CodeNeeded,
        LOCKED,
        Standing::Unavailable,
    ];

    #[test]
    fn the_whole_table_of_attaches_is_the_documented_one() {
        let table = STANDINGS.map(|standing| RULES.map(|rule| may_attach(rule, standing)));

        assert_eq!(
            table,
            [
                [Err(Refusal::NotEnrolled), Ok(())],
                [Err(Refusal::EnrolmentChanged); 2],
                [Ok(()); 2],
                [Err(Refusal::SecondFactor); 2],
                [Err(Refusal::SecondFactor); 2],
                [Err(Refusal::AuthdUnavailable); 2],
            ]
        );
    }

    #[test]
    fn who_stays_is_who_could_be_attached_and_who_had_nothing_to_prove() {
        for rule in RULES {
            for then in [Standing::NotEnrolled, PROVEN] {
                for now in STANDINGS {
                    let had_nothing_to_prove = now == Standing::Unavailable
                        && rule == SecondFactor::Optional
                        && then == Standing::NotEnrolled;
                    assert_eq!(
                        may_stay(rule, then, now).is_ok(),
                        had_nothing_to_prove || may_attach(rule, now).is_ok(),
                        "{rule:?}, {then:?}, {now:?}"
                    );
                }
            }
        }
    }
}
