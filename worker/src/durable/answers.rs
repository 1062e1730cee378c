//! Finished answers that nobody has acknowledged, each in a slot: a file that is written in place and
//! used again.
//!
//! Making, renaming and removing a file for each answer takes ten times as long as writing to one that
//! is there, and the user waits for it. A slot is whole when its head says so, and the head, which is
//! far smaller than a page, is written after the rest: a worker that is killed in between leaves a
//! free slot.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
};

use kai_proto::{codec, codec::Message, ids::PromptId, limits};

use super::{Answer, directory::Directory};

/// Bytes of a slot's head: the prompt's id and 1, or 0 if the slot is free; a number that grows with
/// each answer; the length of what follows. All little-endian.
const HEAD: usize = 24;

/// A slot that was longer is cut when it becomes free.
const KEPT: u64 = 64 * 1024;

/// The slots.
#[derive(Debug)]
pub struct Answers {
    slots: Vec<Slot>,
    newest: u64,
    /// The slot that was last used; mostly it is the next one too.
    open: Option<(usize, File)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    prompt: Option<PromptId>,
    order: u64,
}

impl Answers {
    /// Looks at the slots in `directory`.
    #[must_use]
    pub fn read(directory: &Directory) -> Self {
        let mut slots = Vec::new();
        let mut newest = 0;
        for number in 0..limits::UNACKNOWLEDGED {
            let file = match directory.open_to_read(&name(number)) {
                Ok(file) => file,
                // Slots are made one after the other and never removed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(_) => continue,
            };
            let Some((prompt, order, _)) = head(&file) else {
                continue;
            };
            slots.resize(number + 1, Slot::default());
            slots[number] = Slot {
                prompt: Some(prompt),
                order,
            };
            newest = newest.max(order);
        }
        Self {
            slots,
            newest,
            open: None,
        }
    }

    /// True if there is an answer to `prompt`.
    #[must_use]
    pub fn contains(&self, prompt: PromptId) -> bool {
        self.slot(prompt).is_some()
    }

    fn slot(&self, prompt: PromptId) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| slot.prompt == Some(prompt))
    }

    /// Keeps an answer, in place of the oldest if all slots are taken.
    ///
    /// # Errors
    /// What the file system answers; nothing is kept then.
    pub fn keep(
        &mut self,
        directory: &Directory,
        prompt: PromptId,
        answer: &Answer,
    ) -> io::Result<()> {
        let body = codec::encode(answer).map_err(io::Error::other)?;
        let number = self.slot(prompt).unwrap_or_else(|| self.free());
        if self.slots[number].prompt.is_some() {
            self.release(directory, number)?;
        }
        let order = self.newest + 1;
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(&i64::from(prompt).wrapping_add(1).to_le_bytes());
        head[8..16].copy_from_slice(&order.to_le_bytes());
        head[16..].copy_from_slice(&(body.len() as u64).to_le_bytes());
        let file = self.file(directory, number)?;
        file.write_all_at(&body, HEAD as u64)?;
        file.write_all_at(&head, 0)?;
        self.newest = order;
        self.slots[number] = Slot {
            prompt: Some(prompt),
            order,
        };
        Ok(())
    }

    /// A slot to write to: a free one, a new one, or the oldest.
    fn free(&mut self) -> usize {
        if let Some(free) = self.slots.iter().position(|slot| slot.prompt.is_none()) {
            return free;
        }
        if self.slots.len() < limits::UNACKNOWLEDGED {
            self.slots.push(Slot::default());
            return self.slots.len() - 1;
        }
        let oldest = self
            .slots
            .iter()
            .enumerate()
            .min_by_key(|(_, slot)| slot.order);
        oldest.map_or(0, |(number, _)| number)
    }

    /// The answer to `prompt`; none also if somebody has spoilt it.
    pub fn get(&mut self, directory: &Directory, prompt: PromptId) -> Option<Answer> {
        let number = self.slot(prompt)?;
        let file = self.file(directory, number).ok()?;
        let (holder, _, length) = head(file)?;
        if holder != prompt || length > Answer::LIMIT as u64 {
            return None;
        }
        // The file may be shorter than it says: room is made for what is there alone.
        let there = file.metadata().ok()?.len().checked_sub(HEAD as u64)?;
        if there < length {
            return None;
        }
        let mut body = vec![0; length as usize];
        file.read_exact_at(&mut body, HEAD as u64).ok()?;
        codec::decode(&body).ok()
    }

    /// Frees the slot of `prompt`; true if there was one.
    pub fn forget(&mut self, directory: &Directory, prompt: PromptId) -> bool {
        let Some(number) = self.slot(prompt) else {
            return false;
        };
        if let Err(error) = self.release(directory, number) {
            tracing::warn!(%error, "an answer cannot be removed");
        }
        true
    }

    fn release(&mut self, directory: &Directory, number: usize) -> io::Result<()> {
        self.slots[number] = Slot::default();
        let file = self.file(directory, number)?;
        file.write_all_at(&[0; HEAD], 0)?;
        if file.metadata()?.len() > KEPT {
            file.set_len(HEAD as u64)
        } else {
            Ok(())
        }
    }

    fn file(&mut self, directory: &Directory, number: usize) -> io::Result<&File> {
        let usable = matches!(&self.open, Some((open, file))
            // The agent may have removed it: then nobody would ever find what is written to it.
            if *open == number && file.metadata().is_ok_and(|found| found.nlink() > 0));
        if !usable {
            self.open = None;
        }
        match &mut self.open {
            Some((_, file)) => Ok(file),
            empty => {
                let file = directory.open_in_place(&name(number))?;
                Ok(&empty.insert((number, file)).1)
            }
        }
    }
}

fn name(number: usize) -> String {
    number.to_string()
}

/// Whose answer it is, when it was written, and its length.
fn head(file: &File) -> Option<(PromptId, u64, u64)> {
    let mut head = [0; HEAD];
    file.read_exact_at(&mut head, 0).ok()?;
    let number = |at: usize| head[at..at + 8].try_into().map(u64::from_le_bytes).ok();
    let id = i64::try_from(number(0)?.checked_sub(1)?).ok()?;
    Some((
        PromptId::try_from(id).ok()?,
        number(8)?.min(u64::MAX / 2),
        number(16)?,
    ))
}
