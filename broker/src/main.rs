//! The root daemon that starts a confined worker per user and hands connections over.

fn main() {}
