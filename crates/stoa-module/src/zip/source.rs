//! Reading at offsets, with a buffer that survives short jumps.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

const BUFFER_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Source<R> {
    reader: BufReader<R>,
    position: u64,
    size: u64,
}

impl<R: Read + Seek> Source<R> {
    pub(super) fn new(mut reader: R) -> io::Result<Self> {
        let size = reader.seek(SeekFrom::End(0))?;
        let reader = BufReader::with_capacity(BUFFER_BYTES, reader);
        Ok(Self { reader, position: size, size })
    }

    /// The size of the whole, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Goes to an offset, which may lie behind the end.
    pub(super) fn seek_to(&mut self, offset: u64) -> io::Result<()> {
        let offset = offset.min(self.size);
        // Both are at most the size of a file, which fits.
        match i64::try_from(offset).ok().zip(i64::try_from(self.position).ok()) {
            Some((to, from)) => self.reader.seek_relative(to - from)?,
            None => _ = self.reader.seek(SeekFrom::Start(offset))?,
        }
        self.position = offset;
        Ok(())
    }

    /// Fills the buffer as far as there are bytes; returns how many there were.
    pub(super) fn read_full(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => {
                    filled += read;
                    self.position += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// The next bytes, none at the end. [`Self::consume`] goes past them.
    pub(super) fn peek(&mut self) -> io::Result<&[u8]> {
        loop {
            match self.reader.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // The buffer is full now or at the end, so that this reads nothing.
        self.reader.fill_buf()
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.reader.consume(bytes);
        self.position += bytes as u64;
    }
}
