//! The gateway's own client against the Bot API emulator: what it sends is taken, and what it is
//! told it understands.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails a test, in its helpers too"
)]

use kai_emulators::bot_api::{BotApi, BotApiOptions, CallFilter, Fault, FileKind, UserId};
use teloxide::net::Download;
use teloxide::payloads::{
    EditMessageTextSetters, GetUpdatesSetters, SendDocumentSetters, SendMessageSetters,
    SetMessageReactionSetters,
};
use teloxide::prelude::{Bot, Requester};
use teloxide::types::{
    AllowedUpdate, BotCommand, ChatAction, ChatId, InlineKeyboardButton, InlineKeyboardMarkup,
    InputFile, LinkPreviewOptions, MessageEntity, MessageId, ReactionType, ReplyParameters,
    UpdateKind,
};
use teloxide::{ApiError, RequestError};

const ALICE: UserId = UserId(1001);

fn telegram() -> (BotApi, Bot) {
    let api = BotApi::start(BotApiOptions::default()).unwrap();
    api.add_user(ALICE, "Alice", Some("alice"));
    api.send_text(ALICE, ALICE.private_chat(), "/start")
        .unwrap();
    let bot = Bot::new(api.token()).set_api_url(api.url().parse().unwrap());
    (api, bot)
}

#[tokio::test]
async fn a_conversation_goes_through() {
    let (api, bot) = telegram();
    let chat = ChatId(ALICE.0);
    assert_eq!(bot.get_me().await.unwrap().username(), "kai_emulated_bot");
    bot.delete_webhook().await.unwrap();
    bot.set_my_commands([BotCommand::new("new", "Begins again")])
        .await
        .unwrap();
    let kinds = [AllowedUpdate::Message, AllowedUpdate::CallbackQuery];
    let updates = bot
        .get_updates()
        .timeout(0)
        .allowed_updates(kinds)
        .await
        .unwrap();
    let UpdateKind::Message(asked) = &updates[0].kind else {
        panic!("{updates:?}")
    };
    assert_eq!(asked.text(), Some("/start"));
    bot.send_chat_action(chat, ChatAction::Typing)
        .await
        .unwrap();

    let button = InlineKeyboardButton::callback("Allow", "a:1");
    let preview = LinkPreviewOptions {
        is_disabled: true,
        url: None,
        prefer_small_media: false,
        prefer_large_media: false,
        show_above_text: false,
    };
    let entities = [
        MessageEntity::bold(0, 4),
        MessageEntity::pre(Some("rust".to_owned()), 5, 4),
        MessageEntity::pre(None, 10, 4),
        MessageEntity::text_link("https://example.org/".parse().unwrap(), 15, 4),
    ];
    let sent = bot
        .send_message(chat, "bold rust none link")
        .entities(entities)
        .link_preview_options(preview)
        .reply_parameters(ReplyParameters::new(asked.id))
        .reply_markup(InlineKeyboardMarkup::new([[button]]))
        .await
        .unwrap();
    assert_eq!(sent.entities().map(<[_]>::len), Some(4));
    assert_eq!(
        sent.reply_to_message().map(|message| message.id),
        Some(asked.id)
    );

    let pressed = api.messages(ALICE.private_chat()).pop().unwrap();
    api.press(ALICE, ALICE.private_chat(), pressed.id, "Allow")
        .unwrap();
    let offset = updates[0].id.as_offset();
    let updates = bot.get_updates().offset(offset).await.unwrap();
    let UpdateKind::CallbackQuery(query) = &updates[0].kind else {
        panic!("{updates:?}")
    };
    assert_eq!(query.data.as_deref(), Some("a:1"));
    bot.answer_callback_query(query.id.clone()).await.unwrap();
    bot.edit_message_text(chat, sent.id, "Allowed")
        .await
        .unwrap();
    bot.delete_message(chat, asked.id).await.unwrap();
    assert_eq!(
        api.transcript(ALICE.private_chat()),
        "Alice (deleted): /start\nbot: Allowed\n"
    );
}

