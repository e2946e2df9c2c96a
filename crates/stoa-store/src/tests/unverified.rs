//! What nobody has vouched for yet: served to those who ask for it by this store, and to nobody else.

use super::*;

fn unverified(artifact: Artifact, body: &[u8]) -> ArtifactRecord {
    let state = match artifact {
        Artifact::Info => State::Uncovered,
        Artifact::Mod | Artifact::Zip => State::Unverified,
    };
    ArtifactRecord { state, ..record(artifact, body) }
}

async fn commit_unverified(store: &Store, module: &ModuleVersion) {
    for artifact in Artifact::ALL {
        let body = body(module, artifact);
        let record = unverified(artifact, &body);
        commit_as(store, module, artifact, &body, record).await.unwrap();
    }
}

fn verified() -> State {
    State::Verified { database: "sum.example.com".to_owned() }
}

/// What a `file://` client finds of the module, and the content of its `list`.
fn exported(place: &Place, module: &ModuleVersion) -> (String, String) {
    let published = place.published();
    let is_there = |name: &String| published.contains_key(name);
    let mut found = String::new();
    for (artifact, letter) in Artifact::ALL.into_iter().zip(['i', 'm', 'z']) {
        found.push(if is_there(&module.escaped_file(artifact)) { letter } else { '-' });
    }
    found.push(if is_there(&format!("{}hash", module.escaped_file(Artifact::Zip))) {
        'h'
    } else {
        '-'
    });
    let list = published.get(&format!("{}/@v/list", module.path().escaped()));
    (found, list.map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default())
}

async fn waiting(store: &Store) -> (u64, Vec<String>) {
    store.index_completed().await;
    store.flush_index().await;
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let some = store.unverified(after, 2).await.unwrap();
        let Some((last, _)) = some.last() else { break };
        after = *last;
        all.extend(some.iter().map(|(_, module)| module.to_string()));
    }
    (store.counts().await.unwrap().unverified, all)
}

#[tokio::test]
async fn it_is_served_and_not_exported_until_it_is_verified() {
    let place = Place::new();
    let store = place.open().await;
    let (a, b) = (module("example.com/Upper@v1.0.0"), module("example.com/Upper@v1.1.0"));
    commit_unverified(&store, &a).await;
    commit_all(&store, &b).await;
    let check = async |store: &Store| {
        assert_eq!(hits(store, &a).await, "imz");
        assert_eq!(exported(&place, &a), ("i---".to_owned(), "v1.1.0\n".to_owned()));
        assert_eq!(exported(&place, &b).0, "imzh");
        assert_eq!(versions(store, "example.com/Upper").await, ["v1.1.0"]);
        assert_eq!(waiting(store).await, (2, vec![a.to_string()]));
        let stored = store.stored_versions(a.path()).await.unwrap();
        assert_eq!(stored[0].unverified, [Artifact::Mod, Artifact::Zip]);
        assert_eq!((stored[0].artifacts.len(), stored[1].unverified.len()), (3, 0));
    };
    check(&store).await;
    store.close().await;
    // After a clean stop, and after one that was not: the pass over everything comes to the same.
    let store = place.open().await;
    check(&store).await;
    store.close().await;
    fs_err::remove_file(place.layout().clean_mark()).unwrap();
    let store = place.open().await;
    check(&store).await;

    store.restate(&a, Artifact::Zip, verified()).await.unwrap();
    assert_eq!(exported(&place, &a), ("i-zh".to_owned(), "v1.1.0\n".to_owned()));
    store.restate(&a, Artifact::Mod, verified()).await.unwrap();
    assert_eq!(exported(&place, &a), ("imzh".to_owned(), "v1.0.0\nv1.1.0\n".to_owned()));
    assert_eq!(waiting(&store).await, (0, vec![]));
    assert!(!place.published().keys().any(|name| name.ends_with(".unverified")));
    assert_agreement(&place, &store, &[a, b]).await;
}

#[tokio::test]
async fn the_index_lists_all_of_it_in_pieces() {
    let place = Place::new();
    let store = place.open().await;
    let mut modules: Vec<_> = (0..5).map(|n| module(&format!("example.com/m{n}@v1.0.0"))).collect();
    for one in &modules {
        commit_unverified(&store, one).await;
    }
    commit_all(&store, &module("example.com/m0@v1.1.0")).await;
    modules.sort_by_key(ToString::to_string);
    let names: Vec<_> = modules.iter().map(ToString::to_string).collect();
    let (count, mut all) = waiting(&store).await;
    all.sort();
    assert_eq!((count, all), (10, names));
}

#[tokio::test]
async fn what_comes_verified_takes_its_place() {
    let place = Place::new();
    let store = place.open().await;
    let one = module("example.com/a@v1.0.0");
    commit_unverified(&store, &one).await;
    // The same bytes, vouched for.
    commit(&store, &one, Artifact::Mod).await;
    assert_eq!(exported(&place, &one), ("im--".to_owned(), "v1.0.0\n".to_owned()));
    // Other bytes are refused while the first are there, and heal what is lost.
    let other = b"other".as_slice();
    let offered = record(Artifact::Zip, other);
    let refused = commit_as(&store, &one, Artifact::Zip, other, offered.clone()).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })));
    let lies = place.layout().version(&one).unwrap().body(Artifact::Zip, &State::Unverified);
    fs_err::write(&lies, "torn").unwrap();
    commit_as(&store, &one, Artifact::Zip, other, offered).await.unwrap();
    assert_eq!(served(&store, &one, Artifact::Zip).await.unwrap(), other);
    assert_eq!(exported(&place, &one).0, "imzh");
    assert!(!lies.exists());
}

#[tokio::test]
async fn what_is_contradicted_goes_to_quarantine() {
    let place = Place::new();
    let store = place.open().await;
    let one = module("example.com/a@v1.0.0");
    commit_unverified(&store, &one).await;
    assert_eq!(hits(&store, &one).await, "imz");
    store.reject(&one, Artifact::Zip, note(Artifact::Zip)).await.unwrap();
    store.reject(&one, Artifact::Mod, note(Artifact::Mod)).await.unwrap();
    assert_eq!(hits(&store, &one).await, "i--");
    assert!(!place.published().keys().any(|name| name.ends_with(".unverified")));
    let kept = fs_err::read_dir(place.layout().quarantine()).unwrap().count();
    assert_eq!(kept, 4, "two bodies and two notes");
    assert_agreement(&place, &store, std::slice::from_ref(&one)).await;
    commit_all(&store, &one).await;
    assert_eq!(exported(&place, &one).0, "imzh");
}

#[tokio::test]
async fn killed_between_the_file_and_its_record_it_is_still_served() {
    let place = Place::new();
    let store = place.open().await;
    let one = module("example.com/a@v1.0.0");
    commit_unverified(&store, &one).await;
    store.close().await;
    let files = place.layout().version(&one).unwrap();
    for artifact in [Artifact::Mod, Artifact::Zip] {
        fs_err::rename(files.body(artifact, &State::Unverified), files.artifact(artifact)).unwrap();
    }
    fs_err::remove_file(place.layout().clean_mark()).unwrap();
    let store = place.open().await;
    assert_eq!(hits(&store, &one).await, "imz");
    assert_eq!(waiting(&store).await.0, 2);
    store.restate(&one, Artifact::Mod, verified()).await.unwrap();
    commit(&store, &one, Artifact::Zip).await;
    assert_eq!(hits(&store, &one).await, "imz");
    assert_eq!(exported(&place, &one).0, "imzh");
    assert_agreement(&place, &store, &[one]).await;
}
