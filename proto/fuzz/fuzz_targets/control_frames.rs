//! Every message of the control sockets, from any bytes. The first byte chooses the kind.
#![no_main]

use kai_fuzz::survives;
use kai_proto::{
    admin_authd, admin_broker, broker_authd, gateway_authd, gateway_broker,
    worker_broker::Assignment,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((kind, body)) = input.split_first() else {
        return;
    };
    match kind % 11 {
        0 => survives::<gateway_broker::Request>(body),
        1 => survives::<gateway_broker::Reply>(body),
        2 => survives::<admin_broker::Request>(body),
        3 => survives::<admin_broker::Reply>(body),
        4 => survives::<gateway_authd::Request>(body),
        5 => survives::<gateway_authd::Reply>(body),
        6 => survives::<broker_authd::Request>(body),
        7 => survives::<broker_authd::Reply>(body),
        8 => survives::<admin_authd::Request>(body),
        9 => survives::<admin_authd::Reply>(body),
        _ => survives::<Assignment>(body),
    }
});
