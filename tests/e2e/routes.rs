//! The protocol by route: what is answered, with which headers, and what the upstream is asked for it.

use std::time::Duration;

use stoa_testkit::{FakeUpstream, Fault, Gate, Modules};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fixtures::{World, modules, noise};
use crate::stoa::{Setup, Stoa};

const ZIP: &str = "ex.com/lib/@v/v1.0.0.zip";

#[tokio::test]
async fn a_cold_file_is_the_upstreams_and_a_warm_one_asks_nobody() {
    let world = World::new();
    let stoa = world.setup().start();
    let modules = modules();
    let files = [
        (
            "ex.com/lib/@v/v1.0.0.info",
            modules.info("ex.com/lib@v1.0.0").into_bytes(),
            "application/json",
        ),
        (
            "ex.com/lib/@v/v1.0.0.mod",
            modules.go_mod("ex.com/lib@v1.0.0").to_vec(),
            "text/plain; charset=utf-8",
        ),
        (ZIP, modules.zip("ex.com/lib@v1.0.0").to_vec(), "application/zip"),
        (
            "ex.com/!upper/!case/@v/v1.0.0.mod",
            modules.go_mod("ex.com/Upper/Case@v1.0.0").to_vec(),
            "text/plain; charset=utf-8",
        ),
        (
            "ex.com/%21upper/%21case/@v/v1.0.0.zip",
            modules.zip("ex.com/Upper/Case@v1.0.0").to_vec(),
            "application/zip",
        ),
        (
            "ex.com/old/@v/v2.0.0+incompatible.zip",
            modules.zip("ex.com/old@v2.0.0+incompatible").to_vec(),
            "application/zip",
        ),
    ];
    for (path, body, content_type) in &files {
        let cold = stoa.get(path).await;
        assert_eq!(cold.header("content-type"), *content_type, "{path}");
        assert_eq!(cold.header("cache-control"), "public, max-age=31536000, immutable");
        assert_eq!(cold.header("content-length"), body.len().to_string());
        assert_eq!(cold.header("x-content-type-options"), "nosniff");
        assert!(cold.header("etag").starts_with('"'), "a strong validator");
        assert!(cold.ok() == *body, "{path} differs from the upstream's");
    }
    // The small files of a stored zip are fetched in the background; that must not be mistaken for a warm miss.
    world.upstream.wait_for_request("/ex.com/!upper/!case/@v/v1.0.0.info").await;
    world.upstream.wait_for_request("/ex.com/old/@v/v2.0.0+incompatible.mod").await;
    world.upstream.wait_for_request("/ex.com/old/@v/v2.0.0+incompatible.info").await;
    for (path, body, _) in &files {
        let before = world.upstream.count("*/@v/v*.zip");
        assert!(stoa.get(path).await.ok() == *body);
        assert_eq!(world.upstream.count("*/@v/v*.zip"), before);
        let asked = format!("/{}", path.replace("%21", "!"));
        assert_eq!(world.upstream.count(asked.as_str()), 1, "{path} was asked for twice");
    }
}

#[tokio::test]
async fn sixty_four_clients_of_one_cold_zip_cause_one_request() {
    let world = World::new();
    let gate = Gate::new();
    world.upstream.fault(format!("/{ZIP}"), Fault::gate(&gate));
    let stoa = world.setup().env("STOA_UPSTREAM_FILE_TIMEOUT", "30s").start();
    let mut clients = tokio::task::JoinSet::new();
    let url = format!("{}/{ZIP}", stoa.url);
    for _ in 0..64 {
        let request = crate::fixtures::client().get(&url);
        clients.spawn(async move {
            let reply = request.send().await.expect("an answer");
            (reply.status().as_u16(), reply.bytes().await.expect("a body"))
        });
    }
    gate.wait_for_held(1).await;
    // Time for the others to arrive: whoever comes after the gate is open is a plain hit.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    gate.open();
    let zip = modules().zip("ex.com/lib@v1.0.0");
    while let Some(reply) = clients.join_next().await {
        let (status, body) = reply.unwrap();
        assert_eq!(status, 200);
        assert!(body == zip);
    }
    assert_eq!(world.upstream.count(format!("/{ZIP}")), 1);
}

