//! All of kai on one machine against an emulated Telegram, with a chat page.
