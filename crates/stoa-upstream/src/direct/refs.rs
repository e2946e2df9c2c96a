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
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, _) = hex.as_bytes().as_chunks::<2>();
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self { bytes, length })
    }

    pub(super) fn is_sha256(&self) -> bool {
        self.length == 32
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

/// Whether a revision could be the beginning of a hash: at least 7 lower-case hexadecimal digits.
pub(super) fn is_hash_prefix(revision: &str) -> bool {
    (7..=64).contains(&revision.len())
        && revision.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// HEAD, branches and tags; of an annotated tag, what it points at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refs {
    /// Sorted by name.
    list: Vec<(Box<str>, ObjectId)>,
}

impl Refs {
    pub(super) fn find(&self, name: &str) -> Option<ObjectId> {
        let at = self.list.binary_search_by(|(one, _)| (**one).cmp(name)).ok()?;
        self.list.get(at).map(|(_, id)| *id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, ObjectId)> {
        self.list.iter().map(|(name, id)| (&**name, *id))
    }

    /// The tags, sorted by name, without `refs/tags/`.
    pub(super) fn tags(&self) -> impl Iterator<Item = (&str, ObjectId)> {
        self.iter().filter_map(|(name, id)| Some((name.strip_prefix("refs/tags/")?, id)))
    }

    pub(super) fn tag_sum(&self, prefix: &str) -> String {
        tag_sum(prefix, self.tags().map(|(tag, id)| (tag, id.to_string())))
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
        let mut found = None;
        for (name, id) in self.iter() {
            if !id.to_string().starts_with(revision) {
                continue;
            }
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
}

/// A line is a hash and a name, and git lets no name be longer than a path may be.
const MAX_LINE: usize = 8 << 10;
/// Of what is listed, with the refs that are not kept: those of a million pull requests.
const MAX_BYTES: u64 = 256 << 20;

impl Listing {
    /// `most`: how many refs may be kept.
    pub(super) fn new(most: usize) -> Self {
        Self { refs: Vec::new(), line: Vec::new(), most, bytes: 0 }
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
        let Ok(line) = std::str::from_utf8(&line) else { return Ok(()) };
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
        self.refs.push((name.into(), id));
        Ok(())
    }

    pub(super) fn finish(mut self) -> Refs {
        self.refs.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.refs.dedup_by(|(a, _), (b, _)| a == b);
        Refs { list: self.refs }
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
mod tests {
    use super::*;

    const A: &str = "a3ab0831a0ed9ce3aa2155c5c30627b07f94166a";
    const B: &str = "bbaab31090cb8dc2c1b991f377bd260450f5e054";
    const C: &str = "bbaab31190cb8dc2c1b991f377bd260450f5e054";

    fn listed(text: &str, pieces: usize) -> Refs {
        let mut listing = Listing::new(100);
        for piece in text.as_bytes().chunks(pieces) {
            listing.take(piece).unwrap();
        }
        listing.finish()
    }

    #[test]
    fn lists() {
        let text = format!(
            "{B}\tHEAD\n{B}\trefs/heads/main\n{C}\trefs/heads/other\n{C}\trefs/pull/1/head\n\
             {A}\trefs/tags/v1\n{B}\trefs/tags/w\n{A}\trefs/tags/w^{{}}\n{A}\trefs/tags/a:b\n\
             {A}\trefs/tags/../x\n{A}\trefs/tags/x.lock\nrubbish\n{A} a b c\n"
        );
        for pieces in [1, 7, 4096] {
            let refs = listed(&text, pieces);
            let names: Vec<_> = refs.iter().map(|(name, _)| name).collect();
            assert_eq!(
                names,
                ["HEAD", "refs/heads/main", "refs/heads/other", "refs/tags/v1", "refs/tags/w"]
            );
            assert_eq!(refs.find("refs/tags/w").unwrap().to_string(), A);
        }
    }

    #[test]
    fn resolves() {
        let (a, b) = (ObjectId::parse(A).unwrap(), ObjectId::parse(B).unwrap());
        let refs = listed(
            &format!(
                "{B}\tHEAD\n{B}\trefs/heads/main\n{C}\trefs/heads/v1\n{A}\trefs/tags/v1\n\
                 {A}\trefs/tags/abcdef0\n"
            ),
            4096,
        );
        let check = |revision: &str, expected: Resolved<'_>| {
            assert_eq!(refs.resolve(revision), expected, "{revision}");
        };
        check("v1", Resolved::Ref { name: "refs/tags/v1", id: a });
        check("main", Resolved::Ref { name: "refs/heads/main", id: b });
        check("HEAD", Resolved::Ref { name: "HEAD", id: b });
        check("bbaab310", Resolved::Commit { id: b, through: "HEAD" });
        check(B, Resolved::Commit { id: b, through: "HEAD" });
        check("bbaab31", Resolved::Ambiguous);
        check("bbaab3", Resolved::Unknown);
        check("BBAAB310", Resolved::Unknown);
        check("1234567", Resolved::Hash);
        check("abcdef0", Resolved::Ref { name: "refs/tags/abcdef0", id: a });
        check("-x", Resolved::Unknown);
        check("", Resolved::Unknown);
    }

    #[test]
    fn has_bounds() {
        let mut listing = Listing::new(2);
        let line = |n: usize| format!("{A}\trefs/tags/v{n}\n");
        listing.take(line(1).as_bytes()).unwrap();
        listing.take(line(2).as_bytes()).unwrap();
        let fault = listing.take(line(3).as_bytes()).unwrap_err();
        assert!(fault.detail.contains("more than 2 branches and tags"), "{}", fault.detail);
        let mut listing = Listing::new(2);
        assert!(listing.take(&[b'x'; MAX_LINE + 1]).is_err());
    }
}
