//! The last prompts whose answers were delivered, so that none of them runs again if it is delivered
//! to the worker once more.

use std::{fs::File, os::unix::fs::FileExt};

use kai_proto::{ids::PromptId, limits};

/// How many are remembered. Ids are not ordered: Telegram begins anew after a week of silence.
const KEPT: usize = limits::UNACKNOWLEDGED;
/// Bytes of one record: when, as a count that grows, and the id; both little-endian.
const RECORD: usize = 16;

/// A ring of records in a file that is changed in place: one small write an acknowledgement.
#[derive(Debug)]
pub struct Acknowledged {
    file: File,
    /// The ids by slot; `EMPTY` where there is none.
    slots: Vec<i64>,
    count: u64,
}

/// No id.
const EMPTY: i64 = -1;

/// Nobody sends so many prompts.
const IMPLAUSIBLE: u64 = 1 << 40;

impl Acknowledged {
    /// Reads what `file` holds. What is not a record counts as none.
    #[must_use]
    pub fn read(file: File) -> Self {
        let mut bytes = vec![0; KEPT * RECORD];
        let mut filled = 0;
        while let Ok(read @ 1..) = file.read_at(&mut bytes[filled..], filled as u64) {
            filled += read;
        }
        let mut slots = vec![EMPTY; KEPT];
        let mut newest = 0;
        for (slot, record) in bytes[..filled].chunks_exact(RECORD).enumerate() {
            let (count, id) = record.split_at(RECORD / 2);
            let number = |half: &[u8]| half.try_into().map(i64::from_le_bytes).unwrap_or(EMPTY);
            let (count, id) = (number(count), number(id));
            // A slot's count names the slot; anything else was not written by a worker.
            let count = u64::try_from(count).unwrap_or(0);
            if (1..IMPLAUSIBLE).contains(&count) && id >= 0 && count % KEPT as u64 == slot as u64 {
                slots[slot] = id;
                newest = newest.max(count);
            }
        }
        Self {
            file,
            slots,
            count: newest,
        }
    }

    /// True if `id` is remembered.
    #[must_use]
    pub fn contains(&self, id: PromptId) -> bool {
        self.slots.contains(&i64::from(id))
    }

    /// Remembers `id` in place of the oldest. On a full disk it is remembered in memory alone.
    pub fn add(&mut self, id: PromptId) {
        if self.contains(id) {
            return;
        }
        self.count += 1;
        let slot = (self.count % KEPT as u64) as usize;
        self.slots[slot] = id.into();
        let mut record = [0; RECORD];
        record[..RECORD / 2].copy_from_slice(&self.count.to_le_bytes());
        record[RECORD / 2..].copy_from_slice(&i64::from(id).to_le_bytes());
        if let Err(error) = self.file.write_all_at(&record, (slot * RECORD) as u64) {
            tracing::warn!(%error, "an acknowledgement cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> PromptId {
        PromptId::try_from(number as i64).unwrap()
    }

    #[test]
    fn the_last_ones_are_remembered_across_a_restart_and_the_oldest_goes_first() {
        let file = tempfile::tempfile().unwrap();
        let mut acknowledged = Acknowledged::read(file.try_clone().unwrap());
        for number in 0..KEPT + 3 {
            acknowledged.add(id(number));
        }

        let mut again = Acknowledged::read(file.try_clone().unwrap());
        again.add(id(9999));
        let again = Acknowledged::read(file);

        assert!(!again.contains(id(2)) && !again.contains(id(3)));
        assert!(again.contains(id(4)) && again.contains(id(KEPT + 2)) && again.contains(id(9999)));
    }

    #[test]
    fn what_is_no_record_counts_as_none() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[0x41; KEPT * RECORD + 5], 0).unwrap();

        let mut acknowledged = Acknowledged::read(file);

        assert!(!acknowledged.contains(id(0x4141_4141_4141_4141)));
        acknowledged.add(id(1));
        assert!(acknowledged.contains(id(1)));
    }
}
