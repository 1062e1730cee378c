//! The root daemon that knows who has a second factor.

fn main() {}
