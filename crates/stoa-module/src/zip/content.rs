//! The data of entries.

use std::io::{self, Read, Seek};
use std::ops::Range;

use flate2::{Crc, Decompress, FlushDecompress, Status};
use sha2::Digest as _;

use super::EntryProblem;
use super::directory::Entry;
use super::source::Source;
use crate::hash::Sha256;

pub(super) const LOCAL_HEADER: [u8; 4] = *b"PK\x03\x04";
pub(super) const LOCAL_HEADER_BYTES: usize = 30;
const DESCRIPTOR: [u8; 4] = *b"PK\x07\x08";
const OUTPUT_BYTES: usize = 64 << 10;

const ENCRYPTED: u16 = 1;
const HAS_DESCRIPTOR: u16 = 8;

pub(super) const STORED: u16 = 0;
pub(super) const DEFLATED: u16 = 8;

/// Reads entries one after the other, with the same buffers.
#[derive(Debug)]
pub(super) struct Contents<'s, R> {
    source: &'s mut Source<R>,
    inflate: Decompress,
    output: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Content {
    pub(super) sha256: Sha256,
    /// The bytes of the zip that were read for it: the local header and the data.
    pub(super) span: Range<u64>,
}

#[derive(Debug)]
pub(super) enum ContentError {
    Io(io::Error),
    Problem(EntryProblem),
}

impl From<io::Error> for ContentError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<EntryProblem> for ContentError {
    fn from(problem: EntryProblem) -> Self {
        Self::Problem(problem)
    }
}

impl<'s, R: Read + Seek> Contents<'s, R> {
    pub(super) fn new(source: &'s mut Source<R>) -> Self {
        Self { source, inflate: Decompress::new(false), output: vec![0; OUTPUT_BYTES] }
    }

    /// Reads and hashes an entry. Never inflates more than one buffer beyond its declared size.
    pub(super) fn read(
        &mut self,
        entry: &Entry,
        is_directory: bool,
    ) -> Result<Content, ContentError> {
        let header = entry.offset().ok_or(EntryProblem::LocalHeader)?;
        let data = header + self.local_header(header)?;
        if is_directory {
            // Whatever else is declared for it is never read.
            if entry.size != 0 {
                return Err(EntryProblem::DirectoryData.into());
            }
            return Ok(Content { sha256: Sha256::of(b""), span: header..data });
        }
        if entry.flags & ENCRYPTED != 0 {
            return Err(EntryProblem::Encrypted.into());
        }
        let mut sink = Sink { sha256: sha2::Sha256::new(), crc: Crc::new(), left: entry.size };
        let read = match entry.method {
            STORED => self.stored(entry, &mut sink)?,
            DEFLATED => self.deflated(entry, &mut sink)?,
            method => return Err(EntryProblem::Method(method).into()),
        };
        if sink.left != 0 {
            return Err(EntryProblem::TooLittleData(entry.size).into());
        }

        let crc = sink.crc.sum();
        let matches = if entry.flags & HAS_DESCRIPTOR != 0 {
            self.descriptor_crc(data.saturating_add(entry.compressed))? == entry.crc
                && crc == entry.crc
        } else {
            // Go takes zero for "not known".
            entry.crc == 0 || crc == entry.crc
        };
        if !matches {
            return Err(EntryProblem::Checksum.into());
        }
        let sha256 = Sha256::from_bytes(sink.sha256.finalize().into());
        Ok(Content { sha256, span: header..data + read })
    }

    /// The length of the local header. Only its signature and its two lengths are looked at.
    fn local_header(&mut self, offset: u64) -> Result<u64, ContentError> {
        self.source.seek_to(offset)?;
        let mut header = [0; LOCAL_HEADER_BYTES];
        if self.source.read_full(&mut header)? < header.len() || !header.starts_with(&LOCAL_HEADER)
        {
            return Err(EntryProblem::LocalHeader.into());
        }
        let variable =
            [26, 28].map(|at| u64::from(u16::from_le_bytes([header[at], header[at + 1]])));
        let length = LOCAL_HEADER_BYTES as u64 + variable[0] + variable[1];
        self.source.seek_to(offset + length)?;
        Ok(length)
    }

    /// Returns how many bytes of the zip were used.
    fn stored(&mut self, entry: &Entry, sink: &mut Sink) -> Result<u64, ContentError> {
        let mut left = entry.compressed;
        while left > 0 {
            let input = limited(self.source.peek()?, left);
            if input.is_empty() {
                break;
            }
            sink.take(entry, input)?;
            let length = input.len();
            self.source.consume(length);
            left -= length as u64;
        }
        Ok(entry.compressed - left)
    }

    /// Returns how many bytes of the zip were used.
    fn deflated(&mut self, entry: &Entry, sink: &mut Sink) -> Result<u64, ContentError> {
        self.inflate.reset(false);
        loop {
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let input = limited(self.source.peek()?, entry.compressed - before_in);
            let at_end = input.is_empty();
            let status = self
                .inflate
                .decompress(input, &mut self.output, FlushDecompress::None)
                .map_err(|_| EntryProblem::Deflate)?;
            let used = self.inflate.total_in() - before_in;
            let made = self.inflate.total_out() - before_out;
            // Neither is larger than its buffer.
            let (used, made) = (used as usize, made as usize);
            self.source.consume(used);
            sink.take(entry, &self.output[..made])?;
            match status {
                Status::StreamEnd => return Ok(self.inflate.total_in()),
                Status::Ok | Status::BufError if at_end && made == 0 => {
                    return Err(EntryProblem::Truncated.into());
                }
                Status::Ok | Status::BufError => {}
            }
        }
    }

    /// The CRC in the descriptor behind the data, of which only this is read: the sizes that follow it have two forms.
    fn descriptor_crc(&mut self, offset: u64) -> Result<u32, ContentError> {
        self.source.seek_to(offset)?;
        let mut first = [0; 4];
        let mut rest = [0; 12];
        let mut complete = self.source.read_full(&mut first)? == first.len();
        // The signature is optional.
        let crc = if first == DESCRIPTOR {
            complete &= self.source.read_full(&mut rest)? == rest.len();
            [rest[0], rest[1], rest[2], rest[3]]
        } else {
            complete &= self.source.read_full(&mut rest[..8])? == 8;
            first
        };
        if !complete {
            return Err(EntryProblem::Truncated.into());
        }
        Ok(u32::from_le_bytes(crc))
    }
}

fn limited(bytes: &[u8], most: u64) -> &[u8] {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    &bytes[..bytes.len().min(most)]
}

struct Sink {
    sha256: sha2::Sha256,
    crc: Crc,
    /// What is missing to the declared size.
    left: u64,
}

impl Sink {
    fn take(&mut self, entry: &Entry, bytes: &[u8]) -> Result<(), EntryProblem> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or(EntryProblem::TooMuchData(entry.size))?;
        self.sha256.update(bytes);
        self.crc.update(bytes);
        Ok(())
    }
}
