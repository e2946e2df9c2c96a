//! What clients see that write their requests by hand.

use std::io;
use std::time::{Duration, Instant};

use stoa_testkit::{Answer, Fault, GitRemotes, Internet, PATIENCE, Reach, Request, require_git};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{HOST, world};

/// Git sends a request of more than 1 KiB as a gzip, and a far larger one in chunks.
#[tokio::test]
async fn encoded_requests_are_understood() {
    if !require_git() {
        return;
    }
    let (remotes, internet, _host, git) = world();
    for number in 0..30 {
        remotes.commit("lib", 1_700_000_000 + number);
        remotes.git("lib", &["tag", &format!("v1.3.{number}")]);
    }
    git.ok(&["clone", "-q", "https://git.corp.example.com/r/lib", "a"]);
    let zipped = |it: &Request| it.header("content-encoding") == Some("gzip");
    assert!(internet.requests(HOST).iter().any(zipped));
    assert_eq!((internet.clones(), internet.ls_remotes()), (1, 1));

    let chunks = "3\r\n001\r\n14;x=y\r\n4command=ls-refs\n000\r\n1\r\n0\r\n0\r\nTrailer: x\r\n\r\n";
    let request = format!(
        "POST http://{HOST}/r/lib/git-upload-pack HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\nContent-Type: application/x-git-upload-pack-request\r\n\
         Git-Protocol: version=2\r\nExpect: 100-continue\r\n\r\n{chunks}"
    );
    let answer = raw(&internet, &request, u64::MAX).await;
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("refs/tags/v1.3.29\n"), "{answer}");
    assert!(answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
    assert_eq!((internet.clones(), internet.ls_remotes()), (1, 2));
}

/// A git in the middle of an answer ends when nobody waits for it any more.
#[tokio::test]
async fn nothing_is_left_behind() {
    if !require_git() {
        return;
    }
    let (remotes, internet, _host, _git) = world();
    // A pack that does not fit into what is between here and a client that does not read.
    let noise: Vec<u8> = (0..16_000_000_u64)
        .map(|it| (it.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23) >> 32) as u8)
        .collect();
    remotes.git("lib", &["config", "core.compression", "0"]);
    remotes.write("lib", "large", noise);
    let commit = remotes.commit("lib", 1_700_000_002);
    let body = format!("0011command=fetch00010032want {commit}\n0009done\n0000");
    let request = format!(
        "POST http://{HOST}/r/lib/git-upload-pack HTTP/1.1\r\nHost: x\r\n\
         Content-Type: application/x-git-upload-pack-request\r\nContent-Length: {}\r\n\
         Git-Protocol: version=2\r\n\r\n{body}",
        body.len()
    );
    let fetch = async || {
        let mut stream = connect(&internet).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = [0; 4096];
        let begin = tokio::time::timeout(PATIENCE, stream.read_exact(&mut bytes));
        begin.await.expect("an answer begins").unwrap();
        assert!(!processes_of(&remotes).is_empty());
        stream
    };
    let end = async || {
        let until = Instant::now() + PATIENCE;
        while !processes_of(&remotes).is_empty() {
            assert!(Instant::now() < until, "left behind: {:?}", processes_of(&remotes));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let client = fetch().await;
    drop(client);
    end().await;
    let _client = fetch().await;
    drop(internet);
    end().await;
}

/// The living processes that serve these repositories.
fn processes_of(remotes: &GitRemotes) -> Vec<String> {
    let variable = format!("GIT_PROJECT_ROOT={}", remotes.path("").display());
    let mut found = Vec::new();
    for process in fs_err::read_dir("/proc").expect("this is Linux").flatten() {
        let file = |name: &str| fs_err::read(process.path().join(name)).unwrap_or_default();
        if String::from_utf8_lossy(&file("environ")).contains(&variable) {
            found.push(String::from_utf8_lossy(&file("cmdline")).into_owned());
        }
    }
    found
}

/// Pages, and a body without end, as a client sees them that knows nothing of git.
#[tokio::test]
async fn pages_are_served_with_and_without_tls() {
    let internet = Internet::start();
    let host = internet
        .host("plain.example")
        .page("/page", Answer::text(200, "any"))
        .page("/page?go-get=1", Answer::text(203, "one"))
        .fault("/endless", Fault::replace("begin").with(Fault::endless()));
    let get = async |url: &str, at_most: u64| {
        let request = format!("GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        raw(&internet, &request, at_most).await
    };
    assert!(get("http://plain.example/page", 1000).await.ends_with("\r\n\r\nany"));
    assert!(get("http://plain.example/page?x", 1000).await.ends_with("\r\n\r\nany"));
    assert!(get("http://plain.example/page?go-get=1", 1000).await.ends_with("\r\n\r\none"));
    assert!(get("http://plain.example/none", 1000).await.starts_with("HTTP/1.1 404 "));
    assert!(get("http://other.example/page", 1000).await.starts_with("HTTP/1.1 502 "));
    assert!(get("/page", 1000).await.starts_with("HTTP/1.1 400 "));
    assert_eq!(get("http://plain.example/endless", 3_000_000).await.len(), 3_000_000);
    host.reach(Reach::Unresolvable);
    assert!(get("http://plain.example/page", 1000).await.starts_with("HTTP/1.1 502 "));
    assert_eq!(internet.requests("plain.example")[0].target, "http://plain.example/page");
    assert_eq!(internet.hosts_asked(), ["other.example:80", "plain.example:80"]);
}

/// What comes back from the proxy until it closes, or so many bytes of it.
async fn raw(internet: &Internet, request: &str, at_most: u64) -> String {
    let exchange = async {
        let mut stream = connect(internet).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(at_most).read_to_end(&mut answer).await?;
        io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer =
        tokio::time::timeout(PATIENCE, exchange).await.expect("it closes or sends as much");
    answer.expect("the proxy is there")
}

async fn connect(internet: &Internet) -> io::Result<TcpStream> {
    TcpStream::connect(internet.proxy_url().replace("http://", "")).await
}
