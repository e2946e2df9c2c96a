//! Taking out what a checksum database contradicts.

use tokio::task::JoinSet;

use super::*;

/// What the quarantine holds, notes first.
fn quarantined(place: &Place) -> (Vec<serde_json::Value>, Vec<Vec<u8>>) {
    let (mut notes, mut bodies) = (Vec::new(), Vec::new());
    for entry in fs_err::read_dir(place.layout().quarantine()).unwrap() {
        let path = entry.unwrap().path();
        let text = fs_err::read(&path).unwrap();
        if path.extension().unwrap() == "json" {
            notes.push(serde_json::from_slice(&text).unwrap());
        } else {
            bodies.push(text);
        }
    }
    (notes, bodies)
}

#[tokio::test]
async fn what_is_rejected_is_gone_and_other_bytes_may_come() {
    async fn check(rejected: Artifact, expected: &str, listed: &[&str]) {
        let place = Place::new();
        let store = place.open().await;
        let (a, b) = (module("example.com/a@v1.0.0"), module("example.com/a@v1.1.0"));
        commit_all(&store, &a).await;
        commit_all(&store, &b).await;
        assert_eq!(hits(&store, &a).await, "imz", "and the sidecar is in memory now");
        store.reject(&a, rejected, note(rejected)).await.unwrap();

        assert_eq!(hits(&store, &a).await, expected);
        assert_eq!(versions(&store, "example.com/a").await, listed);
        assert_eq!(store.sidecar(&a).await.unwrap().unwrap().of(rejected), None);
        assert!(!place.published().contains_key(&a.escaped_file(rejected)));
        let both = [a.clone(), b.clone()];
        assert_agreement(&place, &store, &both).await;
        let (notes, bodies) = quarantined(&place);
        assert_eq!(bodies, [body(&a, rejected)]);
        assert_eq!(notes.len(), 1);
        assert_eq!(notes[0]["reason"], "does not match");
        // Once more: there is nothing.
        store.reject(&a, rejected, note(rejected)).await.unwrap();
        assert_eq!(quarantined(&place).1.len(), 1);

        // What is on disk says the same.
        store.close().await;
        let store = place.open().await;
        assert_eq!(hits(&store, &a).await, expected);
        assert_agreement(&place, &store, &both).await;

        let other = format!("other bytes of {a}{rejected}").into_bytes();
        let offered = record(rejected, &other);
        let sidecar = commit_as(&store, &a, rejected, &other, offered.clone()).await.unwrap();
        assert_eq!(sidecar.of(rejected), Some(&offered));
        assert_eq!(sidecar.records().count(), 3);
        assert_eq!(served(&store, &a, rejected).await.unwrap(), other);
        assert_eq!(versions(&store, "example.com/a").await, ["v1.0.0", "v1.1.0"]);
        let hash = place.published()[&format!("{}hash", a.escaped_file(Artifact::Zip))].clone();
        let zip = if rejected == Artifact::Zip { other } else { body(&a, Artifact::Zip) };
        assert_eq!(String::from_utf8(hash).unwrap(), H1::of_go_mod(&zip).to_string());
    }
    check(Artifact::Info, "-mz", &["v1.1.0"]).await;
    check(Artifact::Mod, "i-z", &["v1.1.0"]).await;
    check(Artifact::Zip, "im-", &["v1.0.0", "v1.1.0"]).await;
}

#[tokio::test]
async fn a_version_may_be_rejected_wholly() {
    let place = Place::new();
    let store = place.open().await;
    let a = module("example.com/a@v1.0.0");
    commit_all(&store, &a).await;
    for artifact in Artifact::ALL {
        store.reject(&a, artifact, note(artifact)).await.unwrap();
    }
    assert_eq!(hits(&store, &a).await, "---");
    assert!(place.published().is_empty());
    assert_eq!(quarantined(&place).1.len(), 3);
    assert_agreement(&place, &store, std::slice::from_ref(&a)).await;
    commit_all(&store, &a).await;
    assert_agreement(&place, &store, &[a]).await;
}

