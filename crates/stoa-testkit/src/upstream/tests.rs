use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::Gate;

const LIST: &str = "/ex.com/hello/@v/list";

fn modules() -> Modules {
    Modules::parse("-- ex.com/hello@v1.0.0/hello.go --\npackage hello\n")
}

/// What is seen on the wire until the server closes, and the error it ends with, if any.
async fn get(upstream: &FakeUpstream, path: &str) -> (String, Option<std::io::ErrorKind>) {
    let mut stream = TcpStream::connect(upstream.address()).await.unwrap();
    ask(&mut stream, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
    read_all(&mut stream).await
}

async fn ask(stream: &mut TcpStream, request: &str) {
    stream.write_all(request.as_bytes()).await.unwrap();
}

async fn read_all(stream: &mut TcpStream) -> (String, Option<std::io::ErrorKind>) {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    let end = tokio::time::timeout(PATIENCE, end).await.expect("the server closes");
    (latin1(&bytes), end.err().map(|error| error.kind()))
}

/// A character for each byte, so that nothing is lost.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

async fn read_exactly(stream: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    let read = stream.read_exact(&mut bytes);
    tokio::time::timeout(PATIENCE, read).await.expect("the server sends that much").unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

const HEAD: &str = "HTTP/1.1 200 Fake\r\nContent-Type: text/plain; charset=utf-8\r\n";

#[tokio::test]
async fn each_fault_is_seen_on_the_wire() {
    #[track_caller]
    fn check(seen: &(String, Option<std::io::ErrorKind>), expected: &str) {
        assert_eq!(seen, &(expected.to_owned(), None));
    }
    async fn with(fault: Fault) -> (String, Option<std::io::ErrorKind>) {
        let upstream = FakeUpstream::start(modules());
        upstream.fault("*/list", fault);
        get(&upstream, LIST).await
    }
    let whole = format!("{HEAD}Content-Length: 7\r\n\r\nv1.0.0\n");

    check(&get(&FakeUpstream::start(modules()), LIST).await, &whole);
    check(
        &with(Fault::status(503).text("later\n").retry_after(7)).await,
        "HTTP/1.1 503 Fake\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 7\r\n\
         Content-Length: 6\r\n\r\nlater\n",
    );
    check(
        &with(Fault::status(403).body("text/html", "<p>")).await,
        "HTTP/1.1 403 Fake\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\n<p>",
    );
    check(
        &with(Fault::redirect("/else").text("")).await,
        "HTTP/1.1 302 Fake\r\nContent-Type: text/plain; charset=utf-8\r\nLocation: /else\r\n\
         Content-Length: 0\r\n\r\n",
    );
    check(&with(Fault::replace("junk")).await, &format!("{HEAD}Content-Length: 4\r\n\r\njunk"));
    check(&with(Fault::truncate(3)).await, &format!("{HEAD}Content-Length: 7\r\n\r\nv1."));
    check(&with(Fault::truncate(99)).await, &whole);
    check(
        &with(Fault::content_length(3)).await,
        &format!("{HEAD}Content-Length: 3\r\n\r\nv1.0.0\n"),
    );
    check(&with(Fault::close()).await, "");
    check(
        &with(Fault::chunked()).await,
        &format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n7\r\nv1.0.0\n\r\n0\r\n\r\n"),
    );
    check(
        &with(Fault::cut_chunked(3)).await,
        &format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n3\r\nv1.\r\n"),
    );
    check(&with(Fault::raw("SSH-2.0\r\n")).await, "SSH-2.0\r\n");
    check(&with(Fault::drip(2, Duration::from_millis(1))).await, &whole);
    check(
        &with(Fault::status(500).text("no").with(Fault::truncate(1))).await,
        "HTTP/1.1 500 Fake\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\n\r\nn",
    );

    check(&with(Fault::flip_byte(7 + 2)).await, &whole.replace("v1.0.0", "v1\u{d1}0.0"));
    let (seen, _) = with(Fault::gzip()).await;
    assert!(seen.contains("Content-Encoding: gzip\r\nContent-Length: 30\r\n"), "{seen}");
    assert_ne!(with(Fault::damaged_gzip()).await.0, seen);
    assert_eq!(with(Fault::reset()).await.1, Some(std::io::ErrorKind::ConnectionReset));
    assert_eq!(with(Fault::reset_after(3)).await.1, Some(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn an_info_can_name_another_version() {
    let upstream = FakeUpstream::start(modules());
    upstream.fault("*.info", Fault::version("v1.0.9"));
    let (seen, _) = get(&upstream, "/ex.com/hello/@v/v1.0.0.info").await;
    assert!(seen.contains(r#""Version":"v1.0.9""#), "{seen}");
    assert!(seen.contains(r#""Time":"2024-01-02T03:04:05Z""#), "{seen}");
}

#[tokio::test]
async fn a_hang_lasts_until_the_client_leaves() {
    let mut upstream = FakeUpstream::start(modules());
    upstream.fault("*/list", Fault::hang());
    upstream.fault("*.info", Fault::hang_after(3));
    let mut silent = TcpStream::connect(upstream.address()).await.unwrap();
    ask(&mut silent, &format!("GET {LIST} HTTP/1.1\r\n\r\n")).await;
    let mut stalled = TcpStream::connect(upstream.address()).await.unwrap();
    ask(&mut stalled, "GET /ex.com/hello/@v/v1.0.0.info HTTP/1.1\r\n\r\n").await;
    let head =
        "HTTP/1.1 200 Fake\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{\"V";
    read_exactly(&mut stalled, head).await;
    upstream.wait_for_requests("*", 2).await;
    let mut byte = [0];
    let pause = Duration::from_millis(50);
    assert!(tokio::time::timeout(pause, stalled.read(&mut byte)).await.is_err());
    assert!(tokio::time::timeout(pause, silent.read(&mut byte)).await.is_err());
    // Stopping the server ends them too.
    upstream.stop();
    assert_eq!(read_all(&mut stalled).await.0, "");
    assert_eq!(read_all(&mut silent).await.0, "");
}

#[tokio::test]
async fn a_gate_holds_answers_until_it_opens() {
    let upstream = FakeUpstream::start(modules());
    let gate = Gate::new();
    upstream.fault("*/list", Fault::gate_after(&gate, 3));
    upstream.fault("*.mod", Fault::gate(&gate));
    let mut list = TcpStream::connect(upstream.address()).await.unwrap();
    ask(&mut list, &format!("GET {LIST} HTTP/1.1\r\nConnection: close\r\n\r\n")).await;
    read_exactly(&mut list, &format!("{HEAD}Content-Length: 7\r\n\r\nv1.")).await;
    let mut go_mod = TcpStream::connect(upstream.address()).await.unwrap();
    ask(&mut go_mod, "GET /ex.com/hello/@v/v1.0.0.mod HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    gate.wait_for_held(2).await;
    gate.open();
    assert_eq!(read_all(&mut list).await, ("0.0\n".to_owned(), None));
    let body = format!("{HEAD}Content-Length: 20\r\n\r\nmodule ex.com/hello\n");
    assert_eq!(read_all(&mut go_mod).await, (body.clone(), None));
    // It stays open.
    assert_eq!(get(&upstream, "/ex.com/hello/@v/v1.0.0.mod").await, (body, None));
}

#[tokio::test]
async fn a_fault_can_be_for_the_first_requests_alone() {
    let upstream = FakeUpstream::start(modules());
    upstream.fault("*", Fault::status(500).first(2));
    upstream.fault("*/list", Fault::status(404).first(1));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(get(&upstream, LIST).await.0[9..12].to_owned());
    }
    assert_eq!(statuses, ["404", "500", "500", "200"]);
    upstream.fault(
        Pattern::when(|request| request.header("authorization").is_none()),
        Fault::status(401),
    );
    assert_eq!(get(&upstream, LIST).await.0[9..12], *"401");
    upstream.clear_faults();
    assert_eq!(get(&upstream, LIST).await.0[9..12], *"200");
}

#[tokio::test]
async fn requests_are_logged_in_order() {
    let upstream = FakeUpstream::start(modules());
    let mut stream = TcpStream::connect(upstream.address()).await.unwrap();
    ask(&mut stream, "HEAD /ex.com/%21hello/@v/list?x HTTP/1.1\r\nVia: 1.1 me\r\n\r\n").await;
    ask(&mut stream, &format!("GET {LIST} HTTP/1.1\r\n\r\n")).await;
    ask(&mut stream, &format!("POST {LIST} HTTP/1.1\r\nConnection: Close\r\n\r\n")).await;
    let (seen, end) = read_all(&mut stream).await;
    assert_eq!(end, None);
    let statuses: Vec<_> = seen.matches("HTTP/1.1 ").collect();
    assert_eq!(statuses.len(), 3, "{seen}");
    assert_eq!(
        upstream.request_lines(),
        ["HEAD /ex.com/!hello/@v/list", "GET /ex.com/hello/@v/list", "POST /ex.com/hello/@v/list"]
    );
    let first = upstream.wait_for_request("HEAD *").await;
    assert_eq!(first.target, "/ex.com/%21hello/@v/list?x");
    assert_eq!(first.header("via"), Some("1.1 me"));
    assert!(upstream.requests().iter().all(|request| request.connection == 0));
    assert_eq!(upstream.count("*/list"), 3);
    assert_eq!(upstream.count("GET *"), 1);
    assert_eq!(upstream.count("GET /nothing"), 0);
    upstream.forget_requests();
    assert_eq!(upstream.count("*"), 0);
}

#[tokio::test]
async fn a_head_has_no_body() {
    let upstream = FakeUpstream::start(modules());
    let mut stream = TcpStream::connect(upstream.address()).await.unwrap();
    ask(&mut stream, &format!("HEAD {LIST} HTTP/1.1\r\nConnection: close\r\n\r\n")).await;
    let expected = format!("{HEAD}Content-Length: 7\r\n\r\n");
    assert_eq!(read_all(&mut stream).await, (expected, None));
}

#[tokio::test]
async fn it_can_go_and_come_back() {
    let mut upstream = FakeUpstream::start(modules());
    upstream.stop();
    let refused = TcpStream::connect(upstream.address()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    upstream.resume();
    assert!(get(&upstream, LIST).await.0.ends_with("v1.0.0\n"));
    upstream.publish(Modules::parse("-- ex.com/hello@v1.1.0/x.go --\npackage hello\n"));
    assert!(get(&upstream, LIST).await.0.ends_with("v1.0.0\nv1.1.0\n"));
    upstream.replace_modules(Modules::default());
    assert_eq!(get(&upstream, LIST).await.0[9..12], *"404");
    upstream.mute();
    let connecting = TcpStream::connect(upstream.address());
    assert!(tokio::time::timeout(Duration::from_millis(300), connecting).await.is_err());
    upstream.resume();
    assert_eq!(get(&upstream, LIST).await.0[9..12], *"404");
}

#[tokio::test]
async fn databases_are_served_by_name() {
    let sumdb = FakeSumdb::new("sum.test.example/path", &modules());
    let upstream = FakeUpstream::start(modules()).with_sumdb(&sumdb);
    let path = "/sumdb/sum.test.example/path";
    assert!(get(&upstream, &format!("{path}/supported")).await.0.starts_with("HTTP/1.1 200"));
    let lookup = sumdb.lookup_path("ex.com/hello@v1.0.0");
    let expected = latin1(sumdb.lookup("ex.com/hello@v1.0.0").unwrap().as_bytes());
    assert!(get(&upstream, &lookup).await.0.ends_with(&expected));
    assert_eq!(get(&upstream, "/sumdb/sum.test.example/supported").await.0[9..12], *"404");
    let fork = sumdb.fork(0);
    upstream.set_sumdb(&fork);
    let expected_of_fork = latin1(fork.lookup("ex.com/hello@v1.0.0").unwrap().as_bytes());
    assert_ne!(expected_of_fork, expected);
    assert!(get(&upstream, &lookup).await.0.ends_with(&expected_of_fork));
    assert_eq!(upstream.sumdb_url(&sumdb), format!("{}{path}", upstream.url()));
    // And as the database itself.
    let own = get(&upstream, "/lookup/ex.com/hello@v1.0.0").await.0;
    assert!(own.ends_with(&expected_of_fork), "{own}");
}

#[tokio::test]
async fn the_rest_of_a_file_is_given_under_its_validator() {
    let upstream = FakeUpstream::start(modules());
    upstream.give_ranges();
    let (whole, _) = get(&upstream, LIST).await;
    let etag = whole.split("ETag: ").nth(1).unwrap().lines().next().unwrap().to_owned();
    let ask_for = async |range: &str, etag: &str| {
        let mut stream = TcpStream::connect(upstream.address()).await.unwrap();
        let headers = format!("Range: {range}\r\nIf-Range: {etag}\r\nConnection: close");
        ask(&mut stream, &format!("GET {LIST} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n")).await;
        read_all(&mut stream).await.0
    };
    let rest = ask_for("bytes=4-", &etag).await;
    assert!(rest.starts_with("HTTP/1.1 206 Fake\r\n"), "{rest}");
    assert!(rest.contains("\r\nContent-Range: bytes 4-6/7\r\n"), "{rest}");
    assert!(rest.ends_with("\r\n\r\n.0\n"), "{rest}");
    assert_eq!(ask_for("bytes=4-", "\"other\"").await, whole);
    assert_eq!(ask_for("bytes=7-", &etag).await, whole);
    // A fault changes the bytes and not the validator.
    upstream.fault(LIST, Fault::replace("v9.9.9\n"));
    assert!(ask_for("bytes=4-", &etag).await.ends_with("\r\n\r\n.9\n"));
}

#[tokio::test]
async fn a_fault_behind_a_gate_waits_for_it() {
    let upstream = FakeUpstream::start(modules());
    let gate = Gate::new();
    upstream.fault("*/list", Fault::truncate(5).behind(&gate, 3));
    let mut stream = TcpStream::connect(upstream.address()).await.unwrap();
    ask(&mut stream, &format!("GET {LIST} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    read_exactly(&mut stream, &format!("{HEAD}Content-Length: 7\r\n\r\nv1.")).await;
    gate.wait_for_held(1).await;
    gate.open();
    assert_eq!(read_all(&mut stream).await, ("0.".to_owned(), None));
}
