//! What one user's [gate](crate::gate) lets through at the moment, as the rest of the gateway sees it:
//! deliveries post only while it is open, and an attach carries the grant.

use kai_proto::grant::Grant;
use tokio::sync::watch;

/// Whether what is the user's may be shown to whoever has their Telegram account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Pass {
    /// It may not: nothing is known of the user yet, or a proof is wanted.
    #[default]
    Shut,
    /// It may: the user has no second factor and needs none.
    Free,
    /// It may: the user has proved the second factor.
    Proven(Grant),
}

/// Follows one user's [`Pass`].
pub type PassView = watch::Receiver<Pass>;

impl Pass {
    /// True if what is the user's may be shown.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self, Self::Shut)
    }

    /// The proof.
    #[must_use]
    pub fn grant(&self) -> Option<Grant> {
        match self {
            Self::Proven(grant) => Some(grant.clone()),
            Self::Shut | Self::Free => None,
        }
    }
}
