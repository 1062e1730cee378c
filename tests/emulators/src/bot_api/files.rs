//! Files that went through the chat, in either direction.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::refusal::Refusal;

/// What a bot may send.
pub(super) const UPLOAD_LIMIT: usize = 50 << 20;
/// What a bot may fetch.
const DOWNLOAD_LIMIT: usize = 20 << 20;

/// Which kind of message a file is the content of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Shown as a name to download.
    Document,
    /// Shown as a picture.
    Photo,
}

/// A file as it stands in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Document or photo.
    pub kind: FileKind,
    /// What `getFile` takes.
    pub file_id: String,
    /// The name its sender gave it.
    pub name: String,
    /// Bytes.
    pub size: usize,
}

impl Attachment {
    /// Adds it to a message.
    pub(super) fn put_into(&self, message: &mut Map<String, Value>) {
        let unique = format!("u{}", self.file_id);
        let (field, value) = match self.kind {
            FileKind::Document => (
                "document",
                json!({
                    "file_id": self.file_id, "file_unique_id": unique, "file_size": self.size,
                    "file_name": self.name, "mime_type": mime_type(&self.name),
                }),
            ),
            // Nobody here looks into the picture, so its size is made up.
            FileKind::Photo => (
                "photo",
                json!([{
                    "file_id": self.file_id, "file_unique_id": unique, "file_size": self.size,
                    "width": 640, "height": 480,
                }]),
            ),
        };
        message.insert(field.to_owned(), value);
    }
}

fn mime_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("txt" | "log" | "md" | "rs" | "py") => "text/plain",
        Some("json") => "application/json",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("pdf") => "application/pdf",
        _ => "application/octet-stream",
    }
}

#[derive(Debug)]
struct Stored {
    attachment: Attachment,
    path: String,
    bytes: Vec<u8>,
}

/// All files, by their ids.
#[derive(Debug, Default)]
pub(super) struct FileStore {
    files: BTreeMap<String, Stored>,
}

impl FileStore {
    /// Keeps a file and makes an id for it.
    pub(super) fn keep(&mut self, kind: FileKind, name: &str, bytes: Vec<u8>) -> Attachment {
        let number = self.files.len() + 1;
        let (folder, prefix) = match kind {
            FileKind::Document => ("documents", "BQAC"),
            FileKind::Photo => ("photos", "AgAC"),
        };
        let attachment = Attachment {
            kind,
            file_id: format!("{prefix}{number:08}"),
            name: name.to_owned(),
            size: bytes.len(),
        };
        let extension = name
            .rsplit_once('.')
            .map_or("bin", |(_, extension)| extension);
        let path = format!("{folder}/file_{number}.{extension}");
        let stored = Stored {
            attachment: attachment.clone(),
            path,
            bytes,
        };
        self.files.insert(attachment.file_id.clone(), stored);
        attachment
    }

    /// A file that is sent once more by its id.
    pub(super) fn again(&self, kind: FileKind, file_id: &str) -> Result<Attachment, Refusal> {
        let stored = self
            .files
            .get(file_id)
            .filter(|stored| stored.attachment.kind == kind);
        stored
            .map(|stored| stored.attachment.clone())
            .ok_or_else(|| Refusal::bad_request("wrong file identifier/HTTP URL specified"))
    }

    /// The answer to `getFile`.
    pub(super) fn describe(&self, file_id: &str) -> Result<Value, Refusal> {
        let stored = self
            .files
            .get(file_id)
            .ok_or_else(|| Refusal::bad_request("invalid file id"))?;
        if stored.bytes.len() > DOWNLOAD_LIMIT {
            return Err(Refusal::bad_request("file is too big"));
        }
        Ok(json!({
            "file_id": file_id, "file_unique_id": format!("u{file_id}"),
            "file_size": stored.bytes.len(), "file_path": stored.path,
        }))
    }

    /// A file's content by the path that `getFile` told.
    pub(super) fn at_path(&self, path: &str) -> Option<&[u8]> {
        self.files
            .values()
            .find(|stored| stored.path == path)
            .map(|stored| stored.bytes.as_slice())
    }

    /// A file's content by its id.
    pub(super) fn bytes(&self, file_id: &str) -> Option<&[u8]> {
        self.files
            .get(file_id)
            .map(|stored| stored.bytes.as_slice())
    }
}
