//! A network of the worker's own, for `network: none`: a loopback and nothing else. No packet leaves it,
//! by any protocol, and no socket of the host's with an abstract name is in it.

use std::io;

use caps::{CapSet, Capability};

use super::{Failed, Step};
use crate::sys;

/// Brings the loopback up. The one call that needs `CAP_NET_ADMIN`: it is in force for nothing else.
///
/// # Errors
/// [`Step::Loopback`], as when the broker's unit does not grant the capability.
pub(super) fn raise_loopback() -> Result<(), Failed> {
    let step = |error: io::Error| (Step::Loopback, error);
    let capability = |error: caps::errors::CapsError| step(io::Error::other(error.to_string()));
    caps::raise(None, CapSet::Effective, Capability::CAP_NET_ADMIN).map_err(capability)?;
    sys::raise_interface("lo").map_err(step)?;
    caps::drop(None, CapSet::Effective, Capability::CAP_NET_ADMIN).map_err(capability)
    // Here the one listener of a proxy for the Messages API is to be made, and its descriptor sent to the
    // proxy: a socket keeps the namespace that it was made in.
}
