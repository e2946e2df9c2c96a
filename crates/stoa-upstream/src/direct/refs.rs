//! The branches and tags of a remote, as `git ls-remote` lists them.

use std::fmt;

use stoa_module::{ErrorClass, tag_sum};

use crate::failure::{Fault, Stage};

/// The hash that names an object of git: SHA-1 or SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ObjectId {
    bytes: [u8; 32],
    length: u8,
}

impl ObjectId {
    /// Reads 40 or 64 lower-case hexadecimal digits.
    pub(super) fn parse(hex: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let length = match hex.len() {
            40 => 20,
            64 => 32,
            _ => return None,
        };
        let (pairs, _) = hex.as_bytes().as_chunks::<2>();
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit_value(*high)? << 4 | digit_value(*low)?;
        }
        Some(Self { bytes, length })
    }

    pub(super) fn is_sha256(&self) -> bool {
        self.length == 32
    }

    /// Whether its digits begin with these.
    fn begins_with(&self, digits: &str) -> bool {
        let has = |(at, digit): (usize, u8)| {
            let byte = self.bytes.get(at / 2).copied().unwrap_or_default();
            digit_value(digit) == Some(if at % 2 == 0 { byte >> 4 } else { byte & 15 })
        };
        digits.len() <= 2 * usize::from(self.length) && digits.bytes().enumerate().all(has)
    }

    /// The first 16 of its digits, as a number.
    fn head(&self) -> u64 {
        self.bytes.first_chunk().map_or(0, |head| u64::from_be_bytes(*head))
    }

    /// The 12 digits that pseudo-versions have.
    pub(super) fn short(&self) -> String {
        let mut hex = self.to_string();
        hex.truncate(12);
        hex
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes.get(..self.length.into()).unwrap_or_default();
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn digit_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Whether a revision could be the beginning of a hash: at least 7 lower-case hexadecimal digits.
pub(super) fn is_hash_prefix(revision: &str) -> bool {
    (7..=64).contains(&revision.len())
        && revision.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// HEAD, branches and tags; of an annotated tag, what it points at. There may be a million.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refs {
    /// Sorted by name.
    list: Vec<(Box<str>, ObjectId)>,
    /// Where each is in the list, sorted by the heads of their hashes and then by name.
    by_head: Vec<u32>,
}

impl Refs {
    /// Of what was listed; of equal names the first counts.
    fn new(mut list: Vec<(Box<str>, ObjectId)>) -> Self {
        list.sort_by(|(a, _), (b, _)| a.cmp(b));
        list.dedup_by(|(a, _), (b, _)| a == b);
        list.shrink_to_fit();
        let mut heads: Vec<(u64, u32)> =
            list.iter().zip(0..).map(|((_, id), at)| (id.head(), at)).collect();
        heads.sort_unstable();
        let by_head = heads.into_iter().map(|(_, at)| at).collect();
        Self { list, by_head }
    }

    pub(super) fn find(&self, name: &str) -> Option<ObjectId> {
        self.entry(name).map(|(_, id)| id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, ObjectId)> {
        self.list.iter().map(|(name, id)| (&**name, *id))
    }

    /// The tags, sorted by name, without `refs/tags/`.
    pub(super) fn tags(&self) -> impl Iterator<Item = (&str, ObjectId)> {
        const TAGS: &str = "refs/tags/";
        let first = self.list.partition_point(|(name, _)| **name < *TAGS);
        let from = self.list.get(first..).unwrap_or_default().iter();
        from.map_while(|(name, id)| Some((name.strip_prefix(TAGS)?, *id)))
    }

    /// The names of those that are at a commit, sorted.
    pub(super) fn at(&self, id: ObjectId) -> impl Iterator<Item = &str> {
        let heads = self.with_heads(id.head(), id.head());
        heads.filter(move |(_, at)| *at == id).map(|(name, _)| name)
    }

    pub(super) fn tag_sum(&self, prefix: &str) -> String {
        let tags = self.tags().filter(|(tag, _)| tag.starts_with(prefix));
        tag_sum(prefix, tags.map(|(tag, id)| (tag, id.to_string())))
    }

    /// What it takes in memory, in bytes, about.
    pub(super) fn bytes(&self) -> u64 {
        let names: usize = self.list.iter().map(|(name, _)| name.len()).sum();
        let entry = size_of::<(Box<str>, ObjectId)>() + size_of::<u32>();
        (names + self.list.len() * entry) as u64
    }

    /// What the revision names: a tag before a branch before HEAD before the beginning of a known hash.
    pub(super) fn resolve(&self, revision: &str) -> Resolved<'_> {
        for name in [format!("refs/tags/{revision}"), format!("refs/heads/{revision}")] {
            if let Some((name, id)) = self.entry(&name) {
                return Resolved::Ref { name, id };
            }
        }
        if revision == "HEAD"
            && let Some((name, id)) = self.entry("HEAD")
        {
            return Resolved::Ref { name, id };
        }
        if !is_hash_prefix(revision) {
            return Resolved::Unknown;
        }
        let mut found: Option<(&str, ObjectId)> = None;
        for (name, id) in self.beginning_with(revision) {
            match found {
                // Of several refs of one commit the first.
                Some((_, known)) if known == id => {}
                Some(_) => return Resolved::Ambiguous,
                None => found = Some((name, id)),
            }
        }
        match found {
            Some((through, id)) => Resolved::Commit { id, through },
            None => Resolved::Hash,
        }
    }

    /// Those whose hashes begin with these digits.
    fn beginning_with(&self, digits: &str) -> impl Iterator<Item = (&str, ObjectId)> {
        let of_head = digits.get(..16).unwrap_or(digits);
        let value = u64::from_str_radix(of_head, 16).unwrap_or(0);
        let open = 64 - 4 * of_head.len();
        let (low, high) = match u32::try_from(open).ok().filter(|open| *open < 64) {
            Some(open) => (value << open, value << open | ((1 << open) - 1)),
            None => (0, u64::MAX),
        };
        self.with_heads(low, high).filter(move |(_, id)| id.begins_with(digits))
    }

    fn with_heads(&self, low: u64, high: u64) -> impl Iterator<Item = (&str, ObjectId)> {
        let entry = |at: u32| self.list.get(usize::try_from(at).ok()?);
        let head = move |at: u32| entry(at).map_or(0, |(_, id)| id.head());
        let first = self.by_head.partition_point(|&at| head(at) < low);
        let from = self.by_head.get(first..).unwrap_or_default().iter();
        let within = from.copied().take_while(move |&at| head(at) <= high);
        within.filter_map(move |at| entry(at).map(|(name, id)| (&**name, *id)))
    }

    fn entry(&self, name: &str) -> Option<(&str, ObjectId)> {
        let at = self.list.binary_search_by(|(one, _)| (**one).cmp(name)).ok()?;
        self.list.get(at).map(|(name, id)| (&**name, *id))
    }
}

/// What a revision names by the refs alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolved<'r> {
    Ref {
        name: &'r str,
        id: ObjectId,
    },
    /// The beginning of the hash of a ref.
    Commit {
        id: ObjectId,
        through: &'r str,
    },
    /// It may be the beginning of the hash of another commit.
    Hash,
    /// Of the hashes of two refs.
    Ambiguous,
    Unknown,
}