#[tokio::test]
async fn a_mod_pulls_no_zip_and_a_zip_brings_its_small_files() {
    let world = World::new();
    let stoa = world.setup().start();
    stoa.get("ex.com/lib/@v/v1.0.0.mod").await.ok();
    stoa.get("ex.com/lib/@v/v1.1.0.info").await.ok();
    assert_eq!(world.upstream.count("*.zip"), 0);
    stoa.get("ex.com/lib/@v/v1.1.0.zip").await.ok();
    world.upstream.wait_for_request("/ex.com/lib/@v/v1.1.0.mod").await;
    stoa.get(ZIP).await.ok();
    world.upstream.wait_for_request("/ex.com/lib/@v/v1.0.0.info").await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_nothing() {
    let world = World::new();
    let gate = Gate::new();
    world.upstream.fault(format!("/{ZIP}"), Fault::gate(&gate));
    let stoa = world.setup().env("STOA_UPSTREAM_FILE_TIMEOUT", "30s").start();
    let request = crate::fixtures::client().get(format!("{}/{ZIP}", stoa.url));
    let first = tokio::spawn(request.send());
    gate.wait_for_held(1).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    // It has its line in the log all the same.
    let line = logged(&stoa, "the client left before the answer").await;
    for field in [&format!("url.path=\"/{ZIP}\""), "method=\"GET\"", "duration_ms=", "request_id="]
    {
        assert!(line.contains(field), "{field} is not in {line}");
    }
    assert!(!line.contains(" status="), "{line}");
    gate.open();
    stoa.get(ZIP).await.ok();
    assert_eq!(world.upstream.count(format!("/{ZIP}")), 1);
}

/// The line of the log that has these words, once it is there.
async fn logged(stoa: &Stoa, words: &str) -> String {
    let found = async {
        loop {
            if let Some(line) = stoa.log().lines().find(|line| line.contains(words)) {
                break line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(10), found).await;
    found.unwrap_or_else(|_| panic!("{words:?} is not in the log"))
}

#[tokio::test]
async fn a_client_that_stops_reading_holds_its_connection_no_longer_than_allowed() {
    let modules = Modules::default().with("ex.com/big@v1.0.0", [("noise.bin", noise(24 << 20))]);
    let upstream = FakeUpstream::start(modules);
    let path = "ex.com/big/@v/v1.0.0.zip";
    let setup = Setup::new().goproxy(upstream.url()).env("STOA_SERVER_WRITE_TIMEOUT", "300ms");
    let stoa = setup.env("STOA_SERVER_MAX_CONNECTIONS", 1).start();
    let whole = stoa.get(path).await.ok().len();

    let mut stalled = TcpStream::connect(stoa.address()).await.unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nhost: x\r\n\r\n");
    stalled.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stalled.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    // There is room for one connection: another client has its answer when the first was given up.
    let other = tokio::time::timeout(Duration::from_secs(10), stoa.get("healthz")).await;
    assert_eq!(other.expect("an answer in bounded time").status, 200);
    let line = logged(&stoa, "the client left, or the answer broke off").await;
    for field in [
        "status=200",
        "module.path=\"ex.com/big\"",
        "module.version=\"v1.0.0\"",
        "outcome=\"hit\"",
        "source=",
    ] {
        assert!(line.contains(field), "{field} is not in {line}");
    }
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stalled.read_to_end(&mut rest)).await;
    let error = read.expect("the connection is gone").expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(rest.len() < whole, "{} bytes of {whole}", rest.len());
}

#[tokio::test]
async fn lists_are_sorted_filtered_and_cached() {
    let world = World::new();
    let stoa = world.setup().start();
    let list = stoa.get("ex.com/lib/@v/list").await;
    assert_eq!(list.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(list.header("cache-control"), "public, max-age=60");
    assert_eq!(list.text(), "v1.0.0\nv1.1.0\nv1.2.0-rc.1\n");
    stoa.get("ex.com/lib/@v/list").await.ok();
    assert_eq!(world.upstream.count("/ex.com/lib/@v/list"), 1);
    // A module of which there are only pseudo-versions is a module: an empty list, and @latest has the newest.
    assert_eq!(stoa.get("ex.com/pseudo/@v/list").await.text(), "");
    world.upstream.fault("/ex.com/pseudo/@latest", Fault::status(404));
    let latest = stoa.get("ex.com/pseudo/@latest").await;
    assert!(latest.text().contains("v0.0.0-20230102030405-abcdefabcdef"), "{}", latest.text());
    // What is none is 404.
    stoa.get("ex.com/none/@v/list").await.refused(404, "not found");
}

#[tokio::test]
async fn junk_in_an_upstreams_list_is_dropped() {
    let world = World::new();
    let junk = "v1.1.0 2024-01-02T03:04:05Z\r\n\n<html>\nv1\nv1.0.0+meta\nv2.0.0\nv1.0.0\nv1.0.0\nv1.0.1-0.20240102030405-0123456789ab\nv3.0.0+incompatible";
    world.upstream.fault("/ex.com/lib/@v/list", Fault::replace(junk));
    let stoa = world.setup().start();
    assert_eq!(
        stoa.get("ex.com/lib/@v/list").await.text(),
        "v1.0.0\nv1.1.0\nv3.0.0+incompatible\n"
    );
}

#[tokio::test]
async fn what_is_stored_is_listed_and_a_stale_list_is_better_than_none() {
    let world = World::new();
    let setup = world.setup().env("STOA_CACHE_LIST_TTL", "0s");
    let stoa = setup.start();
    stoa.get("ex.com/lib/@v/v1.1.0.info").await.ok();
    stoa.get("ex.com/lib/@v/v1.1.0.mod").await.ok();
    world.upstream.fault("/ex.com/lib/@v/list", Fault::replace("v1.0.0\n"));
    assert_eq!(stoa.get("ex.com/lib/@v/list").await.text(), "v1.0.0\nv1.1.0\n");
    world.upstream.clear_faults();
    world.upstream.fault("/ex.com/lib/@v/list", Fault::status(500));
    let stale = stoa.get("ex.com/lib/@v/list").await;
    assert_eq!(stale.text(), "v1.0.0\nv1.1.0\n");
    assert!(stale.header("warning").starts_with("110"), "{:?}", stale.headers);
    assert_eq!(stale.header("cache-control"), "no-cache");
    // Also when the list was never seen.
    world.upstream.fault("/ex.com/old/@v/list", Fault::status(503));
    stoa.get("ex.com/old/@v/list").await.refused(502, "503");
    stoa.get("ex.com/old/@v/v2.0.0+incompatible.info").await.ok();
    stoa.get("ex.com/old/@v/v2.0.0+incompatible.mod").await.ok();
    assert_eq!(stoa.get("ex.com/old/@v/list").await.text(), "v2.0.0+incompatible\n");
}

#[tokio::test]
async fn a_branch_is_an_alias_with_a_body_of_its_own() {
    let world = World::new();
    let stoa = world.setup().start();
    let main = stoa.get("ex.com/lib/@v/main.info").await;
    assert_eq!(main.header("content-type"), "application/json");
    assert_eq!(main.header("cache-control"), "public, max-age=60");
    assert!(
        main.text().contains(r#""Ref":"refs/heads/main""#),
        "the upstream's bytes: {}",
        main.text()
    );
    stoa.get("ex.com/lib/@v/main.info").await.ok();
    assert_eq!(world.upstream.count("/ex.com/lib/@v/main.info"), 1);
    // A branch has no other files, and what the go command resolves itself is no branch.
    for path in [
        "ex.com/lib/@v/main.mod",
        "ex.com/lib/@v/main.zip",
        "ex.com/lib/@v/latest.info",
        "ex.com/lib/@v/upgrade.info",
    ] {
        stoa.get(path).await.refused(404, "not found");
    }
    assert_eq!(world.upstream.count("/ex.com/lib/@v/main.*"), 1);
    world.upstream.fault("*/odd.info", Fault::replace(r#"{"Version":"v2.0.0"}"#));
    stoa.get("ex.com/lib/@v/odd.info").await.refused(502, "v2.0.0");
    world.upstream.fault("*/worse.info", Fault::replace(r#"{"Version":"main"}"#));
    stoa.get("ex.com/lib/@v/worse.info").await.refused(502, "");
}

#[tokio::test]
async fn what_can_be_no_module_is_answered_without_asking() {
    let world = World::new();
    let stoa = world.setup().start();
    let paths = [
        "github.com/@v/list",
        "github.com/user/@v/list",
        "github.com/user/@latest",
        "localhost/x/@v/list",
        "ex.com/Upper/@v/list",
        "ex.com/!Upper/@v/list",
        "ex.com/up!/@v/list",
        "ex.com/%FF/@v/list",
        "ex.com/%zz/@v/list",
        "ex.com/con/@v/list",
        "ex.com/lib/v1/@v/list",
        "ex.com/lib/@v/v1.0.0.tar",
        "ex.com/lib/@v/v1.0.0",
        "ex.com/lib/@v/a/b.info",
        "ex.com/lib/@v/v1.mod",
        "ex.com/lib/@v/v2.0.0.zip",
        "ex.com/lib/v2/@v/v1.0.0.mod",
        "ex.com/lib/@v/",
        "ex.com/lib/",
        "ex.com/lib",
        "gopkg.in/yaml/@v/list",
        "-/status",
        "favicon.ico",
    ];
    for path in paths {
        let reply = stoa.get(path).await;
        reply.refused(404, "not found");
        assert!(reply.text().contains("request id: "), "{path}: {}", reply.text());
    }
    assert_eq!(world.upstream.request_lines(), Vec::<String>::new());
}

#[tokio::test]
async fn other_methods_and_over_long_targets_are_refused() {
    let world = World::new();
    let stoa = world.setup().start();
    let client = crate::fixtures::client();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        for path in ["", "healthz", ZIP] {
            let reply =
                stoa.send(client.request(method.clone(), format!("{}/{path}", stoa.url))).await;
            assert_eq!(reply.status, 405, "{method} /{path}");
            assert_eq!(reply.header("allow"), "GET, HEAD");
            assert_eq!(reply.header("cache-control"), "no-store");
        }
    }
    let long = format!("ex.com/{}/@v/list", "a".repeat(9000));
    let refused = stoa.get(&long).await;
    refused.refused(414, "too long");
    assert_eq!(refused.header("cache-control"), "no-store");
    // Longer than what any client library sends.
    let longer = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(125_000));
    let answer = crate::fixtures::raw(&stoa, longer.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 414"), "{answer}");
    assert_eq!(world.upstream.request_lines(), Vec::<String>::new());
}

#[tokio::test]
async fn what_a_client_has_passed_on_is_bounded() {
    let world = World::new();
    let stoa = world.setup().start();
    let far = "1.1 proxy.example.com, ".repeat(500);
    for file in [ZIP, "ex.com/lib/@v/list"] {
        let refused = stoa.get_with(file, &[("via", far.as_str())]).await;
        refused.refused(403, "the Via of this request has more than 4096 bytes");
    }
    assert_eq!(world.upstream.request_lines(), Vec::<String>::new());
    let near = "1.1 proxy.example.com, ".repeat(50);
    stoa.get_with("ex.com/lib/@v/list", &[("via", near.as_str())]).await.ok();
}

#[tokio::test]
async fn head_ranges_and_validators() {
    let world = World::new();
    let stoa = world.setup().start();
    let zip = modules().zip("ex.com/lib@v1.0.0");
    // HEAD of a cold artifact fetches it, and says what a GET would.
    let head = stoa.head(ZIP).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), zip.len().to_string());
    assert!(head.body.is_empty());
    assert_eq!(world.upstream.count(format!("/{ZIP}")), 1);
    let etag = head.header("etag").to_owned();
    let get = stoa.get(ZIP).await;
    assert_eq!(get.header("etag"), etag);
    assert_eq!(get.header("accept-ranges"), "bytes");

    let not_modified = stoa.get_with(ZIP, &[("if-none-match", &etag)]).await;
    assert_eq!(not_modified.status, 304);
    assert!(not_modified.body.is_empty());
    assert_eq!(not_modified.header("etag"), etag);
    assert_eq!(not_modified.header("cache-control"), "public, max-age=31536000, immutable");

    let part = stoa.get_with(ZIP, &[("range", "bytes=10-19")]).await;
    assert_eq!(part.status, 206);
    assert_eq!(part.header("content-range"), format!("bytes 10-19/{}", zip.len()));
    assert_eq!(part.header("content-length"), "10");
    assert_eq!(part.body, &zip[10..20]);
    let tail = stoa.get_with(ZIP, &[("range", "bytes=-5"), ("if-range", &etag)]).await;
    assert_eq!((tail.status.as_u16(), &tail.body[..]), (206, &zip[zip.len() - 5..]));
    let other = stoa.get_with(ZIP, &[("range", "bytes=-5"), ("if-range", "\"other\"")]).await;
    assert_eq!((other.status.as_u16(), other.body.len()), (200, zip.len()));
    let beyond = stoa.get_with(ZIP, &[("range", "bytes=99999999-")]).await;
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.header("content-range"), format!("bytes */{}", zip.len()));

    // A list has a validator too.
    let list = stoa.get("ex.com/lib/@v/list").await;
    let again =
        stoa.get_with("ex.com/lib/@v/list", &[("if-none-match", list.header("etag"))]).await;
    assert_eq!(again.status, 304);
}

#[tokio::test]
async fn absences_are_remembered_for_a_moment() {
    let world = World::new();
    let stoa = world.setup().start();
    for _ in 0..5 {
        stoa.get("ex.com/none/@v/list").await.refused(404, "not found");
        stoa.get("ex.com/lib/@v/v9.9.9.info").await.refused(404, "not found");
        stoa.get("ex.com/lib/@v/nobranch.info").await.refused(404, "not found");
    }
    assert_eq!(world.upstream.count("/ex.com/none/@v/list"), 1);
    assert_eq!(world.upstream.count("/ex.com/lib/@v/v9.9.9.info"), 1);
    assert_eq!(world.upstream.count("/ex.com/lib/@v/nobranch.info"), 1);
}

#[tokio::test]
async fn shared_caches_keep_nothing_of_a_private_module() {
    let world = World::new();
    let setup = world.setup().env("STOA_GONOSUMDB", "ex.com/private");
    let stoa = setup.env("STOA_CACHE_LIST_TTL", "0s").start();
    let kept = async |path: &str, status: u16| {
        let reply = stoa.get(path).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
        reply.header("cache-control").to_owned()
    };
    assert_eq!(
        kept("ex.com/private/@v/v1.0.0.mod", 200).await,
        "private, max-age=31536000, immutable"
    );
    assert_eq!(kept("ex.com/private/@v/list", 200).await, "private, no-cache");
    assert_eq!(kept("ex.com/private/@v/v9.9.9.info", 404).await, "private, max-age=10");
    assert_eq!(kept("ex.com/private/@v/v1.mod", 404).await, "private, max-age=60");
    assert_eq!(kept("ex.com/lib/@v/list", 200).await, "no-cache");
    assert_eq!(kept("ex.com/lib/@v/v9.9.9.info", 404).await, "public, max-age=10");
}

#[tokio::test]
async fn pages_of_its_own() {
    let world = World::new();
    let setup = world.setup();
    let stoa = setup.start();
    assert_eq!(stoa.get("healthz").await.ok(), b"ok\n");
    assert_eq!(stoa.get("readyz").await.ok(), b"ready\n");
    assert_eq!(stoa.get("robots.txt").await.ok(), b"User-agent: *\nDisallow: /\n");
    assert_eq!(
        stoa.get("version").await.ok(),
        concat!("stoa ", env!("CARGO_PKG_VERSION"), "\n").as_bytes()
    );
    let home = stoa.get("").await;
    assert_eq!(home.header("content-type"), "text/html; charset=utf-8");
    assert!(home.text().contains(&format!("GOPROXY={}", stoa.url)), "{}", home.text());
    let odd = stoa.get_with("", &[("host", "\"><script>")]).await;
    assert!(!odd.text().contains("<script>"), "{}", odd.text());
    assert_eq!(stoa.head("readyz").await.status, 200);
    assert_eq!(setup.run(&["healthcheck"]).status.code(), Some(0));
    assert_eq!(world.upstream.request_lines(), Vec::<String>::new());
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_a_line_in_the_log() {
    let world = World::new();
    let stoa = world.setup().start();
    let reply = stoa.get("ex.com/lib/@v/v1.0.0.mod").await;
    let id = reply.header("x-request-id").to_owned();
    assert!(!id.is_empty());
    let given = stoa.get_with("ex.com/none/@v/list", &[("x-request-id", "from-nginx.1")]).await;
    assert_eq!(given.header("x-request-id"), "from-nginx.1");
    assert!(given.text().ends_with("request id: from-nginx.1\n"), "{}", given.text());
    let (_, log) = stoa.stop();
    let line = log.lines().find(|line| line.contains(&id)).expect("a line of the access log");
    for field in [
        "module.path=\"ex.com/lib\"",
        "module.version=\"v1.0.0\"",
        "outcome=\"miss\"",
        "bytes=",
        "duration_ms=",
        "kind=\"mod\"",
    ] {
        assert!(line.contains(field), "{field} is not in {line}");
    }
}
