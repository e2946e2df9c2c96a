//! The store from outside, and what it leaves on disk.

mod blobs;
mod cut;
mod index;
mod kept;
mod kill;
mod kills;
mod memory;
mod power;
mod reject;
mod trouble;
mod unverified;

use std::{collections::BTreeMap, io::Read, path::PathBuf, time::Duration};

use stoa_module::{Artifact, H1, ModulePath, ModuleVersion, Sha256};
use tokio::io::AsyncWriteExt;

use crate::{
    ArtifactRecord, Committed, Content, Error, Options, QuarantineNote, Sidecar, State, Store,
    Temporary, layout::Layout,
};

/// A data directory that outlives the stores opened on it.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// On a file system in memory where there is one: for tests that open many stores, and ask nothing of the disk.
    fn in_memory() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self { dir: dir.unwrap() }
    }

    /// Nothing is flushed unless the test says so.
    async fn open_unflushed(&self) -> Store {
        let flush_interval = Duration::from_hours(24);
        Store::open(Options { flush_interval, ..Options::new(self.path()) }).await.unwrap()
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn layout(&self) -> Layout {
        Layout::new(self.path())
    }

    async fn open(&self) -> Store {
        Store::open(Options::new(self.path())).await.unwrap()
    }

    /// What `cache/download` holds, but for the sidecars: relative path and content.
    fn published(&self) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        let root = self.layout().download();
        let mut open = vec![root.clone()];
        while let Some(dir) = open.pop() {
            for entry in fs_err::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_none_or(|extension| extension != "stoa") {
                    let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                    found.insert(name, fs_err::read(path).unwrap());
                }
            }
        }
        found
    }

    fn temporaries(&self) -> usize {
        fs_err::read_dir(self.layout().temporary()).unwrap().count()
    }
}

fn module(text: &str) -> ModuleVersion {
    ModuleVersion::parse(text).unwrap()
}

fn path(text: &str) -> ModulePath {
    ModulePath::parse(text).unwrap()
}

/// The bytes that tests store for an artifact: every one has its own, and its own length.
fn body(module: &ModuleVersion, artifact: Artifact) -> Vec<u8> {
    let line = format!("{module}{artifact}\n");
    match artifact {
        Artifact::Info | Artifact::Mod => line.into_bytes(),
        Artifact::Zip => line.repeat(1000).into_bytes(),
    }
}

fn record(artifact: Artifact, body: &[u8]) -> ArtifactRecord {
    let (h1, state) = match artifact {
        Artifact::Info => (None, State::Uncovered),
        Artifact::Mod | Artifact::Zip => {
            let database = "sum.example.com".to_owned();
            (Some(H1::of_go_mod(body)), State::Verified { database })
        }
    };
    ArtifactRecord {
        size: body.len() as u64,
        sha256: Sha256::of(body),
        h1,
        state,
        source: "proxy.example.com".to_owned(),
        first_seen: "2026-01-02T03:04:05Z".parse().unwrap(),
    }
}

async fn downloaded(store: &Store, body: &[u8]) -> Temporary {
    let mut temporary = store.temporary(1 << 20, Duration::ZERO).await.unwrap();
    temporary.file().write_all(body).await.unwrap();
    temporary
}

async fn commit_as(
    store: &Store,
    module: &ModuleVersion,
    artifact: Artifact,
    body: &[u8],
    record: ArtifactRecord,
) -> Result<std::sync::Arc<Sidecar>, Error> {
    let temporary = downloaded(store, body).await;
    match store.commit(module, artifact, temporary, record).await? {
        Committed::Stored(sidecar) => Ok(sidecar),
        Committed::Passed(_) => panic!("{module}{artifact} is passed through"),
    }
}

/// Commits the bytes that belong to the artifact.
async fn commit(store: &Store, module: &ModuleVersion, artifact: Artifact) {
    let body = body(module, artifact);
    let record = record(artifact, &body);
    commit_as(store, module, artifact, &body, record).await.unwrap();
}

