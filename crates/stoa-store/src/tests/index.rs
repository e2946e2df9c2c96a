//! The index may be locked, lost, damaged or behind; what is served never is.

use sqlx::{Connection, SqliteConnection};

use super::*;
use crate::index::Row;

async fn filled(place: &Place) -> Vec<ModuleVersion> {
    let store = place.open().await;
    let modules = some_modules();
    for one in &modules {
        commit_all(&store, one).await;
    }
    store.close().await;
    modules
}

fn some_modules() -> Vec<ModuleVersion> {
    [
        "example.com/a@v1.0.0",
        "example.com/a@v1.1.0",
        "github.com/B/b/v2@v2.0.0-20240202030405-bbaab31090cb",
    ]
    .map(module)
    .into()
}

/// Another program in the same database.
async fn intruder(place: &Place) -> SqliteConnection {
    let file = format!("sqlite://{}", place.layout().database().display());
    SqliteConnection::connect(&file).await.unwrap()
}

#[tokio::test]
async fn a_clean_stop_needs_no_rebuild() {
    let place = Place::new();
    let modules = filled(&place).await;
    assert!(place.layout().clean_mark().exists());
    let store = place.open().await;
    assert!(!place.layout().clean_mark().exists(), "taken away before anything is written");
    assert!(store.counts().await.unwrap().complete);
    assert_agreement(&place, &store, &modules).await;
    store.check_index().await.unwrap();
}