#[tokio::test]
async fn nothing_to_reject() {
    let place = Place::new();
    let store = place.open().await;
    let a = module("example.com/a@v1.0.0");
    store.reject(&a, Artifact::Zip, note(Artifact::Zip)).await.unwrap();
    commit(&store, &a, Artifact::Info).await;
    store.reject(&a, Artifact::Zip, note(Artifact::Zip)).await.unwrap();
    assert_eq!(hits(&store, &a).await, "i--");
    // Memory that knows more than the disk is no reason to go on serving.
    fs_err::remove_file(place.layout().version(&a).unwrap().sidecar()).unwrap();
    store.reject(&a, Artifact::Info, note(Artifact::Info)).await.unwrap();
    assert_eq!(hits(&store, &a).await, "---");
    assert!(!place.layout().quarantine().exists() || quarantined(&place).1.is_empty());
}

#[tokio::test]
async fn an_entry_whose_file_is_lost_is_rejected() {
    let place = Place::new();
    let store = place.open().await;
    let a = module("example.com/a@v1.0.0");
    commit_all(&store, &a).await;
    fs_err::remove_file(place.layout().version(&a).unwrap().artifact(Artifact::Zip)).unwrap();
    store.reject(&a, Artifact::Zip, note(Artifact::Zip)).await.unwrap();
    let other = b"other".as_slice();
    commit_as(&store, &a, Artifact::Zip, other, record(Artifact::Zip, other)).await.unwrap();
    assert_eq!(served(&store, &a, Artifact::Zip).await.unwrap(), other);
}

#[tokio::test]
async fn a_body_without_room_in_the_quarantine_is_removed() {
    let place = Place::new();
    let options = Options { quarantine_bytes: 0, ..Options::new(place.path()) };
    let store = Store::open(options).await.unwrap();
    let a = module("example.com/a@v1.0.0");
    commit_all(&store, &a).await;
    store.reject(&a, Artifact::Zip, note(Artifact::Zip)).await.unwrap();
    assert!(!place.published().contains_key(&a.escaped_file(Artifact::Zip)));
    assert_agreement(&place, &store, &[a]).await;
}

#[tokio::test]
async fn a_quarantine_that_cannot_be_written_keeps_nothing_served() {
    let place = Place::new();
    let store = place.open().await;
    let a = module("example.com/a@v1.0.0");
    commit_all(&store, &a).await;
    let dir = place.layout().quarantine();
    if dir.exists() {
        fs_err::remove_dir(&dir).unwrap();
    }
    fs_err::write(&dir, "no directory").unwrap();
    store.reject(&a, Artifact::Zip, note(Artifact::Zip)).await.unwrap_err();
    assert_eq!(hits(&store, &a).await, "im-");
    assert!(!place.published().contains_key(&a.escaped_file(Artifact::Zip)));
    assert_agreement(&place, &store, &[a]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rejections_and_commits_of_one_version_do_not_lose_each_other() {
    let place = Place::new();
    let store = place.open().await;
    let modules: Vec<_> = (0..16).map(|n| module(&format!("example.com/a@v1.{n}.0"))).collect();
    for one in &modules {
        commit(&store, one, Artifact::Zip).await;
    }
    // With the pass over everything of a first open at the same time.
    let mut tasks = JoinSet::new();
    for one in &modules {
        let (rejecting, rejected) = (store.clone(), one.clone());
        tasks.spawn(async move {
            rejecting.reject(&rejected, Artifact::Zip, note(Artifact::Zip)).await.unwrap();
        });
        for artifact in [Artifact::Info, Artifact::Mod] {
            let (store, one) = (store.clone(), one.clone());
            tasks.spawn(async move { commit(&store, &one, artifact).await });
        }
    }
    tasks.join_all().await;
    for one in &modules {
        assert_eq!(hits(&store, one).await, "im-", "{one}");
    }
    assert_eq!(quarantined(&place).1.len(), modules.len());
    assert_agreement(&place, &store, &modules).await;
}
