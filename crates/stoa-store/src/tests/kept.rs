//! Mutable answers and the files of checksum databases.

use bytes::Bytes;
use stoa_module::{ErrorClass, Query};

use super::*;
use crate::{Answer, AnswerKey};

fn answer(body: &str) -> Answer {
    Answer {
        body: Bytes::from(body.to_owned()),
        fetched_at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        source: "proxy.example.com".into(),
    }
}

#[test]
fn places_of_answers() {
    fn check(key: &AnswerKey, expected: &str) {
        let layout = Layout::new("/d".into());
        let found = layout.answer(key).unwrap();
        assert_eq!(found.to_str().unwrap(), format!("/d/cache/answers/{expected}"));
    }
    let a = || path("github.com/Azure/a");
    let query = |text: &str| AnswerKey::Query(a(), Query::parse(text).unwrap());
    check(&AnswerKey::List(a()), "github.com/!azure/a/@v/list");
    check(&AnswerKey::Latest(a()), "github.com/!azure/a/@latest");
    check(&query("master"), "github.com/!azure/a/@v/master.info");
    check(&query("HEAD"), "github.com/!azure/a/@v/!h!e!a!d.info");
    check(&query(&"x".repeat(250)), &format!("github.com/!azure/a/@v/{}.info", "x".repeat(250)));
    let digest = Sha256::of(format!("{}.info", "x".repeat(251)).as_bytes());
    check(&query(&"x".repeat(251)), &format!("github.com/!azure/a/@v/!!{digest}"));
}

#[tokio::test]
async fn answers_are_replaced_and_survive_a_restart() {
    let place = Place::new();
    let store = place.open().await;
    let key = AnswerKey::List(path("example.com/a"));
    assert_eq!(store.answer(&key).await.unwrap(), None);
    store.put_answer(&key, answer("v1.0.0\n")).await.unwrap();
    store.put_answer(&key, answer("v1.0.0\nv1.1.0\n")).await.unwrap();
    let latest = AnswerKey::Latest(path("example.com/a"));
    store.put_answer(&latest, answer("")).await.unwrap();
    let long = AnswerKey::Query(path("example.com/a"), Query::parse(&"y".repeat(900)).unwrap());
    store.put_answer(&long, answer("\n\n{}\n")).await.unwrap();
    store.close().await;
    let store = place.open().await;
    assert_eq!(*store.answer(&key).await.unwrap().unwrap(), answer("v1.0.0\nv1.1.0\n"));
    assert_eq!(*store.answer(&latest).await.unwrap().unwrap(), answer(""));
    assert_eq!(*store.answer(&long).await.unwrap().unwrap(), answer("\n\n{}\n"));
    // What is asked for again is in memory.
    fs_err::remove_dir_all(place.layout().answers()).unwrap();
    assert_eq!(*store.answer(&latest).await.unwrap().unwrap(), answer(""));
    // They are apart from what a file:// client sees.
    assert!(place.published().is_empty());
    assert!(versions(&store, "example.com/a").await.is_empty());
}

#[tokio::test]
async fn a_torn_answer_is_none() {
    let place = Place::new();
    let options = Options { memory_bytes: 0, ..Options::new(place.path()) };
    let store = Store::open(options).await.unwrap();
    let key = AnswerKey::List(path("example.com/a"));
    store.put_answer(&key, answer("v1.0.0\nv1.1.0\n")).await.unwrap();
    let file = place.layout().answer(&key).unwrap();
    let whole = fs_err::read(&file).unwrap();
    for length in 0..whole.len() {
        fs_err::write(&file, &whole[..length]).unwrap();
        assert_eq!(store.answer(&key).await.unwrap(), None, "cut to {length}");
        let mut zeros = whole.clone();
        zeros[length..].fill(0);
        fs_err::write(&file, &zeros).unwrap();
        assert_eq!(store.answer(&key).await.unwrap(), None, "zeros from {length}");
    }
    fs_err::write(&file, [&whole[..], b"more"].concat()).unwrap();
    assert_eq!(store.answer(&key).await.unwrap(), None);
    store.put_answer(&key, answer("v1.2.0\n")).await.unwrap();
    assert_eq!(*store.answer(&key).await.unwrap().unwrap(), answer("v1.2.0\n"));
}

