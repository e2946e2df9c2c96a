//! Downloads that break off: continued where the source says by a strong validator that it is the same, else begun again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fs_err::tokio::File;
use stoa_module::Sha256;

use super::server::{Asked, Do, Server, head, reply};
use super::{AMPLE, client, settings, short, source};
use crate::{Client, Destination, Downloaded, Failure, Settings, Use, Watch};

const BODY: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const STRONG: &str = "ETag: \"one\"\r\n";

fn sent(headers: &str, length: usize, body: &[u8]) -> Do {
    let mut bytes = head(200, &format!("{headers}Content-Length: {length}\r\n"));
    bytes.extend_from_slice(body);
    Do::Send(bytes)
}

/// The first ten bytes, then nothing.
fn broken(headers: &str, end: Do) -> Vec<Do> {
    vec![sent(headers, BODY.len(), &BODY[..10]), end]
}

fn part(headers: &str, range: &str, body: &[u8]) -> Vec<Do> {
    reply(206, &format!("{headers}Content-Range: bytes {range}\r\n"), body)
}

/// An honest answer to a request for a range.
fn honest(asked: &Asked) -> Vec<Do> {
    match asked.header("range") {
        None => reply(200, STRONG, BODY),
        Some(range) => {
            let from = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap();
            let from: usize = from.parse().unwrap();
            part(STRONG, &format!("{from}-35/36"), &BODY[from..])
        }
    }
}

/// What was asked for each time: the range, or nothing.
fn ranges(server: &Server) -> Vec<String> {
    let asked = server.asked();
    for asked in &asked {
        let both = asked.header("range").is_some() == asked.header("if-range").is_some();
        assert!(both, "{asked:?}");
        assert!(asked.header("if-range").is_none_or(|tag| tag == "\"one\""), "{asked:?}");
    }
    let range = |asked: &Asked| asked.header("range").unwrap_or_default().to_owned();
    asked.iter().map(range).collect()
}

/// Holds on to what has come, as one who has given it away.
#[derive(Debug, Default)]
struct Watcher {
    begun: Mutex<Vec<Option<u64>>>,
    grown: Mutex<Vec<u64>>,
    holds_on: AtomicBool,
}

impl Watch for Watcher {
    fn begins(&self, length: Option<u64>) -> bool {
        self.begun.lock().unwrap().push(length);
        true
    }

    fn grows(&self, bytes: u64) {
        self.grown.lock().unwrap().push(bytes);
    }

    fn begins_again(&self) -> bool {
        !self.holds_on.load(Ordering::SeqCst)
    }
}

async fn download(
    client: &Client,
    server: &Server,
    watch: Option<Arc<dyn Watch>>,
) -> Result<(Downloaded, Vec<u8>), Failure> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let opened = File::options().write(true).open(file.path()).await.unwrap();
    let into = Destination { file: &opened, room: u64::MAX, watch };
    let source = source(&server.url());
    let done = client.download(&source, Use::Modules, "a/@v/v1.0.0.zip", &AMPLE, "", into).await?;
    Ok((done, fs_err::read(file.path()).unwrap()))
}

/// The first answer breaks off; then comes `then`, then the honest one. Gives the ranges that were asked for, and what
/// went wrong, once for those who may begin again and once for those who may not.
async fn check(first: &[Do], then: &[Do], asked: &[&str], outcomes: [Result<(), &str>; 2]) {
    for (holds_on, expected) in [false, true].into_iter().zip(outcomes) {
        let (first, then) = (first.to_owned(), then.to_owned());
        let server = Server::start(move |asked, number| match number {
            0 => first.clone(),
            1 if !then.is_empty() => then.clone(),
            _ => honest(asked),
        });
        let server = server.await;
        let watcher = Arc::new(Watcher::default());
        watcher.holds_on.store(holds_on, Ordering::SeqCst);
        let done = download(&hasty(), &server, Some(watcher)).await;
        assert_eq!(
            done.as_ref().map(|_| ()).map_err(short),
            expected.map_err(str::to_owned),
            "holds on: {holds_on}; {:?}",
            ranges(&server)
        );
        let all = ranges(&server);
        match done {
            Ok((downloaded, bytes)) => {
                assert_eq!(all, asked, "holds on: {holds_on}");
                assert_eq!(String::from_utf8(bytes).unwrap().as_bytes(), BODY);
                let whole = Downloaded { bytes: 36, sha256: Sha256::of(BODY) };
                assert_eq!(downloaded, whole);
            }
            Err(_) => assert!(asked.starts_with(&all.iter().map(|r| &**r).collect::<Vec<_>>())),
        }
    }
}

fn hasty() -> Client {
    Client::new(Settings { stall_timeout: Duration::from_millis(300), ..settings() }).unwrap()
}

const BOTH: [Result<(), &str>; 2] = [Ok(()), Ok(())];

#[tokio::test]
async fn it_is_continued_under_the_same_strong_validator() {
    for end in [Do::Close, Do::Reset, Do::Stall] {
        check(&broken(STRONG, end), &[], &["", "bytes=10-"], BOTH).await;
    }
    // And once more from where that ends.
    let more =
        head(206, &format!("{STRONG}Content-Range: bytes 10-35/36\r\nContent-Length: 26\r\n"));
    let more = [&more[..], &BODY[10..20]].concat();
    let then = [Do::Send(more), Do::Close];
    check(&broken(STRONG, Do::Close), &then, &["", "bytes=10-", "bytes=20-"], BOTH).await;
    // A fault in between says nothing about what is here.
    let busy = reply(503, "", b"busy");
    check(&broken(STRONG, Do::Close), &busy, &["", "bytes=10-", "bytes=10-"], BOTH).await;
    check(&broken(STRONG, Do::Close), &[Do::Reset], &["", "bytes=10-", "bytes=10-"], BOTH).await;
}

