//! What kai's programs say to each other.
//!
//! Every pair of peers has a module with its own request and reply enums, so that a peer cannot even
//! express what belongs to another one:
//!
//! | module | from | to | socket |
//! |---|---|---|---|
//! | [`gateway_broker`] | gateway | broker | `RUN/gateway/broker.sock` |
//! | [`admin_broker`] | root's `kai-broker` | broker | `RUN/admin/broker.sock` |
//! | [`gateway_authd`] | gateway | authd | `RUN/gateway/authd.sock` |
//! | [`broker_authd`] | broker | authd | `RUN/broker/authd.sock` |
//! | [`admin_authd`] | root's `kai-auth` | authd | `RUN/admin/authd.sock` |
//! | [`conversation`] | gateway | worker | the connection that the broker handed over |
//! | [`worker_broker`] | worker | broker | a socketpair made at the fork |
//!
//! [`codec`] turns a message into bytes and back, [`frame`] cuts the stream into frames and
//! [`limits`] bounds both. [`peer`] asks the kernel who is at the other end. [`connection`] is the
//! non-blocking and blocking side for the root daemons and commands, [`framed`] (feature `tokio`)
//! the asynchronous one. [`sockets`] makes the listeners, or takes those of the service manager
//! ([`activation`]).
#![deny(unsafe_code)]

pub mod activation;
pub mod admin_authd;
pub mod admin_broker;
pub mod broker_authd;
pub mod code;
pub mod codec;
pub mod connection;
pub mod conversation;
pub mod frame;
#[cfg(feature = "tokio")]
pub mod framed;
pub mod gateway_authd;
pub mod gateway_broker;
pub mod grant;
pub mod hello;
pub mod ids;
pub mod limits;
pub mod peer;
pub mod sockets;
#[allow(unsafe_code)]
mod sys;
pub mod worker_broker;

#[cfg(test)]
mod round_trip;
