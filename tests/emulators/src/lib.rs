//! The Bot API and the Messages API, as strict as the originals, for tests and the playground.
