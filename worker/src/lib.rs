//! Runs as the user: confines itself, then hosts the user's agent.