#[tokio::test]
async fn without_one_it_begins_again_where_that_may_be() {
    let cut = Err("corrupt body 1: body: cut off after 10 of 36 bytes");
    for headers in [
        "",
        "ETag: W/\"one\"\r\n",
        "ETag: one\r\n",
        "Last-Modified: Sat, 21 Nov 2026 09:00:00 GMT\r\n",
        "ETag: \"one\"\r\nAccept-Ranges: none\r\n",
    ] {
        check(&broken(headers, Do::Close), &[], &["", ""], [Ok(()), cut]).await;
    }
    // Nobody knows how much is missing.
    let mut chunked = head(200, &format!("{STRONG}Transfer-Encoding: chunked\r\n"));
    chunked.extend_from_slice(b"a\r\n0123456789\r\n");
    let cut = Err("corrupt body 1: body: cut off after 10 bytes");
    check(&[Do::Send(chunked), Do::Close], &[], &["", ""], [Ok(()), cut]).await;
    // A stall has cost its time already.
    let stalled = Err("timeout body 1: body: timeout: it stalled for 300 ms after 10 bytes");
    check(&broken("", Do::Stall), &[], &[""], [stalled, stalled]).await;
}

async fn lies(then: Vec<Do>, asked: &[&str], outcomes: [Result<(), &str>; 2]) {
    check(&broken(STRONG, Do::Close), &then, asked, outcomes).await;
}

#[tokio::test]
async fn an_upstream_that_lies_about_the_rest() {
    let from_zero: &[&str] = &["", "bytes=10-", ""];
    let refused = |words: &'static str| [Ok(()), Err(words)];
    let other = "corrupt body 2: body: it broke off, and the rest is of another document";
    lies(part("ETag: \"two\"\r\n", "10-35/36", &BODY[10..]), from_zero, refused(other)).await;
    lies(part("ETag: W/\"one\"\r\n", "10-35/36", &BODY[10..]), from_zero, refused(other)).await;
    lies(part("", "10-35/36", &BODY[10..]), from_zero, refused(other)).await;
    for (range, body) in [
        ("9-35/36", &BODY[9..]),
        ("11-35/36", &BODY[11..]),
        ("10-34/35", &BODY[10..35]),
        ("10-36/37", &b"abcdefghijklmnopqrstuvwxyz!"[..]),
        ("10-20/36", &BODY[10..21]),
        ("10-35/*", &BODY[10..]),
        ("0-35/36", BODY),
    ] {
        let words = format!(
            "corrupt body 2: body: sent bytes {range} instead of bytes 10 to the end of 36"
        );
        let outcomes = [Ok(()), Err(&*words)];
        lies(part(STRONG, range, body), from_zero, outcomes).await;
    }
    let no_range =
        "corrupt body 2: body: sent no range at all instead of bytes 10 to the end of 36";
    lies(reply(206, STRONG, &BODY[10..]), from_zero, refused(no_range)).await;
    lies(
        reply(416, "Content-Range: bytes */5\r\n", b""),
        from_zero,
        refused("unavailable http 2: http 416"),
    )
    .await;
    // The length contradicts the range.
    let long =
        head(206, &format!("{STRONG}Content-Range: bytes 10-35/36\r\nContent-Length: 27\r\n"));
    let words = "corrupt body 2: body: the length of its rest is not that of the range";
    lies(vec![Do::Send(long), Do::Stall], from_zero, refused(words)).await;
    // Another document, from its start: taken as it is by those who may begin again.
    let whole = "corrupt body 2: body: it broke off, and can only come again as a whole";
    lies(reply(200, "ETag: \"two\"\r\n", BODY), &["", "bytes=10-"], refused(whole)).await;
    // It has gone.
    let gone = [Err("not_found http 2: http 404"); 2];
    lies(reply(404, "", b""), &["", "bytes=10-"], gone).await;
}

/// A redirect leads to another host, whose validators are its own.
#[tokio::test]
async fn another_host_does_not_continue_it() {
    let elsewhere = Server::start(|asked, _| honest(asked)).await;
    let to = elsewhere.url();
    let server = Server::start(move |asked, number| match number {
        0 => broken(STRONG, Do::Close),
        1 => super::server::redirect(&format!("{to}/moved")),
        _ => honest(asked),
    });
    let server = server.await;
    let (downloaded, bytes) = download(&client(), &server, None).await.unwrap();
    assert_eq!((bytes.as_slice(), downloaded.sha256), (BODY, Sha256::of(BODY)));
    assert_eq!(ranges(&server), ["", "bytes=10-", ""]);
    assert_eq!(ranges(&elsewhere), ["bytes=10-"]);
}

/// What has come is in the file, and told, before anything more comes.
#[tokio::test]
async fn those_who_watch_get_what_has_come() {
    let server = Server::start(|asked, _| match asked.header("range") {
        None => vec![sent(STRONG, BODY.len(), &BODY[..1]), Do::Stall],
        Some(_) => honest(asked),
    });
    let server = server.await;
    let watcher = Arc::new(Watcher::default());
    watcher.holds_on.store(true, Ordering::SeqCst);
    let (_, bytes) = download(&hasty(), &server, Some(watcher.clone())).await.unwrap();
    assert_eq!(bytes, BODY);
    assert_eq!(*watcher.begun.lock().unwrap(), [Some(36)]);
    let grown = watcher.grown.lock().unwrap();
    assert_eq!((grown[0], grown.last()), (1, Some(&36)), "{grown:?}");
}
