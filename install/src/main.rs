//! Checks a host for kai.

fn main() {}
