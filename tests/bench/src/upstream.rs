//! The upstream: a process of its own, so that its memory and its work are not the server's. It serves
//! files and counts what it is asked for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use stoa_sumdb::{Tile, TileLevel};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::data::{file_of, is_immutable, is_zip};
use crate::load;
use crate::paced::Paced;

/// No module path begins like this.
const CONTROL: &str = "/-/";

/// A running upstream, seen from the bench. It ends with this value.
#[derive(Debug)]
pub(crate) struct Upstream {
    child: Child,
    url: String,
}

/// What it was asked for since it last forgot.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) requests: BTreeMap<String, u64>,
    /// Those it did not have.
    pub(crate) absent: u64,
}

impl Asked {
    pub(crate) fn total(&self) -> u64 {
        self.requests.values().sum()
    }

    pub(crate) fn of(&self, path: &str) -> u64 {
        self.requests.get(&decoded(path)).copied().unwrap_or(0)
    }

    /// Of everything below a path that ends with `/`.
    pub(crate) fn below(&self, path: &str) -> u64 {
        self.requests.iter().filter(|(asked, _)| asked.starts_with(path)).map(|it| it.1).sum()
    }

    pub(crate) fn zips(&self) -> u64 {
        self.requests.iter().filter(|(path, _)| is_zip(path)).map(|it| it.1).sum()
    }

    /// How often one file of a module was asked for at most.
    pub(crate) fn most_of_modules(&self) -> u64 {
        self.most(|path| !path.starts_with("/sumdb/"))
    }

    /// The same of a checksum database.
    pub(crate) fn most_of_sumdb(&self) -> u64 {
        self.most(|path| path.starts_with("/sumdb/"))
    }

    fn most(&self, of: impl Fn(&str) -> bool) -> u64 {
        let paths = self.requests.iter().filter(|(path, _)| is_immutable(path) && of(path));
        paths.map(|(_, times)| *times).max().unwrap_or(0)
    }
}

