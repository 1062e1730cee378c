//! Speaks Telegram: inbox, authorisation by id, streaming answers; holds no privilege.