/// Reads the output of `git ls-remote` as it comes.
#[derive(Debug)]
pub(super) struct Listing {
    refs: Vec<(Box<str>, ObjectId)>,
    line: Vec<u8>,
    most: usize,
    bytes: u64,
    /// Of the names that are kept.
    names: usize,
    most_names: usize,
}

/// A line is a hash and a name, and git lets no name be longer than a path may be.
const MAX_LINE: usize = 8 << 10;
/// Of what is listed, with the refs that are not kept: those of a million pull requests.
const MAX_BYTES: u64 = 256 << 20;
/// Of the names that are kept; more where so many more refs are allowed that a usual name would not fit.
const MAX_NAMES: usize = 32 << 20;
const USUAL_NAME: usize = 64;

impl Listing {
    /// `most`: how many refs may be kept.
    pub(super) fn new(most: usize) -> Self {
        let most_names = MAX_NAMES.max(most.saturating_mul(USUAL_NAME));
        Self { refs: Vec::new(), line: Vec::new(), most, bytes: 0, names: 0, most_names }
    }

    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_BYTES {
            return Err(too_many(format!("list of branches and tags is over {MAX_BYTES} bytes")));
        }
        while let Some(end) = bytes.iter().position(|&b| b == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.end_line()?;
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() > MAX_LINE {
            return Err(too_many(format!("list has a line of over {MAX_LINE} bytes")));
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), Fault> {
        let line = std::mem::take(&mut self.line);
        let outcome = self.keep(&line);
        // Its room is that of the next.
        self.line = line;
        self.line.clear();
        outcome
    }

    fn keep(&mut self, line: &[u8]) -> Result<(), Fault> {
        let Ok(line) = std::str::from_utf8(line) else { return Ok(()) };
        let mut fields = line.split_whitespace();
        let (Some(hash), Some(name), None) = (fields.next(), fields.next(), fields.next()) else {
            return Ok(());
        };
        let peeled = name.strip_suffix("^{}");
        let name = peeled.unwrap_or(name);
        let wanted = name == "HEAD"
            || (name.starts_with("refs/heads/") || name.starts_with("refs/tags/"))
                && is_ref_name(name);
        let Some(id) = ObjectId::parse(hash).filter(|_| wanted) else { return Ok(()) };
        if peeled.is_some()
            && let Some((last, last_id)) = self.refs.last_mut()
            && **last == *name
        {
            // What an annotated tag points at comes right behind it.
            *last_id = id;
            return Ok(());
        }
        if self.refs.len() == self.most {
            return Err(too_many(format!("list has more than {} branches and tags", self.most)));
        }
        self.names += name.len();
        if self.names > self.most_names {
            let most = self.most_names;
            return Err(too_many(format!("names of branches and tags are over {most} bytes")));
        }
        self.refs.push((name.into(), id));
        Ok(())
    }

    pub(super) fn finish(self) -> Refs {
        Refs::new(self.refs)
    }
}

fn too_many(what: String) -> Fault {
    Fault::new(ErrorClass::Corrupt, Stage::Git, format!("git: the repository's {what}"))
}

/// Whether a name can be put into a refspec: `git check-ref-format`, so far as a remote could use it to mean something
/// else.
fn is_ref_name(name: &str) -> bool {
    let bad = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    !name.contains(bad)
        && !name.contains("..")
        && !name.contains("@{")
        && name.split('/').all(|part| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.rsplit_once('.').is_none_or(|(_, end)| end != "lock")
        })
        && !name.ends_with('.')
}

#[cfg(test)]
mod tests;