#[test]
fn places_of_checksum_databases() {
    fn check(name: &str, file: &str, expected: Result<&str, ErrorClass>) {
        let layout = Layout::new("/d".into());
        let found = layout.sumdb(name, file);
        let found = found.as_ref().map(|path| path.to_str().unwrap());
        let found = found.map_err(Error::class);
        let expected = expected.map(|path| format!("/d/cache/download/sumdb/{path}"));
        assert_eq!(found.map(str::to_owned), expected, "{name:?} {file:?}");
    }
    let refused = || Err(ErrorClass::Invalid);
    check("sum.golang.org", "latest", Ok("sum.golang.org/latest"));
    check("sum.golang.org", "tile/8/0/x001/067.p/7", Ok("sum.golang.org/tile/8/0/x001/067.p/7"));
    check(
        "sum.golang.org",
        "lookup/github.com/!azure/a@v1.0.0-!r!c1",
        Ok("sum.golang.org/lookup/github.com/!azure/a@v1.0.0-!r!c1"),
    );
    check("sums.example.com/go/one", "supported", Ok("sums.example.com/go/one/supported"));
    check("localhost:8080", "latest", Ok("localhost:8080/latest"));
    for odd in ["", "/", "..", ".", "../x", "a/../b", "a/..", "/etc/passwd", "a//b", "a/"] {
        check("sum.golang.org", odd, refused());
        check(odd, "latest", refused());
    }
    for odd in ["a\\..\\b", "nul\0", "line\nfeed", "\u{7f}"] {
        check("sum.golang.org", odd, refused());
    }
    let long = format!("{}@v1.0.0", "a".repeat(300));
    let digest = Sha256::of(long.as_bytes());
    check(
        "sum.golang.org",
        &format!("lookup/example.com/{long}"),
        Ok(&format!("sum.golang.org/lookup/example.com/!!{digest}")),
    );
    check("sum.golang.org", &"a/".repeat(3000), refused());
    check("sum.golang.org", &format!("lookup{}", "/a".repeat(3000)), refused());
}

#[tokio::test]
async fn files_of_checksum_databases() {
    let place = Place::new();
    let store = place.open().await;
    let name = "sums.example.com/go";
    assert_eq!(store.sumdb_read(name, "latest").await.unwrap(), None);
    store.sumdb_write(name, "latest", "one".into()).await.unwrap();
    store.sumdb_write(name, "latest", "two".into()).await.unwrap();
    store.sumdb_write(name, "supported", Bytes::new()).await.unwrap();
    assert_eq!(store.sumdb_read(name, "latest").await.unwrap().unwrap(), "two");
    assert_eq!(store.sumdb_read(name, "supported").await.unwrap().unwrap(), "");
    assert_eq!(store.sumdb_read(name, "latest/below").await.unwrap(), None);
    assert_eq!(store.sumdb_read("sums.example.com", "go").await.unwrap(), None, "a directory");

    assert!(store.sumdb_partial_widths(name, "tile/8/0/001").await.unwrap().is_empty());
    for width in ["200", "7", "64", "0", "256", "07", "x"] {
        let file = format!("tile/8/0/001.p/{width}");
        store.sumdb_write(name, &file, "hashes".into()).await.unwrap();
    }
    let widths = store.sumdb_partial_widths(name, "tile/8/0/001").await.unwrap();
    assert_eq!(widths, [7, 64, 200]);

    for odd in ["../../../../etc/passwd", "lookup/../../x", "/etc/passwd"] {
        let error = store.sumdb_write(name, odd, "x".into()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Invalid, "{odd}");
        assert_eq!(store.sumdb_read(name, odd).await.unwrap_err().class(), ErrorClass::Invalid);
        let error = store.sumdb_partial_widths(name, odd).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Invalid, "{odd}");
    }
    // No module lives there, so the index has nothing of it, even rebuilt.
    store.close().await;
    fs_err::remove_file(place.layout().database()).unwrap();
    let store = place.open().await;
    store.index_completed().await;
    assert_eq!(store.counts().await.unwrap().artifacts, 0);
    assert_eq!(store.sumdb_read(name, "latest").await.unwrap().unwrap(), "two");
}
