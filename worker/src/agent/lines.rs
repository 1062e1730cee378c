//! Bytes from the agent, cut into lines of bounded length.

/// Longest line, in bytes: it holds a tool's whole output, or a file that the agent reads.
pub const LONGEST: usize = 8 * 1024 * 1024;

/// Bytes of room that a read is given at first.
const ROOM: usize = 8 * 1024;

/// A buffer above this is given back once it is empty.
const KEPT: usize = 64 * 1024;

/// A line was longer than [`LONGEST`]; the rest of the stream is of no use.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

/// Collects bytes and gives out lines.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Bytes of the buffer that are filled.
    filled: usize,
    /// Where the next line begins.
    start: usize,
    /// Up to where there is no line end.
    searched: usize,
}

impl Lines {
    /// No bytes yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Room for bytes that are to be read.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            self.searched -= self.start;
            self.start = 0;
        }
        if self.filled == 0 && self.buffer.len() > KEPT {
            self.buffer = Vec::new();
        }
        if self.buffer.len() - self.filled < ROOM / 2 {
            let grown = (self.buffer.len() * 2).max(ROOM);
            self.buffer.resize(grown, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// Notes that the first `count` bytes of the room were filled.
    pub fn add(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.buffer.len());
    }

    /// The next whole line, without its end.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let end = self.buffer[self.searched..self.filled]
            .iter()
            .position(|byte| *byte == b'\n');
        match end {
            Some(offset) if self.searched + offset - self.start > LONGEST => Err(TooLong),
            Some(offset) => {
                let end = self.searched + offset;
                let line = self.start..end;
                self.start = end + 1;
                self.searched = self.start;
                Ok(Some(&self.buffer[line]))
            }
            None if self.filled - self.start > LONGEST => Err(TooLong),
            None => {
                self.searched = self.filled;
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(lines: &mut Lines, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = lines.room();
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            lines.add(count);
            bytes = &bytes[count..];
        }
    }

    #[test]
    fn lines_come_out_whole_however_the_bytes_are_cut() {
        let text = b"one\n\ntwo three\nrest";
        for piece in 1..text.len() {
            let mut lines = Lines::new();
            let mut found = Vec::new();
            for bytes in text.chunks(piece) {
                feed(&mut lines, bytes);
                while let Some(line) = lines.next_line().unwrap() {
                    found.push(line.to_vec());
                }
            }
            assert_eq!(found, [&b"one"[..], b"", b"two three"]);
        }
    }

    #[test]
    fn the_longest_line_passes_and_a_longer_one_does_not() {
        let mut lines = Lines::new();
        feed(&mut lines, &vec![b'x'; LONGEST]);
        assert_eq!(lines.next_line(), Ok(None));
        feed(&mut lines, b"\n");
        assert_eq!(lines.next_line().unwrap().map(<[u8]>::len), Some(LONGEST));

        feed(&mut lines, &vec![b'x'; LONGEST + 1]);
        assert_eq!(lines.next_line(), Err(TooLong));
    }

    #[test]
    fn the_memory_of_a_long_line_is_given_back() {
        let mut lines = Lines::new();
        feed(&mut lines, &vec![b'x'; LONGEST / 2]);
        feed(&mut lines, b"\n");
        assert!(lines.next_line().unwrap().is_some());

        assert!(lines.room().len() <= ROOM);
    }
}
