//! The admin's command for the second factor.

fn main() {}
