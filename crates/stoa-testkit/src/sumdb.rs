use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use stoa_module::H1;
use stoa_sumdb::{Hash, Tile, TileLevel, TreeHead, VerifierKey, node_hash, record_hash};

use crate::modules::{escape, unescape};
use crate::{Answer, Modules};

/// A checksum database with a key of its own, to be served by
/// [`FakeUpstream::with_sumdb`](crate::FakeUpstream::with_sumdb). Clones are the same database.
///
/// Its lies, and how to have it tell them:
///
/// | lie | how |
/// |---|---|
/// | a signature that does not verify | [`Misbehaviour::BadSignature`] |
/// | a record in lookups that is not the one in the tree | [`Misbehaviour::AlteredRecords`] |
/// | a record in the tree that contradicts the module | [`append_record`](FakeSumdb::append_record) |
/// | a second history under the same key | [`fork`](FakeSumdb::fork), served in place of the first |
/// | an older `latest` than before | [`serve_latest_at`](FakeSumdb::serve_latest_at) |
/// | an older head in lookups (no lie, but old) | [`serve_lookups_at`](FakeSumdb::serve_lookups_at) |
/// | no record of a module | a database made without it |
/// | a bad tile, 404, 500, a hang, … | a [`Fault`](crate::Fault) at `/sumdb/NAME/…` of the upstream |
#[derive(Debug, Clone)]
pub struct FakeSumdb {
    key: VerifierKey,
    signer: SigningKey,
    log: Arc<Mutex<Log>>,
}

/// What a [`FakeSumdb`] does wrong in all its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misbehaviour {
    /// Signs with another key, but says that it is its own.
    BadSignature,
    /// Lookups have another, well-formed hash of the zip than the record in the tree.
    AlteredRecords,
}

#[derive(Debug, Clone, Default)]
struct Log {
    /// `MODULE@VERSION` and the text of its record, by id.
    records: Vec<(String, String)>,
    /// By level: the hashes of the complete subtrees of `2^level` records.
    levels: Vec<Vec<Hash>>,
    misbehaviour: Option<Misbehaviour>,
    latest_at: Option<u64>,
    lookups_at: Option<u64>,
}

impl FakeSumdb {
    /// A database of that name with a record for each version of the modules. The same name has the
    /// same key each time.
    #[track_caller]
    pub fn new(name: &str, modules: &Modules) -> FakeSumdb {
        let seed = record_hash(format!("key of {name}").as_bytes());
        let signer = SigningKey::from_bytes(seed.as_bytes());
        let key = VerifierKey::new(name, signer.verifying_key().as_bytes())
            .unwrap_or_else(|error| panic!("{name:?}: {error}"));
        let sumdb = FakeSumdb { key, signer, log: Arc::default() };
        sumdb.append(modules);
        sumdb
    }