impl Upstream {
    pub(crate) fn start(store: &Path) -> anyhow::Result<Upstream> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--serve-upstream")
            .arg(store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the upstream does not start")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("no standard output")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
        let url = line.trim().to_owned();
        if url.is_empty() {
            bail!("the upstream ended: {}", child.wait()?);
        }
        Ok(Upstream { child, url })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn asked(&self) -> anyhow::Result<Asked> {
        let body = self.control("asked").await?;
        let (requests, absent) = serde_json::from_slice(&body)?;
        Ok(Asked { requests, absent })
    }

    pub(crate) async fn forget(&self) -> anyhow::Result<()> {
        self.control("forget").await.map(drop)
    }

    /// From now on what is asked for at the path, or below one that ends with `/`, waits for
    /// [`release`](Upstream::release).
    pub(crate) async fn hold(&self, path: &str) -> anyhow::Result<()> {
        self.control(&format!("hold{path}")).await.map(drop)
    }

    pub(crate) async fn release(&self) -> anyhow::Result<()> {
        self.control("release").await.map(drop)
    }

    /// From now on each answer begins so much later, and comes at most so many bytes a second.
    pub(crate) async fn pace(&self, delay: Duration, bytes: u64) -> anyhow::Result<()> {
        self.control(&format!("pace/{}/{bytes}", delay.as_millis())).await.map(drop)
    }

    async fn control(&self, command: &str) -> anyhow::Result<Bytes> {
        let (status, body) = load::get(&self.url, &format!("{CONTROL}{command}")).await?;
        if status != StatusCode::OK {
            bail!("the upstream answers {status} to {command}");
        }
        Ok(body)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[derive(Debug)]
struct Shared {
    store: PathBuf,
    asked: Mutex<(BTreeMap<String, u64>, u64)>,
    held: watch::Sender<Option<String>>,
    pace: Mutex<Option<(Duration, u64)>>,
}

/// The upstream's process: says its URL on standard output, ends when standard input does.
pub(crate) async fn serve(store: &Path) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let shared = Arc::new(Shared {
        store: store.to_owned(),
        asked: Mutex::default(),
        held: watch::Sender::new(None),
        pace: Mutex::default(),
    });
    let accept = async {
        while let Ok((stream, _)) = listener.accept().await {
            _ = stream.set_nodelay(true);
            let shared = shared.clone();
            tokio::spawn(async move {
                let answer = hyper::service::service_fn(|request| {
                    let shared = shared.clone();
                    async move { Ok::<_, Infallible>(shared.answer(&request).await) }
                });
                // A client that leaves is no fault of this end.
                _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
    };
    let (mut stdin, mut byte) = (tokio::io::stdin(), [0]);
    tokio::select! {
        () = accept => {}
        _ = stdin.read(&mut byte) => {}
    }
    Ok(())
}

impl Shared {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Paced> {
        let path = request.uri().path();
        if let Some(command) = path.strip_prefix(CONTROL) {
            return self.obey(command);
        }
        let name = decoded(path);
        self.count(|asked| *asked.0.entry(name.clone()).or_default() += 1);
        let mut held = self.held.subscribe();
        // The sender lives as long as this does.
        let is_held = |held: &Option<String>| {
            held.as_ref().is_some_and(|held| {
                *held == name || (held.ends_with('/') && name.starts_with(held.as_str()))
            })
        };
        _ = held.wait_for(|held| !is_held(held)).await;
        let pace = *self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((delay, _)) = pace {
            tokio::time::sleep(delay).await;
        }
        if let Some(body) = self.read(path).await {
            let response = response(StatusCode::OK, content_type(path), body);
            return response.map(|body| pace.iter().fold(body, |body, pace| body.at(pace.1)));
        }
        self.count(|asked| asked.1 += 1);
        let text = format!("not found: {path}\n");
        response(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", text.into())
    }

    fn obey(&self, command: &str) -> Response<Paced> {
        let mut body = Bytes::new();
        match command.split_once('/') {
            None if command == "asked" => {
                let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
                body = serde_json::json!(*asked).to_string().into();
            }
            None if command == "forget" => self.count(|asked| *asked = Default::default()),
            None if command == "release" => _ = self.held.send_replace(None),
            Some(("pace", pace)) => {
                let numbers = pace.split_once('/');
                let pace = numbers.and_then(|(delay, bytes)| {
                    Some((Duration::from_millis(delay.parse().ok()?), bytes.parse().ok()?))
                });
                *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
            }
            Some(("hold", path)) => _ = self.held.send_replace(Some(decoded(&format!("/{path}")))),
            _ => return response(StatusCode::NOT_FOUND, "text/plain", body),
        }
        response(StatusCode::OK, "application/json", body)
    }

    fn count(&self, change: impl FnOnce(&mut (BTreeMap<String, u64>, u64))) {
        change(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn read(&self, path: &str) -> Option<Bytes> {
        if let Some(body) = read_file(&self.store, path).await {
            return Some(body);
        }
        // A recording has the widths that were asked for then; a narrower one is the start of a wider.
        let (database, tile) = path.strip_prefix("/sumdb/")?.split_once('/')?;
        let tile = Tile::parse(tile).ok()?;
        if tile.level == TileLevel::Data {
            return None;
        }
        for width in tile.width + 1..=256 {
            let wider = Tile { width, ..tile };
            let path = format!("/sumdb/{database}/{}", wider.path());
            if let Some(body) = read_file(&self.store, &path).await {
                return Some(body.slice(..tile.bytes()?.min(body.len())));
            }
        }
        None
    }
}

/// The path as it is counted, whichever way a client writes it.
fn decoded(path: &str) -> String {
    percent_decode_str(path).decode_utf8_lossy().into_owned()
}

async fn read_file(store: &Path, path: &str) -> Option<Bytes> {
    fs_err::tokio::read(file_of(store, path)?).await.ok().map(Bytes::from)
}

fn response(status: StatusCode, content_type: &str, body: Bytes) -> Response<Paced> {
    let mut response = Response::new(Paced::new(body));
    *response.status_mut() = status;
    if let Ok(value) = content_type.parse() {
        response.headers_mut().insert(hyper::header::CONTENT_TYPE, value);
    }
    response
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once(['.', '/']) {
        Some((_, "info" | "@latest")) => "application/json",
        Some((_, "zip")) => "application/zip",
        _ => "text/plain; charset=utf-8",
    }
}
