//! Tests and measurements over several real processes.