#[tokio::test]
async fn a_lost_index_is_rebuilt() {
    async fn check(what: &str, lose: impl Fn(&Place)) {
        let place = Place::new();
        let modules = filled(&place).await;
        lose(&place);
        let store = place.open().await;
        for one in &modules {
            assert_eq!(hits(&store, one).await, "imz", "{what}");
        }
        assert_agreement(&place, &store, &modules).await;
        store.close().await;
        let store = place.open().await;
        assert!(store.counts().await.unwrap().complete, "{what}: the next open trusts it");
        assert_agreement(&place, &store, &modules).await;
    }
    let database = |place: &Place| place.layout().database();
    check("deleted", |place| fs_err::remove_file(database(place)).unwrap()).await;
    check("unclean", |place| fs_err::remove_file(place.layout().clean_mark()).unwrap()).await;
    check("empty", |place| fs_err::write(database(place), "").unwrap()).await;
    check("another mark", |place| {
        fs_err::write(place.layout().clean_mark(), "of another time").unwrap();
    })
    .await;
    check("deleted, with a log of it left", |place| {
        fs_err::rename(database(place), database(place).with_extension("db-wal")).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_damaged_index_is_moved_aside() {
    async fn check(what: &str, is_noticed_at_open: bool, damage: impl Fn(&mut Vec<u8>)) {
        let place = Place::new();
        let mut modules = filled(&place).await;
        let file = place.layout().database();
        let mut bytes = fs_err::read(&file).unwrap();
        damage(&mut bytes);
        fs_err::write(&file, bytes).unwrap();

        let store = place.open().await;
        let aside = file.with_extension("db.corrupt");
        assert!(!is_noticed_at_open || aside.exists(), "{what}");
        // Noticed by the next write at the latest.
        let later = module("example.com/later@v1.0.0");
        commit_all(&store, &later).await;
        modules.push(later);
        store.flush_index().await;
        assert!(aside.exists(), "{what}");
        assert_agreement(&place, &store, &modules).await;
    }
    check("garbage", true, |bytes| bytes.fill(b'x')).await;
    check("cut off", true, |bytes| bytes.truncate(5000)).await;
    check("all pages but the first", true, |bytes| bytes[4096..].fill(0xa5)).await;
    // The pages of artifacts, found by what they hold; the rest stays whole.
    check("pages of rows", false, |bytes| {
        let name = b"proxy.example.com";
        for page in bytes.chunks_mut(4096) {
            if page.windows(name.len()).any(|window| window == name) {
                page.fill(0xa5);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn garbage_in_the_log_of_the_index() {
    // As a kill and a bad disk leave it: a log that is none, beside a database that is one.
    for garbage in [vec![b'x'; 50_000], vec![0; 50_000], b"short".to_vec()] {
        let place = Place::new();
        let modules = filled(&place).await;
        for suffix in ["db-wal", "db-shm"] {
            fs_err::write(place.layout().database().with_extension(suffix), &garbage).unwrap();
        }
        let store = place.open().await;
        assert_eq!(hits(&store, &modules[0]).await, "imz");
        assert_agreement(&place, &store, &modules).await;
    }
    // Under a running server.
    let place = Place::new();
    let mut modules = filled(&place).await;
    let store = place.open().await;
    commit_all(&store, &modules[0]).await;
    let later = module("example.com/later@v1.0.0");
    commit_all(&store, &later).await;
    modules.push(later);
    store.flush_index().await;
    let log = place.layout().database().with_extension("db-wal");
    let length = fs_err::metadata(&log).unwrap().len() as usize;
    let mut file = fs_err::OpenOptions::new().write(true).open(&log).unwrap();
    std::io::Write::write_all(&mut file, &vec![0xa5; length]).unwrap();
    let last = module("example.com/last@v1.0.0");
    commit_all(&store, &last).await;
    modules.push(last);
    for one in &modules {
        assert_eq!(hits(&store, one).await, "imz");
    }
    store.flush_index().await;
    // What the log held may be gone without anybody noticing, but not after the next start.
    fs_err::remove_file(place.layout().clean_mark()).ok();
    store.close().await;
    fs_err::remove_file(place.layout().clean_mark()).ok();
    assert_agreement(&place, &place.open().await, &modules).await;
}

#[tokio::test]
async fn a_database_with_another_schema_is_moved_aside() {
    let place = Place::new();
    let modules = filled(&place).await;
    let mut other = intruder(&place).await;
    sqlx::query("drop table artifacts").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    let store = place.open().await;
    commit(&store, &modules[0], Artifact::Zip).await;
    store.flush_index().await;
    assert_agreement(&place, &store, &modules).await;
    assert!(place.layout().database().with_extension("db.corrupt").exists());
}

#[tokio::test]
async fn a_database_deleted_under_the_server_is_rebuilt() {
    let place = Place::new();
    let mut modules = filled(&place).await;
    let store = place.open().await;
    commit_all(&store, &modules[0]).await;
    store.flush_index().await;
    for suffix in ["db", "db-wal", "db-shm"] {
        let file = place.layout().database().with_extension(suffix);
        if file.exists() {
            fs_err::remove_file(file).unwrap();
        }
    }
    let later = module("example.com/later@v1.0.0");
    commit_all(&store, &later).await;
    modules.push(later);
    store.flush_index().await;
    assert_agreement(&place, &store, &modules).await;
    store.close().await;
    assert_agreement(&place, &place.open().await, &modules).await;
}

#[tokio::test]
async fn a_locked_database_hinders_nobody() {
    let place = Place::new();
    let mut modules = filled(&place).await;
    let store = place.open().await;
    let mut other = intruder(&place).await;
    sqlx::query("begin exclusive").execute(&mut other).await.unwrap();

    let later = module("example.com/later@v1.0.0");
    commit_all(&store, &later).await;
    for one in modules.iter().chain([&later]) {
        assert_eq!(hits(&store, one).await, "imz");
    }
    assert_eq!(store.counts().await.unwrap().artifacts, 9, "the rows wait for the lock");

    sqlx::query("rollback").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    store.flush_index().await;
    modules.push(later);
    assert_agreement(&place, &store, &modules).await;
}

#[tokio::test]
async fn a_database_locked_at_open_hinders_nobody() {
    let place = Place::new();
    let modules = filled(&place).await;
    let mut other = intruder(&place).await;
    sqlx::query("pragma locking_mode = exclusive").execute(&mut other).await.unwrap();
    sqlx::query("begin exclusive").execute(&mut other).await.unwrap();
    sqlx::query("update meta set value = value").execute(&mut other).await.unwrap();

    let store = place.open().await;
    assert!(store.check_index().await.is_err());
    for one in &modules {
        assert_eq!(hits(&store, one).await, "imz");
    }
    assert_eq!(versions(&store, "example.com/a").await, ["v1.0.0", "v1.1.0"]);
    let later = module("example.com/later@v1.0.0");
    commit_all(&store, &later).await;
    assert_eq!(hits(&store, &later).await, "imz");

    other.close().await.unwrap();
    let modules = [modules, vec![later]].concat();
    assert_agreement(&place, &store, &modules).await;
    store.check_index().await.unwrap();
}

#[tokio::test]
async fn an_index_that_fell_behind_is_rebuilt() {
    let place = Place::new();
    let modules = filled(&place).await;
    let store = place.open().await;
    let mut other = intruder(&place).await;
    sqlx::query("begin exclusive").execute(&mut other).await.unwrap();
    // More than the queue holds, and then a commit whose row finds no place.
    let row = |artifact| {
        let record = record(artifact, &body(&modules[0], artifact));
        Row { module: modules[0].clone(), artifact, record: Some(record) }
    };
    for number in 0..10_000 {
        store.offer_row(row(Artifact::ALL[number % 3]));
    }
    let later = module("example.com/later@v1.0.0");
    commit_all(&store, &later).await;
    assert!(!store.counts().await.unwrap().complete);
    sqlx::query("rollback").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    assert_agreement(&place, &store, &[modules, vec![later]].concat()).await;
}

#[tokio::test]
async fn rows_of_what_is_gone_leave_with_a_rebuild() {
    let place = Place::new();
    let modules = filled(&place).await;
    fs_err::remove_dir_all(place.layout().module_dir(modules[2].path()).unwrap()).unwrap();
    fs_err::remove_file(place.layout().clean_mark()).unwrap();
    let store = place.open().await;
    assert_agreement(&place, &store, &modules[..2]).await;
    assert_eq!(store.counts().await.unwrap().modules, 1);
}

#[tokio::test]
async fn rows_hold_what_is_searched_for() {
    let place = Place::new();
    let modules = filled(&place).await;
    let store = place.open().await;
    let one = &modules[2];
    let text = body(one, Artifact::Mod);
    let state = State::Exempt { pattern: "github.com/B/*".into() };
    let unverified = ArtifactRecord { state, ..record(Artifact::Zip, &text) };
    let exempt = module("github.com/B/c@v1.0.0");
    commit_as(&store, &exempt, Artifact::Zip, &text, unverified).await.unwrap();
    store.flush_index().await;
    let mut other = intruder(&place).await;
    // One text a row, as a person at the sqlite3 prompt would see it.
    let rows: Vec<String> = sqlx::query_scalar(
        "select concat_ws('|', path, version, kind, size, sha256, h1, state, state_detail, first_seen)
         from artifacts join versions on versions.id = version_id
         join modules on modules.id = module_id
         where path like 'github.com/B/%' and kind = 'zip' order by path",
    )
    .fetch_all(&mut other)
    .await
    .unwrap();
    let expected = |module: &ModuleVersion, bytes: &[u8], state: &str| {
        let (size, sha256, h1) = (bytes.len(), Sha256::of(bytes), H1::of_go_mod(bytes));
        let (path, version) = (module.path(), module.version());
        format!("{path}|{version}|zip|{size}|{sha256}|{h1}|{state}|1767323045000")
    };
    let zip = body(one, Artifact::Zip);
    assert_eq!(
        rows,
        [
            expected(one, &zip, "verified|sum.example.com"),
            expected(&exempt, &text, "exempt|github.com/B/*"),
        ]
    );
}