async fn commit_all(store: &Store, module: &ModuleVersion) {
    for artifact in Artifact::ALL {
        commit(store, module, artifact).await;
    }
}

/// The served bytes. A hit that is not exactly the recorded bytes fails the test.
async fn served(store: &Store, module: &ModuleVersion, artifact: Artifact) -> Option<Vec<u8>> {
    let stored = store.open_artifact(module, artifact).await.unwrap()?;
    let mut bytes = Vec::new();
    match stored.content {
        Content::Memory(body) => bytes.extend_from_slice(&body),
        Content::File(file) => _ = (&**file).read_to_end(&mut bytes).unwrap(),
    }
    assert_eq!(bytes.len() as u64, stored.record.size, "{module}{artifact}");
    assert_eq!(Sha256::of(&bytes), stored.record.sha256, "{module}{artifact}");
    Some(bytes)
}

/// `imz` for a version of which all three are served; a dash for each that is not.
async fn hits(store: &Store, module: &ModuleVersion) -> String {
    let mut hits = String::new();
    for (artifact, letter) in Artifact::ALL.into_iter().zip(['i', 'm', 'z']) {
        let hit = served(store, module, artifact).await;
        if let Some(bytes) = &hit {
            assert_eq!(*bytes, body(module, artifact), "{module}{artifact}");
        }
        hits.push(if hit.is_some() { letter } else { '-' });
    }
    hits
}

async fn versions(store: &Store, module: &str) -> Vec<String> {
    store.versions(&path(module)).await.unwrap().iter().map(ToString::to_string).collect()
}

fn note(artifact: Artifact) -> QuarantineNote {
    QuarantineNote {
        module: "example.com/a@v1.0.0".into(),
        artifact,
        reason: "does not match".into(),
        source: "proxy.example.com".into(),
    }
}

/// All that follows from the sidecars says the same: `list` and `.ziphash` on disk, the versions in memory, the index.
async fn assert_agreement(place: &Place, store: &Store, modules: &[ModuleVersion]) {
    let rebuilt = tokio::time::timeout(Duration::from_mins(1), store.index_completed()).await;
    rebuilt.expect("the index is rebuilt");
    store.flush_index().await;
    assert_eq!(place.temporaries(), 0, "leftovers");
    let published = place.published();
    let mut listed: BTreeMap<&ModulePath, Vec<_>> = BTreeMap::new();
    let (mut artifacts, mut bytes, mut paths) = (0, 0, std::collections::BTreeSet::new());
    let mut counted_versions = 0;
    for module in modules {
        let hits = hits(store, module).await;
        let versions = listed.entry(module.path()).or_default();
        if hits.starts_with("im") {
            versions.push(module.version().clone());
        }
        let hash = format!("{}hash", module.escaped_file(Artifact::Zip));
        let expected =
            hits.ends_with('z').then(|| H1::of_go_mod(&body(module, Artifact::Zip)).to_string());
        assert_eq!(
            published.get(&hash).map(|text| String::from_utf8_lossy(text).into_owned()),
            expected,
            "{hash}"
        );
        for (artifact, hit) in Artifact::ALL.into_iter().zip(hits.chars()) {
            if hit != '-' {
                artifacts += 1;
                bytes += body(module, artifact).len() as u64;
                paths.insert(module.path());
            }
        }
        counted_versions += u64::from(hits != "---");
    }
    for (module, mut versions) in listed {
        versions.sort();
        let list = format!("{}/@v/list", module.escaped());
        let text = published.get(&list).map(|text| String::from_utf8_lossy(text).into_owned());
        let expected: String = stoa_module::render_list(&versions);
        assert_eq!(text.unwrap_or_default(), expected, "{list}");
        assert_eq!(*store.versions(module).await.unwrap(), versions, "{module}");
    }
    let counts = store.counts().await.unwrap();
    assert!(counts.complete);
    assert_eq!(
        (counts.modules, counts.versions, counts.artifacts, counts.bytes),
        (paths.len() as u64, counted_versions, artifacts, bytes)
    );
}
