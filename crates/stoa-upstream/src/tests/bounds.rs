//! Bodies that stall, break and lie; what is tried again, and for how long.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use fs_err::tokio::File;
use stoa_module::Sha256;
use tokio::io::AsyncSeekExt as _;

use super::server::{Do, Server, head, ok, reply};
use super::{AMPLE, client, settings, short, source};
use crate::{Bounds, Client, Downloaded, Settings, Use};

const SMALL: Bounds = Bounds { header: AMPLE.header, max_bytes: 1000 };

fn hasty() -> Client {
    Client::new(Settings { stall_timeout: Duration::from_millis(400), ..settings() }).unwrap()
}

/// A head that announces `length` bytes, and some of them.
fn begun(length: usize, body: &[u8]) -> Do {
    let mut bytes = head(200, &format!("Content-Length: {length}\r\n"));
    bytes.extend_from_slice(body);
    Do::Send(bytes)
}

fn chunked(headers: &str, body: &[u8]) -> Do {
    let mut bytes = head(200, &format!("Transfer-Encoding: chunked\r\n{headers}"));
    bytes.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(b"\r\n");
    Do::Send(bytes)
}

fn last_chunk() -> Do {
    Do::Send(b"0\r\n\r\n".to_vec())
}

#[tokio::test]
async fn bodies() {
    let client = hasty();
    let check = async |answer: Vec<Do>, expected: Result<&[u8], &str>| {
        let server = Server::start(move |_, _| answer.clone()).await;
        let source = source(&server.url());
        let outcome = client.get(&source, Use::Modules, "a/@v/list", &SMALL, "").await;
        assert_eq!(outcome.as_deref().map_err(short), expected.map_err(str::to_owned));
    };
    let zipped = "Content-Encoding: gzip\r\n";
    let small = gzip(b"v1.0.0\n");
    let too_large = Err("corrupt body 1: body: larger than the limit of 1000 bytes");

    check(ok(&[b'a'; 1000]), Ok(&[b'a'; 1000])).await;
    check(ok(&[b'a'; 1001]), too_large).await;
    // Not even waited for.
    check(vec![begun(1001, b""), Do::Stall], too_large).await;
    check(vec![chunked("", &[b'a'; 1000]), last_chunk()], Ok(&[b'a'; 1000])).await;
    check(vec![chunked("", &[b'a'; 1001]), Do::Stall], too_large).await;
    check(
        vec![Do::Send(head(200, "")), Do::Send(b"to the end".to_vec()), Do::Close],
        Ok(b"to the end"),
    )
    .await;

    let stalled = "timeout body 1: body: timeout: it stalled for 400 ms after 4 bytes";
    check(vec![begun(10, b"four"), Do::Stall], Err(stalled)).await;
    check(vec![chunked("", b"four"), Do::Stall], Err(stalled)).await;

    check(
        vec![begun(10, b"four"), Do::Close],
        Err("corrupt body 3: body: cut off after 4 of 10 bytes"),
    )
    .await;
    check(
        vec![chunked("", b"four"), Do::Close],
        Err("corrupt body 3: body: cut off after 4 bytes"),
    )
    .await;
    check(
        vec![chunked("", b"four"), Do::Send(b"no length\r\n".to_vec()), Do::Stall],
        Err("corrupt body 3: body: malformed (Invalid chunk size line: missing size digit) after 4 bytes"),
    )
    .await;

    check(vec![chunked(zipped, &small), last_chunk()], Ok(b"v1.0.0\n")).await;
    let half = &small[..small.len() - 4];
    let broken = "corrupt body 3: body: bad gzip (unexpected end of file)";
    check(vec![chunked(zipped, half), last_chunk()], Err(&format!("{broken} after 7 bytes"))).await;
    check(reply(200, zipped, half), Err(&format!("{broken} after 7 bytes"))).await;
    check(
        reply(200, zipped, b"no gzip at all, no"),
        Err("corrupt body 3: body: bad gzip (Invalid gzip header) after 0 bytes"),
    )
    .await;
    check(reply(200, zipped, &gzip(&vec![0; 5_000_000])), too_large).await;
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_reset_in_the_body() {
    let client = Client::new(Settings { retries: 1, ..settings() }).unwrap();
    let server = Server::start(|_, _| {
        // The pause lets the client read before the reset takes away what was sent.
        vec![begun(10, b"four"), Do::Pause(Duration::from_millis(300)), Do::Reset]
    })
    .await;
    let failure =
        client.get(&source(&server.url()), Use::Modules, "a", &AMPLE, "").await.unwrap_err();
    assert_eq!(short(&failure), "unavailable body 1: body: connection reset after 4 of 10 bytes");
}

#[tokio::test]
async fn a_trickle_is_a_stall() {
    let client = hasty();
    let server =
        Server::start(|_, _| vec![begun(1000, b""), Do::Trickle(Duration::from_millis(10))]).await;
    let failure =
        client.get(&source(&server.url()), Use::Modules, "a", &AMPLE, "").await.unwrap_err();
    let expected = "timeout body 1: body: timeout: it stalled for 400 ms after ";
    assert!(short(&failure).starts_with(expected), "{failure}");
}

#[tokio::test]
async fn what_is_said_after_the_announced_length_is_not_heard() {
    let client = client();
    let server = Server::start(|_, _| vec![begun(4, b"four and more"), Do::Stall]).await;
    for _ in 0..2 {
        let body = client.get(&source(&server.url()), Use::Modules, "a", &AMPLE, "").await.unwrap();
        assert_eq!(body, "four");
    }
}

#[tokio::test]
async fn silence_before_the_header() {
    let client = client();
    let bounds = Bounds { header: Duration::from_millis(100), ..AMPLE };
    let server = Server::start(|_, _| vec![Do::Stall]).await;
    let failure =
        client.get(&source(&server.url()), Use::Modules, "a", &bounds, "").await.unwrap_err();
    assert_eq!(short(&failure), "timeout http 1: http: timeout after 100 ms");
}

#[tokio::test]
async fn the_header_bound_is_for_all_tries_together() {
    let client = client();
    let bounds = Bounds { header: Duration::from_secs(1), ..AMPLE };
    let server = Server::start(|_, _| {
        let mut answer = vec![Do::Pause(Duration::from_millis(600))];
        answer.extend(reply(503, "", b""));
        answer
    })
    .await;
    let began = Instant::now();
    let failure =
        client.get(&source(&server.url()), Use::Modules, "a", &bounds, "").await.unwrap_err();
    assert_eq!(short(&failure), "timeout http 2: http: timeout after 1 s");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_pause_that_the_bound_cannot_afford_is_not_made() {
    let client = client();
    let bounds = Bounds { header: Duration::from_millis(900), ..AMPLE };
    let server = Server::start(|_, _| reply(503, "Retry-After: 1\r\n", b"")).await;
    let failure =
        client.get(&source(&server.url()), Use::Modules, "a", &bounds, "").await.unwrap_err();
    assert_eq!(short(&failure), "unavailable http 1: http 503");
}

#[tokio::test]
async fn the_header_bound_is_not_one_on_the_body() {
    let client = client();
    let bounds = Bounds { header: Duration::from_millis(900), ..AMPLE };
    let server = Server::start(|_, number| {
        let pause = Do::Pause(Duration::from_millis(300));
        let end = if number == 0 { Do::Close } else { Do::Send(b"end".to_vec()) };
        vec![begun(8, b"fou"), pause.clone(), Do::Send(b"r,".to_vec()), pause, end]
    })
    .await;
    let body = client.get(&source(&server.url()), Use::Modules, "a", &bounds, "").await.unwrap();
    assert_eq!(body, "four,end");
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn tries_heal() {
    let client = client();
    let check = async |first: Vec<Do>| {
        let server =
            Server::start(move |_, number| if number == 0 { first.clone() } else { ok(b"whole") })
                .await;
        let source = source(&server.url());
        assert_eq!(client.get(&source, Use::Modules, "a", &AMPLE, "").await.unwrap(), "whole");
        assert_eq!(server.asked().len(), 2);
    };
    check(vec![Do::Reset]).await;
    check(vec![Do::Close]).await;
    check(reply(502, "", b"")).await;
    check(reply(429, "Retry-After: 0\r\n", b"")).await;
    check(vec![begun(10, b"torn"), Do::Close]).await;
    check(vec![begun(10, b"torn"), Do::Reset]).await;
}

#[tokio::test]
async fn one_try_means_one() {
    let client = Client::new(Settings { retries: 0, ..settings() }).unwrap();
    let server = Server::start(|_, _| reply(503, "", b"")).await;
    let failure =
        client.get(&source(&server.url()), Use::Modules, "a", &AMPLE, "").await.unwrap_err();
    assert_eq!(short(&failure), "unavailable http 1: http 503");
    assert_eq!(server.asked().len(), 1);
}

/// More than two write buffers.
fn large() -> Vec<u8> {
    (0..700_000_u32).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

#[tokio::test]
async fn downloads() {
    let client = client();
    let body = large();
    let sent = body.clone();
    let server = Server::start(move |_, number| match number {
        // Longer than what follows, and not what it should be.
        0 => vec![begun(800_000, &[b'x'; 750_000]), Do::Close],
        _ => ok(&sent),
    })
    .await;
    let path = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(path.path(), vec![b'y'; 900_000]).unwrap();
    let mut file = file(path.path()).await;
    let source = source(&server.url());
    let downloaded =
        client.download(&source, Use::Modules, "a.zip", &AMPLE, "", &file).await.unwrap();
    assert_eq!(downloaded, Downloaded { bytes: 700_000, sha256: Sha256::of(&body) });
    assert_eq!(file.stream_position().await.unwrap(), 700_000);
    assert!(fs_err::read(path.path()).unwrap() == body);
}

async fn file(path: &Path) -> File {
    fs_err::tokio::OpenOptions::new().write(true).open(path).await.unwrap()
}

#[tokio::test]
async fn downloads_of_nothing() {
    let client = client();
    let server = Server::start(|_, _| ok(b"")).await;
    let path = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(path.path(), "before").unwrap();
    let file = file(path.path()).await;
    let source = source(&server.url());
    let downloaded = client.download(&source, Use::Modules, "a", &AMPLE, "", &file).await.unwrap();
    assert_eq!(downloaded, Downloaded { bytes: 0, sha256: Sha256::of(b"") });
    assert_eq!(file.metadata().await.unwrap().len(), 0);
}

#[tokio::test]
async fn downloads_are_capped() {
    let client = client();
    let server =
        Server::start(|_, _| vec![Do::Send(head(200, "")), Do::Send(large()), Do::Close]).await;
    let bounds = Bounds { max_bytes: 699_999, ..AMPLE };
    let path = tempfile::NamedTempFile::new().unwrap();
    let file = file(path.path()).await;
    let source = source(&server.url());
    let failure =
        client.download(&source, Use::Modules, "a", &bounds, "", &file).await.unwrap_err();
    assert_eq!(short(&failure), "corrupt body 1: body: larger than the limit of 699999 bytes");
    assert!(file.metadata().await.unwrap().len() < 700_000);
}

#[tokio::test]
async fn a_file_that_cannot_be_written() {
    let client = client();
    let server = Server::start(|_, _| ok(b"body")).await;
    let path = tempfile::NamedTempFile::new().unwrap();
    let file = File::open(path.path()).await.unwrap();
    let source = source(&server.url());
    let failure = client.download(&source, Use::Modules, "a", &AMPLE, "", &file).await.unwrap_err();
    assert_eq!(short(&failure), "internal local 1: cannot store it: invalid input parameter");
}
