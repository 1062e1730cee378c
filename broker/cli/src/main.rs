//! The admin's command: status, strangers, reload.

fn main() {}