    pub fn name(&self) -> &str {
        self.key.name()
    }

    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// The text for GOSUMDB.
    pub fn verifier_key(&self) -> String {
        self.key.to_string()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record for each version that has none yet.
    #[track_caller]
    pub fn append(&self, modules: &Modules) {
        for module in modules.module_versions() {
            if self.log().id_of(&module).is_none() {
                self.append_record(&module, modules.zip_h1(&module), modules.go_mod_h1(&module));
            }
        }
    }

    /// Appends a record that says whatever is wanted.
    #[track_caller]
    pub fn append_record(&self, module_version: &str, zip: H1, go_mod: H1) {
        let (path, version) =
            module_version.split_once('@').expect("a record is about a MODULE@VERSION");
        let text = format!("{path} {version} {zip}\n{path} {version}/go.mod {go_mod}\n");
        self.log().append(module_version.to_owned(), text);
    }

    /// Appends so many records about modules that are nowhere, to have a larger tree.
    pub fn append_filler(&self, records: u64) {
        for _ in 0..records {
            let id = self.size();
            let hash = H1::of_go_mod(format!("filler {id}").as_bytes());
            self.append_record(&format!("filler.example/m{id}@v1.0.0"), hash, hash);
        }
    }

    /// Records in the tree.
    pub fn size(&self) -> u64 {
        self.log().size()
    }

    /// The id of a module version's record.
    pub fn id_of(&self, module_version: &str) -> Option<u64> {
        self.log().id_of(module_version)
    }

    /// The tree when it had that size.
    #[track_caller]
    pub fn head(&self, size: u64) -> TreeHead {
        TreeHead { size, hash: self.log().hash_of(0, size) }
    }

    /// The signed note of the tree when it had that size.
    #[track_caller]
    pub fn signed_head(&self, size: u64) -> String {
        let TreeHead { size, hash } = self.head(size);
        let text = format!("go.sum database tree\n{size}\n{hash}\n");
        let bad = self.log().misbehaviour == Some(Misbehaviour::BadSignature);
        let signed = if bad { format!("not {text}") } else { text.clone() };
        let mut signature = self.key.hash().to_be_bytes().to_vec();
        signature.extend(self.signer.sign(signed.as_bytes()).to_bytes());
        format!("{text}\n\u{2014} {} {}\n", self.name(), STANDARD.encode(signature))
    }

    /// Another history under the same key: the same first `records` records, then others.
    pub fn fork(&self, records: u64) -> FakeSumdb {
        let mut log = Log::default();
        for (id, (module, text)) in (0..).zip(self.log().records.iter().cloned()) {
            let text = if id < records { text } else { altered(&text) };
            log.append(module, text);
        }
        FakeSumdb { log: Arc::new(Mutex::new(log)), ..self.clone() }
    }

    pub fn misbehave(&self, misbehaviour: impl Into<Option<Misbehaviour>>) {
        self.log().misbehaviour = misbehaviour.into();
    }

    /// Pins `latest` to an older tree; `None` is the newest.
    pub fn serve_latest_at(&self, size: impl Into<Option<u64>>) {
        self.log().latest_at = size.into();
    }

    /// Pins the tree head in lookups to an older tree, where that has the record; `None` is the newest.
    pub fn serve_lookups_at(&self, size: impl Into<Option<u64>>) {
        self.log().lookups_at = size.into();
    }

    /// What the database answers at a decoded path below its root, such as `lookup/ex.com/m@v1.0.0`.
    pub(crate) fn answer(&self, file: &str) -> Answer {
        let text = "text/plain; charset=UTF-8";
        if file == "supported" {
            return Answer::new(200, text, "");
        }
        if file == "latest" {
            let size = self.size();
            let size = self.log().latest_at.unwrap_or(size);
            return Answer::new(200, text, self.signed_head(size));
        }
        if let Some(escaped) = file.strip_prefix("lookup/") {
            return match unescape(escaped).and_then(|module| self.lookup(&module)) {
                Some(body) => Answer::new(200, text, body),
                None => Answer::not_found(&format!("{escaped}: no record")),
            };
        }
        let Ok(tile) = Tile::parse(file) else {
            return Answer::text(400, format!("bad request: {file}\n"));
        };
        match (self.tile(tile), tile.level) {
            (Some(body), TileLevel::Data) => Answer::new(200, text, body),
            (Some(body), TileLevel::Hashes(_)) => {
                Answer::new(200, "application/octet-stream", body)
            }
            (None, _) => Answer::not_found(&format!("{tile}: no such tile")),
        }
    }

    /// The answer to a lookup of `MODULE@VERSION`.
    pub fn lookup(&self, module_version: &str) -> Option<String> {
        let id = self.id_of(module_version)?;
        let (record, head) = {
            let log = self.log();
            let record = log.records[id as usize].1.clone();
            let pinned = log.lookups_at.filter(|&size| id < size);
            match log.misbehaviour {
                Some(Misbehaviour::AlteredRecords) => (altered(&record), pinned),
                _ => (record, pinned),
            }
        };
        let head = self.signed_head(head.unwrap_or(self.size()));
        Some(format!("{id}\n{record}\n{head}"))
    }

    /// Any tile that exists, at any width up to the one it has now.
    pub fn tile(&self, tile: Tile) -> Option<Vec<u8>> {
        let log = self.log();
        if !tile.exists_in(log.size()) {
            return None;
        }
        let first = tile.index as usize * 256;
        let entries = first..first + usize::from(tile.width);
        match tile.level {
            TileLevel::Data => {
                let records = &log.records[entries];
                Some(records.iter().flat_map(|(_, text)| [text, "\n"]).collect::<String>().into())
            }
            TileLevel::Hashes(level) => {
                let hashes = &log.levels[usize::from(level) * 8][entries];
                Some(hashes.iter().flat_map(|hash| *hash.as_bytes()).collect())
            }
        }
    }

    /// Where a lookup of `MODULE@VERSION` is at an upstream that serves this database.
    pub fn lookup_path(&self, module_version: &str) -> String {
        format!("/sumdb/{}/lookup/{}", self.name(), escape(module_version))
    }
}

impl Log {
    fn size(&self) -> u64 {
        self.records.len() as u64
    }

    fn id_of(&self, module_version: &str) -> Option<u64> {
        // The newest, so that a record can be put right by another.
        let at = self.records.iter().rposition(|(module, _)| module == module_version);
        at.map(|at| at as u64)
    }

    fn append(&mut self, module_version: String, text: String) {
        let mut hash = record_hash(text.as_bytes());
        self.records.push((module_version, text));
        for level in 0.. {
            if level == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let hashes = &mut self.levels[level];
            hashes.push(hash);
            match hashes[..] {
                [.., left, right] if hashes.len().is_multiple_of(2) => {
                    hash = node_hash(left, right);
                }
                _ => break,
            }
        }
    }

