//! The broker's rule about the second factor.

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