#[tokio::test]
async fn errors_are_told_apart() {
    let (api, bot) = telegram();
    let chat = ChatId(ALICE.0);
    let sent = bot.send_message(chat, "same").await.unwrap();
    let api_error = |error: RequestError| match error {
        RequestError::Api(error) => error,
        other => panic!("{other:?}"),
    };
    let unchanged = bot
        .edit_message_text(chat, sent.id, "same")
        .await
        .unwrap_err();
    assert_eq!(api_error(unchanged), ApiError::MessageNotModified);
    let overlapping = [MessageEntity::bold(0, 3), MessageEntity::italic(2, 2)];
    let edit = bot
        .edit_message_text(chat, sent.id, "okay")
        .entities(overlapping);
    assert!(matches!(
        api_error(edit.await.unwrap_err()),
        ApiError::CantParseEntities(_)
    ));
    let empty = bot.send_message(chat, " ").await.unwrap_err();
    assert_eq!(api_error(empty), ApiError::MessageTextIsEmpty);
    let long = bot.send_message(chat, "x".repeat(4097)).await.unwrap_err();
    assert_eq!(api_error(long), ApiError::MessageIsTooLong);
    let nobody = bot.send_message(ChatId(5), "hello").await.unwrap_err();
    assert_eq!(api_error(nobody), ApiError::ChatNotFound);
    api.block_bot(ALICE, true).unwrap();
    let blocked = bot.send_message(chat, "hello").await.unwrap_err();
    assert_eq!(api_error(blocked), ApiError::BotBlocked);
    api.inject(CallFilter::method("sendMessage"), 1, Fault::RetryAfter(3));
    let later = bot.send_message(chat, "hello").await.unwrap_err();
    assert!(matches!(later, RequestError::RetryAfter(wait) if wait.seconds() == 3));
    let stranger = Bot::new("1:no").set_api_url(api.url().parse().unwrap());
    assert_eq!(
        api_error(stranger.get_me().await.unwrap_err()),
        ApiError::InvalidToken
    );
}

#[tokio::test]
async fn files_go_both_ways() {
    let (api, bot) = telegram();
    let chat = ALICE.private_chat();
    api.send_file(
        ALICE,
        chat,
        FileKind::Document,
        "a.txt",
        b"from alice",
        None,
    )
    .unwrap();
    let updates = bot.get_updates().offset(-1).await.unwrap();
    let UpdateKind::Message(message) = &updates[0].kind else {
        panic!("{updates:?}")
    };
    let file = bot
        .get_file(message.document().unwrap().file.id.clone())
        .await
        .unwrap();
    let mut bytes = Vec::new();
    bot.download_file(&file.path, &mut bytes).await.unwrap();
    assert_eq!(bytes, b"from alice");

    let file = InputFile::memory(b"from the bot".as_slice()).file_name("b.txt");
    bot.send_document(ChatId(ALICE.0), file)
        .caption("here")
        .await
        .unwrap();
    let photo = InputFile::memory(b"pixels".as_slice()).file_name("c.png");
    bot.send_photo(ChatId(ALICE.0), photo).await.unwrap();
    let messages = api.messages(chat);
    let document = messages[2].attachment.as_ref().unwrap();
    assert_eq!(
        (document.name.as_str(), messages[2].text()),
        ("b.txt", "here")
    );
    assert_eq!(api.file(&document.file_id).unwrap(), b"from the bot");
    assert_eq!(
        messages[3].attachment.as_ref().unwrap().kind,
        FileKind::Photo
    );
}

#[tokio::test]
async fn a_reaction_tells_whether_a_message_is_still_there() {
    let (api, bot) = telegram();
    let chat = ChatId(ALICE.0);
    let message = api.messages(ALICE.private_chat())[0].id;
    let react = |emoji: &str| {
        let emoji = emoji.to_owned();
        let call = bot.set_message_reaction(chat, MessageId(message.0));
        call.reaction([ReactionType::Emoji { emoji }])
    };

    react("👀").await.unwrap();
    let shown = api.messages(ALICE.private_chat())[0].reaction.clone();
    assert_eq!(shown.as_deref(), Some("👀"));
    let refused = react("🦀").await.unwrap_err().to_string();
    assert!(refused.contains("REACTION_INVALID"), "{refused}");

    api.delete(ALICE, ALICE.private_chat(), message).unwrap();
    let refused = react("👀").await.unwrap_err().to_string();
    assert!(refused.contains("message to react not found"), "{refused}");
}
