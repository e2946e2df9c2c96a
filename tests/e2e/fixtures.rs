//! The modules that most tests speak of, and a client without settings of its own.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use stoa_testkit::{FakeSumdb, FakeUpstream, Modules};

use crate::stoa::{Setup, Stoa};

/// A small graph: `ex.com/app` needs `ex.com/lib` and `ex.com/Upper/Case`, which need others.
pub const MODULES: &str = r#"
-- ex.com/lib@v1.0.0/go.mod --
module ex.com/lib

go 1.21
-- ex.com/lib@v1.0.0/lib.go --
package lib

func Name() string { return "lib v1.0.0" }
-- ex.com/lib@v1.1.0/go.mod --
module ex.com/lib

go 1.21
-- ex.com/lib@v1.1.0/lib.go --
package lib

func Name() string { return "lib v1.1.0" }
-- ex.com/lib@v1.2.0-rc.1/go.mod --
module ex.com/lib

go 1.21
-- ex.com/lib@v1.2.0-rc.1/lib.go --
package lib

func Name() string { return "lib v1.2.0-rc.1" }
-- ex.com/lib@v1.1.1-0.20240102030405-0123456789ab/go.mod --
module ex.com/lib

go 1.21
-- ex.com/lib@v1.1.1-0.20240102030405-0123456789ab/lib.go --
package lib

func Name() string { return "lib of main" }
-- ex.com/lib@main.info --
{"Version":"v1.1.1-0.20240102030405-0123456789ab","Time":"2024-01-02T03:04:05Z","Origin":{"VCS":"git","Ref":"refs/heads/main"}}
-- ex.com/Upper/Case@v1.0.0/go.mod --
module ex.com/Upper/Case

go 1.21

require ex.com/old v2.0.0+incompatible
-- ex.com/Upper/Case@v1.0.0/case.go --
package upper

import "ex.com/old"

func Name() string { return "Case and " + old.Name() }
-- ex.com/old@v2.0.0+incompatible/old.go --
package old

func Name() string { return "old" }
-- ex.com/pseudo@v0.0.0-20230102030405-abcdefabcdef/go.mod --
module ex.com/pseudo

go 1.21
-- ex.com/pseudo@v0.0.0-20230102030405-abcdefabcdef/pseudo.go --
package pseudo

func Name() string { return "pseudo" }
-- ex.com/pseudo@list --
v0.0.0-20230102030405-abcdefabcdef
-- ex.com/private@v1.0.0/go.mod --
module ex.com/private

go 1.21
-- ex.com/private@v1.0.0/private.go --
package private

func Name() string { return "private" }
"#;

pub fn modules() -> Modules {
    static PARSED: OnceLock<Modules> = OnceLock::new();
    PARSED.get_or_init(|| Modules::parse(MODULES)).clone()
}

/// An upstream with all of it, and a checksum database that it passes on.
pub struct World {
    pub upstream: FakeUpstream,
    pub sumdb: FakeSumdb,
}

impl World {
    pub fn new() -> Self {
        let modules = modules();
        let sumdb = FakeSumdb::new("sum.test.example", &modules);
        sumdb.append_filler(300);
        let upstream = FakeUpstream::start(modules).with_sumdb(&sumdb);
        Self { upstream, sumdb }
    }

    /// A server over this upstream that verifies against this database, with short bounds.
    pub fn setup(&self) -> Setup {
        brief(Setup::new()).goproxy(self.upstream.url()).gosumdb(self.sumdb.verifier_key())
    }
}

/// Bounds that a test can wait for.
pub fn brief(setup: Setup) -> Setup {
    setup
        .env("STOA_UPSTREAM_CONNECT_TIMEOUT", "2s")
        .env("STOA_UPSTREAM_LIST_TIMEOUT", "2s")
        .env("STOA_UPSTREAM_FILE_TIMEOUT", "2s")
        .env("STOA_UPSTREAM_ALTERNATIVE_TIMEOUT", "1s")
        .env("STOA_UPSTREAM_STALL_TIMEOUT", "1s")
        .env("STOA_SUMDB_TIMEOUT", "2s")
}

/// So many bytes that do not compress, always the same.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    })
    .take(bytes)
    .collect()
}

#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a printable header"))
    }

    #[track_caller]
    pub fn ok(self) -> Vec<u8> {
        assert_eq!(self.status, StatusCode::OK, "{}", String::from_utf8_lossy(&self.body));
        self.body
    }

    /// An error that the go command would print.
    #[track_caller]
    pub fn refused(&self, status: u16, words: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        let text = self.text();
        assert!(text.contains(words), "{words:?} is not in:\n{text}");
        assert_eq!(self.header("content-type"), "text/plain; charset=utf-8");
        assert!(text.len() <= 600, "{} bytes:\n{text}", text.len());
        assert!(text.lines().count() <= 8 && !text.contains("\n\n"), "{text}");
    }
}

pub fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

impl Stoa {
    pub async fn get(&self, path: &str) -> Reply {
        self.send(client().get(format!("{}/{path}", self.url))).await
    }

    pub async fn head(&self, path: &str) -> Reply {
        self.send(client().head(format!("{}/{path}", self.url))).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = client().get(format!("{}/{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request).await
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let reply = request.send().await.expect("an answer");
        let (status, headers) = (reply.status(), reply.headers().clone());
        Reply { status, headers, body: reply.bytes().await.expect("a whole body").to_vec() }
    }
}

/// Sends bytes and reads what comes back until the server closes the connection.
pub async fn raw(stoa: &Stoa, request: &[u8]) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let mut stream = tokio::net::TcpStream::connect(stoa.address()).await.expect("a connection");
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let read = tokio::time::timeout(std::time::Duration::from_secs(10), read).await;
    let _ = read.expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The version that most tests ask for.
pub const BASE: &str = "ex.com/lib/@v/v1.0.0";

/// Far more than every bound of [`brief`] together, far less than for ever.
pub const BOUNDED: Duration = Duration::from_secs(15);

/// Waits for an answer that must come in bounded time.
pub async fn bounded(answer: impl Future<Output = Reply>) -> Reply {
    let started = Instant::now();
    let reply = answer.await;
    assert!(started.elapsed() < BOUNDED, "it took {:?}", started.elapsed());
    reply
}
