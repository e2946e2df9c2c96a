//! What is asked, and what the statuses mean.

use stoa_module::ErrorClass;

use super::server::{Do, Server, head, ok, reply};
use super::{AMPLE, client, get, short, source};
use crate::{Bounds, Failure, Source, Use};

#[tokio::test]
async fn asks_as_the_go_command_does() {
    let server = Server::start(|_, _| ok(b"v1.0.0\n")).await;
    let client = client();
    let check = async |base: &str, path: &str, expected: &str| {
        let base = source(&format!("{}{base}", server.url()));
        assert_eq!(client.get(&base, Use::Modules, path, &AMPLE, "").await.unwrap(), "v1.0.0\n");
        let asked = server.asked().pop().unwrap();
        assert_eq!(asked.line(), format!("GET {expected} HTTP/1.1"));
    };
    check("", "rsc.io/quote/@v/list", "/rsc.io/quote/@v/list").await;
    check("/", "rsc.io/quote/@latest", "/rsc.io/quote/@latest").await;
    check("/go/", "rsc.io/quote/@v/list", "/go/rsc.io/quote/@v/list").await;
    check("/a%20b", "x.org/y/@v/list", "/a%20b/x.org/y/@v/list").await;
    let escaped = "/github.com/%21burnt%21sushi/toml/@v/v1.0.0-%21r%21c1.info";
    check("", "github.com/!burnt!sushi/toml/@v/v1.0.0-!r!c1.info", escaped).await;
    let plus = "/x.org/y/@v/v2.0.0+incompatible.zip";
    check("", "x.org/y/@v/v2.0.0+incompatible.zip", plus).await;
    check("", "x.org/~a/b_c-d/@v/a%2F?b#c.info", "/x.org/~a/b_c-d/@v/a%252F%3Fb%23c.info").await;
    check(
        "",
        "sumdb/sum.golang.org/tile/8/0/x001/234.p/7",
        "/sumdb/sum.golang.org/tile/8/0/x001/234.p/7",
    )
    .await;
    // All over one connection.
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn says_who_asks() {
    let server = Server::start(|_, _| ok(b"")).await;
    let source = source(&server.url());
    let directory = tempfile::tempdir().unwrap();
    let file = fs_err::tokio::File::create(directory.path().join("zip")).await.unwrap();
    let client = client();
    client
        .get(&source, Use::Modules, "a/@v/list", &AMPLE, "1.1 cdn, 1.1 stoa-other")
        .await
        .unwrap();
    client.download(&source, Use::Modules, "a/@v/v1.0.0.zip", &AMPLE, "", &file).await.unwrap();
    let [small, large] = &server.asked()[..] else { panic!("two requests") };
    assert_eq!(small.header("via"), Some("1.1 cdn, 1.1 stoa-other, 1.1 stoa-test"));
    assert_eq!(small.header("user-agent"), Some("stoa/test"));
    assert_eq!(small.header("accept-encoding"), Some("gzip"));
    assert_eq!(small.header("authorization"), None);
    assert_eq!(large.header("via"), Some("1.1 stoa-test"));
    assert_eq!(large.header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn never_asks_outside_the_base() {
    let server = Server::start(|_, _| ok(b"")).await;
    let client = client();
    let source = source(&server.url());
    for path in
        ["", "/", "a//b", "../x", "a/../../x", "a/./b", "a/b/", "/etc/passwd", "a\\b", "a\0b"]
    {
        let failure = client.get(&source, Use::Modules, path, &AMPLE, "").await.unwrap_err();
        assert_eq!(short(&failure), "invalid local 0: impossible file name", "{path:?}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn statuses() {
    let client = client();
    let check = async |status: u16, headers: &'static str, expected: &str| {
        let server = Server::start(move |_, _| reply(status, headers, b"")).await;
        let failure = get(&client, &server.url()).await.unwrap_err();
        assert_eq!(short(&failure), expected);
        assert_eq!(failure.tries as usize, server.asked().len());
        failure
    };
    check(201, "", "corrupt http 1: http 201").await;
    check(206, "", "corrupt http 1: http 206").await;
    check(304, "", "corrupt http 1: http 304").await;
    check(302, "", "corrupt http 1: http 302").await;
    check(400, "", "unavailable http 1: http 400").await;
    check(401, "", "denied http 1: http 401").await;
    check(402, "", "unavailable http 1: http 402").await;
    check(403, "", "denied http 1: http 403").await;
    check(404, "", "not_found http 1: http 404").await;
    check(405, "", "unavailable http 1: http 405").await;
    check(410, "", "not_found http 1: http 410").await;
    check(429, "", "unavailable http 1: http 429").await;
    check(451, "", "unavailable http 1: http 451").await;
    check(500, "", "unavailable http 1: http 500").await;
    check(501, "", "unavailable http 1: http 501").await;
    check(502, "", "unavailable http 3: http 502").await;
    check(503, "", "unavailable http 3: http 503").await;
    check(504, "", "unavailable http 3: http 504").await;
    // Waited for if it is short; told if it is not.
    let failure = check(429, "Retry-After: 0\r\n", "unavailable http 3: http 429").await;
    assert_eq!(failure.retry_after.unwrap().as_secs(), 0);
    for status in [429, 503] {
        let expected = format!("unavailable http 1: http {status}");
        let failure = check(status, "Retry-After: 120\r\n", &expected).await;
        assert_eq!(failure.retry_after.unwrap().as_secs(), 120);
        let date = "Retry-After: Fri, 31 Dec 2100 23:59:59 GMT\r\n";
        let failure = check(status, date, &expected).await;
        assert_eq!(failure.retry_after.unwrap().as_secs(), 24 * 60 * 60);
    }
}

#[tokio::test]
async fn no_content_is_no_answer() {
    let server = Server::start(|_, _| vec![Do::Send(head(204, ""))]).await;
    let failure = get(&client(), &server.url()).await.unwrap_err();
    assert_eq!(short(&failure), "corrupt http 1: http 204");
}

#[tokio::test]
async fn passes_on_the_upstreams_words() {
    let client = client();
    let check = async |content_type: &str, body: &[u8], expected: Option<&str>| {
        let headers = format!("Content-Type: {content_type}\r\n");
        let body = body.to_vec();
        let server = Server::start(move |_, _| reply(403, &headers, &body)).await;
        let failure = get(&client, &server.url()).await.unwrap_err();
        assert_eq!(failure.text.as_deref(), expected);
        let host = server.addr();
        let shown = match expected {
            Some(text) => format!("{host}: http 403: {text}"),
            None => format!("{host}: http 403"),
        };
        assert_eq!(failure.to_string(), shown);
    };
    check(
        "text/plain",
        b"access needs a token\nask for one\nthird",
        Some("access needs a token; ask for one"),
    )
    .await;
    check("text/plain; charset=utf-8", "über".as_bytes(), Some("über")).await;
    check("text/plain; charset=latin1", b"words", None).await;
    check("text/html", b"<h1>words</h1>", None).await;
    check("application/json", b"{}", None).await;
    check("text/plain", b"\x1b[2Jwords", None).await;
    check("text/plain", b"", None).await;
}

#[tokio::test]
async fn a_refusal_whose_words_do_not_come_is_still_a_refusal() {
    let server = Server::start(|_, _| {
        let mut bytes = head(403, "Content-Type: text/plain\r\nContent-Length: 100\r\n");
        bytes.extend_from_slice(b"so far");
        vec![Do::Send(bytes), Do::Stall]
    })
    .await;
    let failure = get(&client(), &server.url()).await.unwrap_err();
    assert_eq!(short(&failure), "denied http 1: http 403");
    assert_eq!(failure.text.as_deref(), Some("so far"));
}

#[tokio::test]
async fn an_absence_keeps_the_connection() {
    let client = client();
    let check = async |answer: Vec<Do>| {
        let server = Server::start(move |_, _| answer.clone()).await;
        for _ in 0..3 {
            let failure = get(&client, &server.url()).await.unwrap_err();
            assert_eq!(short(&failure), "not_found http 1: http 404");
        }
        assert_eq!(server.connections(), 1);
    };
    check(reply(404, "Content-Type: text/html\r\n", b"<p>no</p>")).await;
    check(reply(404, "Content-Type: text/plain\r\n", b"no")).await;
    let mut chunked = head(404, "Transfer-Encoding: chunked\r\n");
    chunked.extend_from_slice(b"2\r\nno\r\n0\r\n\r\n");
    check(vec![Do::Send(chunked)]).await;
}

#[tokio::test]
async fn gzip() {
    /// `printf 'v1.0.0\n' | gzip -n`
    const LIST: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x2b\x33\xd4\x33\xd0\x33\xe0\x02\x00\xa4\x33\x68\x5e\x07\x00\x00\x00";
    let client = client();
    let check = async |coding: &str, body: &[u8], expected: Result<&[u8], &str>| {
        let headers = format!("Content-Encoding: {coding}\r\n");
        let body = body.to_vec();
        let server = Server::start(move |_, _| reply(200, &headers, &body)).await;
        let outcome = get(&client, &server.url()).await;
        assert_eq!(outcome.as_deref().map_err(short), expected.map_err(str::to_owned));
    };
    check("gzip", LIST, Ok(b"v1.0.0\n")).await;
    check("gzip", b"", Ok(b"")).await;
    check("identity", b"v1", Ok(b"v1")).await;
    check(
        "br",
        b"v1",
        Err("corrupt http 1: an answer in a content encoding that was not asked for"),
    )
    .await;
}

#[tokio::test]
async fn sources_that_are_never_asked() {
    let client = client();
    let bounds = Bounds { max_bytes: 1, ..AMPLE };
    let check = async |source: Source, expected: &str| {
        let failure =
            client.get(&source, Use::Modules, "a/@v/list", &bounds, "").await.unwrap_err();
        assert_eq!(failure.class, ErrorClass::NotFound);
        assert_eq!(short(&failure), expected);
        let Failure { source: name, .. } = failure;
        assert_eq!(name, source.name());
    };
    check(Source::Direct, "not_found git 0: nothing is fetched from repositories here").await;
    check(Source::Off, "not_found local 0: GOPROXY=off ends the list of sources here").await;
}

#[tokio::test]
async fn can_be_asked_from_any_thread() {
    fn is_send(future: impl Future + Send) {
        drop(future);
    }
    let client = client();
    let directory = tempfile::tempdir().unwrap();
    let file = fs_err::tokio::File::create(directory.path().join("zip")).await.unwrap();
    is_send(client.get(&Source::Off, Use::Modules, "a", &AMPLE, ""));
    is_send(client.download(&Source::Off, Use::Modules, "a", &AMPLE, "", &file));
}