    /// The hash of the records from `start` to `end`, by the definition of RFC 6962.
    #[track_caller]
    fn hash_of(&self, start: u64, end: u64) -> Hash {
        assert!(end <= self.size(), "no tree of size {end}, there are {} records", self.size());
        let size = end - start;
        if size == 0 {
            return Hash::of_empty_tree();
        }
        if size.is_power_of_two() {
            return self.levels[size.ilog2() as usize][(start / size) as usize];
        }
        let left = 1 << size.ilog2();
        node_hash(self.hash_of(start, start + left), self.hash_of(start + left, end))
    }
}

/// The record with another hash of the zip.
fn altered(record: &str) -> String {
    let other = H1::of_go_mod(record.as_bytes());
    let (first, rest) = record.split_once('\n').unwrap_or((record, ""));
    let (line, _) = first.rsplit_once(' ').unwrap_or((first, ""));
    format!("{line} {other}\n{rest}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use stoa_sumdb::{Error, Lookup, Plan, SignedTreeHead};

    use super::*;

    fn modules() -> Modules {
        Modules::parse("-- ex.com/M@v1.0.0/go.mod --\nmodule ex.com/M\n")
    }

    fn head_of(sumdb: &FakeSumdb) -> Result<SignedTreeHead, Error> {
        SignedTreeHead::open(&sumdb.answer("latest").body, sumdb.key())
    }

    /// The whole way of a client, with the newest head of `sumdb`.
    fn verified(sumdb: &FakeSumdb) -> Result<bool, Error> {
        let answer = sumdb.answer("lookup/ex.com/!m@v1.0.0");
        let lookup = Lookup::open(&answer.body, sumdb.key())?;
        let old = lookup.signed.head;
        let plan = Plan::new(head_of(sumdb)?.head).record(lookup.id)?.tree(old.size)?;
        let fetch = |tile: Tile| (tile, sumdb.answer(&tile.path()).body);
        let tiles: HashMap<_, _> = plan.tiles().into_iter().map(fetch).collect();
        let proven = plan.authenticate(tiles)?;
        assert_eq!(proven.tree_hash(old.size), Some(old.hash));
        Ok(proven.record_hash(lookup.id) == Some(lookup.record_hash()))
    }

    #[test]
    fn it_is_believed_at_any_size() {
        let sumdb = FakeSumdb::new("sum.test.example", &modules());
        for filler in [0, 1, 253, 1, 1, 500] {
            sumdb.append_filler(filler);
            assert_eq!(verified(&sumdb), Ok(true), "{}", sumdb.size());
            assert_eq!(head_of(&sumdb).unwrap().head.size, sumdb.size());
        }
        sumdb.serve_lookups_at(3);
        assert_eq!(verified(&sumdb), Ok(true));
        sumdb.append(&modules());
        assert_eq!((sumdb.size(), sumdb.id_of("ex.com/M@v1.0.0")), (757, Some(0)));
    }

    #[test]
    fn its_lies_are_found() {
        let sumdb = FakeSumdb::new("sum.test.example", &modules());
        sumdb.append_filler(2);
        sumdb.misbehave(Misbehaviour::AlteredRecords);
        assert_eq!(verified(&sumdb), Ok(false));
        sumdb.misbehave(Misbehaviour::BadSignature);
        assert_eq!(
            verified(&sumdb),
            Err(Error::BadSignature { key: "sum.test.example".to_owned() })
        );
        sumdb.misbehave(None);
        assert_eq!(verified(&sumdb), Ok(true));
    }

    #[test]
    fn a_fork_has_the_same_key_and_beginning() {
        let sumdb = FakeSumdb::new("sum.test.example", &modules());
        sumdb.append_filler(9);
        let fork = sumdb.fork(4);
        assert_eq!(fork.verifier_key(), sumdb.verifier_key());
        assert_eq!(verified(&fork), Ok(true));
        for size in 0..=10 {
            assert_eq!(fork.head(size) == sumdb.head(size), size <= 4, "{size}");
        }
    }

    #[test]
    fn it_answers_as_the_protocol_says() {
        #[track_caller]
        fn check(file: &str, status: u16, body: Option<&str>) {
            let sumdb = FakeSumdb::new("sum.test.example", &modules());
            sumdb.append_filler(2);
            sumdb.serve_latest_at(1);
            let answer = sumdb.answer(file);
            assert_eq!(answer.status, status, "{file}");
            if let Some(body) = body {
                assert_eq!(answer.body, body, "{file}");
            }
        }
        let sumdb = FakeSumdb::new("sum.test.example", &modules());
        check("supported", 200, Some(""));
        check("latest", 200, Some(&sumdb.signed_head(1)));
        check("lookup/ex.com/!m@v1.0.0", 200, None);
        check("lookup/ex.com/!m@v1.0.1", 404, None);
        check("lookup/ex.com/M@v1.0.0", 404, None);
        let data = format!("{}\n", sumdb.log().records[0].1);
        check("tile/8/data/000.p/1", 200, Some(&data));
        check("tile/8/0/000.p/1", 200, None);
        check("tile/8/0/000.p/3", 200, None);
        check("tile/8/0/000.p/4", 404, None);
        check("tile/8/0/000", 404, None);
        check("tile/8/0/0", 400, None);
        check("other", 400, None);
    }
}
