//! The clients: connections that ask for one path after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::data::{Data, is_immutable};

/// The longest that one answer may take; the server's own bounds are shorter.
const PATIENCE: Duration = Duration::from_mins(3);

/// How long a pass goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// Every path was asked for once.
    Once,
    /// Again from the start, until the time is over.
    Over(Duration),
}

/// What a pass measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pass {
    pub(crate) ok: u64,
    /// Not 200, or no whole answer.
    pub(crate) failed: u64,
    /// Other bytes than the upstream's.
    pub(crate) different: u64,
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    /// The first few of what went wrong.
    pub(crate) wrong: Vec<String>,
    latencies: Vec<Duration>,
}

impl Pass {
    pub(crate) fn requests_per_second(&self) -> f64 {
        self.ok as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.took.as_secs_f64()
    }

    /// The time within which so many of 100 answers came whole.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        self.latencies.get(self.latencies.len() * percent / 100).copied().unwrap_or_default()
    }

    fn add(&mut self, other: Pass) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.different += other.different;
        self.bytes += other.bytes;
        self.latencies.extend(other.latencies);
        self.wrong.extend(other.wrong);
    }

    fn wrong(&mut self, what: String) {
        if self.wrong.len() < 3 {
            self.wrong.push(what);
        }
    }
}

/// Asks a server for the paths, over so many connections at once. With `data`, bodies are compared.
pub(crate) async fn pass(
    url: &str,
    paths: Arc<[String]>,
    connections: usize,
    until: Until,
    data: Option<Arc<Data>>,
) -> anyhow::Result<Pass> {
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            let client = Client::new(url);
            let (paths, next, data) = (paths.clone(), next.clone(), data.clone());
            tokio::spawn(client.ask(paths, next, until, started, data))
        })
        .collect();
    let mut sum = Pass::default();
    for client in clients {
        sum.add(client.await?);
    }
    sum.took = started.elapsed();
    sum.latencies.sort_unstable();
    sum.wrong.truncate(3);
    Ok(sum)
}

/// One request over a connection of its own.
pub(crate) async fn get(url: &str, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let mut client = Client::new(url);
    let answer = async {
        let response = client.send(path).await?;
        let status = response.status();
        anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    tokio::time::timeout(PATIENCE, answer).await.context("no answer")?
}

/// How long a body's first piece took to come, and all of it; and its length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) first: Duration,
    pub(crate) whole: Duration,
    pub(crate) bytes: u64,
}

/// One request over a connection that is there already, timed.
pub(crate) async fn arrival(url: &str, path: &str) -> anyhow::Result<Arrival> {
    let mut client = Client::new(url);
    client.connection = Some(client.connect().await?);
    let asked = Instant::now();
    let answer = async {
        let response = client.send(path).await?;
        if response.status() != StatusCode::OK {
            anyhow::bail!("{path}: {}", response.status());
        }
        let (mut body, mut first, mut bytes) = (response.into_body(), None, 0);
        while let Some(frame) = body.frame().await {
            let length = frame?.into_data().map_or(0, |piece| piece.len() as u64);
            bytes += length;
            if length > 0 {
                first.get_or_insert_with(|| asked.elapsed());
            }
        }
        let whole = asked.elapsed();
        Ok(Arrival { first: first.unwrap_or(whole), whole, bytes })
    };
    tokio::time::timeout(PATIENCE, answer).await.context("no answer")?
}

struct Client {
    authority: String,
    connection: Option<SendRequest<Empty<Bytes>>>,
}

impl Client {
    fn new(url: &str) -> Client {
        let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        Client { authority: authority.to_owned(), connection: None }
    }

    async fn ask(
        mut self,
        paths: Arc<[String]>,
        next: Arc<AtomicUsize>,
        until: Until,
        started: Instant,
        data: Option<Arc<Data>>,
    ) -> Pass {
        let mut pass = Pass::default();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let over = match until {
                Until::Once => at >= paths.len(),
                Until::Over(time) => started.elapsed() >= time,
            };
            if over {
                return pass;
            }
            let path = &paths[at % paths.len()];
            let expected = data.as_deref().filter(|_| is_immutable(path));
            let asked = Instant::now();
            let result = tokio::time::timeout(PATIENCE, self.one(path, expected, &mut pass.bytes));
            match result.await.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in {PATIENCE:?}")))
            {
                Ok(true) => pass.ok += 1,
                Ok(false) => {
                    pass.different += 1;
                    pass.wrong(format!("{path}: not the upstream's bytes"));
                }
                Err(error) => {
                    self.connection = None;
                    pass.failed += 1;
                    pass.wrong(format!("{path}: {error:#}"));
                }
            }
            pass.latencies.push(asked.elapsed());
        }
    }

    /// Whether the answer is the expected one.
    async fn one(
        &mut self,
        path: &str,
        expected: Option<&Data>,
        bytes: &mut u64,
    ) -> anyhow::Result<bool> {
        let response = self.send(path).await?;
        let status = response.status();
        let mut body = response.into_body();
        let mut kept = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame?.into_data() {
                *bytes += piece.len() as u64;
                if expected.is_some() || status != StatusCode::OK {
                    kept.extend_from_slice(&piece);
                }
            }
        }
        if status != StatusCode::OK {
            let text = String::from_utf8_lossy(&kept);
            anyhow::bail!("{status}: {}", text.chars().take(300).collect::<String>().trim());
        }
        match expected {
            Some(data) => Ok(fs_err::tokio::read(data.file(path)?).await? == kept),
            None => Ok(true),
        }
    }

    async fn send(&mut self, path: &str) -> anyhow::Result<Response<Incoming>> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        // A server may close what it kept open; that is no failed answer.
        if connection.ready().await.is_err() {
            connection = self.connect().await?;
            connection.ready().await?;
        }
        let request = Request::get(path)
            .header(hyper::header::HOST, &self.authority)
            .header(hyper::header::USER_AGENT, "stoa-bench")
            .body(Empty::new())?;
        let response = connection.send_request(request).await?;
        self.connection = Some(connection);
        Ok(response)
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            Builder::new().max_buf_size(256 * 1024).handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
