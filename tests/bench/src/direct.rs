//! Modules straight from git: the real go command in direct mode and stoa beside it, over one repository on a host of its
//! own, with TLS.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use hyper::StatusCode;
use stoa_module::{Artifact, H1, ModuleVersion, ZipLimits, check_zip};
use stoa_testkit::{GitRemotes, Go, Internet};

use crate::history::{self, COMMITS, TAGS};
use crate::load;
use crate::report::{Promise, milliseconds};
use crate::server::{Kind, Server};

/// A host whose modules' repositories are known from their paths, so that neither side asks it for a page.
const HOST: &str = "github.com";
const MODULE: &str = "github.com/ex/long";
const ROUNDS: usize = 5;
/// What is asked first, and second, of a server that had nothing.
const FIRST: usize = 20;
const SECOND: usize = 25;
/// How many ask for a version each, at once.
pub(crate) const CROWD: usize = 20;
/// What the second version may take, of what the go command takes for it.
const SECOND_SHARE: f64 = 1.0 / 3.0;
/// What the first one may take: as much, and what medians of a few rounds differ by on a machine where nothing else runs.
const FIRST_SHARE: f64 = 1.0;
const NOISE: f64 = 0.05;

/// What was measured.
#[derive(Debug)]
pub(crate) struct Direct {
    first: Pair,
    second: Pair,
    /// How many of the crowd got their zip right, and how often the host sent objects for it.
    crowd: usize,
    clones: usize,
}

/// The same version by the go command and by stoa, in each round.
#[derive(Debug, Default)]
struct Pair {
    go: Vec<Duration>,
    stoa: Vec<Duration>,
}

impl Pair {
    fn share(&self) -> f64 {
        median(&self.stoa).as_secs_f64() / median(&self.go).as_secs_f64()
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Whether what is measured against is there.
pub(crate) fn is_possible() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    ["go", "git"].iter().all(|program| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    })
}

pub(crate) async fn measure(program: &Path) -> anyhow::Result<Direct> {
    let remotes = GitRemotes::new();
    history::make(&remotes, "long", MODULE)?;
    let internet = Internet::start();
    internet.host(HOST).git("/ex", &remotes);
    let world = World { go: go(&internet), stoa: stoa(program, &internet), internet };

    println!("direct: {ROUNDS} rounds of go and stoa");
    let (mut first, mut second) = (Pair::default(), Pair::default());
    // The first round only warms up.
    for round in 0..=ROUNDS {
        let server = Server::start(&world.stoa, "direct").await?;
        for (version, pair) in [(FIRST, &mut first), (SECOND, &mut second)] {
            let (go, by_go) = world.by_go(version).await?;
            let (stoa, by_stoa) = ask(&server, version).await?;
            if by_go != by_stoa {
                bail!(
                    "stoa has another {} than go: {by_stoa:?}, {by_go:?}",
                    history::version(version)
                );
            }
            if round > 0 {
                pair.go.push(go);
                pair.stoa.push(stoa);
            }
        }
    }

    println!("direct: {CROWD} clients, {CROWD} versions");
    let server = Server::start(&world.stoa, "direct").await?;
    world.internet.forget_requests();
    let clients: Vec<_> = (0..CROWD)
        .map(|version| {
            let (url, path) = (server.url().to_owned(), path(version, Artifact::Zip));
            tokio::spawn(async move { load::get(&url, &path?).await })
        })
        .collect();
    let mut crowd = 0;
    for (version, client) in clients.into_iter().enumerate() {
        let (status, zip) = client.await??;
        let checked = check_zip(Cursor::new(zip), &module(version)?, &ZipLimits::default());
        crowd += usize::from(status == StatusCode::OK && checked.is_ok());
    }
    let clones = world.internet.clones();
    Ok(Direct { first, second, crowd, clones })
}

struct World {
    go: Go,
    stoa: Kind,
    internet: Internet,
}

/// What both must answer alike.
#[derive(Debug, PartialEq, Eq)]
struct Answers {
    info: Bytes,
    go_mod: Bytes,
    zip: H1,
}

impl World {
    /// A version by the go command, which has nothing yet.
    async fn by_go(&self, version: usize) -> anyhow::Result<(Duration, Answers)> {
        self.go.clear_modcache();
        let name = format!("{MODULE}@{}", history::version(version));
        let began = Instant::now();
        self.go.ok(["mod", "download", &name]).await;
        let took = began.elapsed();
        let cached = |artifact| -> anyhow::Result<PathBuf> {
            let path = path(version, artifact)?;
            Ok(self.go.modcache().join("cache/download").join(path.trim_start_matches('/')))
        };
        let hash = fs_err::read_to_string(cached(Artifact::Zip)?.with_extension("ziphash"))?;
        let answers = Answers {
            info: fs_err::read(cached(Artifact::Info)?)?.into(),
            go_mod: fs_err::read(cached(Artifact::Mod)?)?.into(),
            zip: H1::parse(&hash)?,
        };
        Ok((took, answers))
    }
}

/// A version by a server, asked as the go command asks.
async fn ask(server: &Server, version: usize) -> anyhow::Result<(Duration, Answers)> {
    let began = Instant::now();
    let mut bodies = Vec::new();
    for artifact in [Artifact::Info, Artifact::Mod, Artifact::Zip] {
        let path = path(version, artifact)?;
        let (status, body) = load::get(server.url(), &path).await?;
        if status != StatusCode::OK {
            bail!("{path}: {status}: {}\n{}", String::from_utf8_lossy(&body), server.log());
        }
        bodies.push(body);
    }
    let took = began.elapsed();
    let [info, go_mod, zip] = bodies.try_into().ok().context("three answers")?;
    let module = module(version)?;
    let zip = check_zip(Cursor::new(zip), &module, &ZipLimits::default())?.h1;
    Ok((took, Answers { info, go_mod, zip }))
}

fn module(version: usize) -> anyhow::Result<ModuleVersion> {
    Ok(ModuleVersion::parse(&format!("{MODULE}@{}", history::version(version)))?)
}

fn path(version: usize, artifact: Artifact) -> anyhow::Result<String> {
    Ok(format!("/{}", module(version)?.escaped_file(artifact)))
}

fn go(internet: &Internet) -> Go {
    let go = Go::new().goproxy("direct").env("GOVCS", "*:git").env("GIT_ALLOW_PROTOCOL", "https");
    internet.environment().into_iter().fold(go, |go, (name, value)| go.env(&name, value))
}

fn stoa(program: &Path, internet: &Internet) -> Kind {
    let mut environment = internet.environment();
    let path = std::env::var("PATH").unwrap_or_default();
    for (name, value) in [
        ("PATH", &*path),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("STOA_GOPRIVATE", MODULE),
    ] {
        environment.push((name.to_owned(), value.to_owned()));
    }
    Kind::Stoa { program: program.to_owned(), gosumdb: "off".to_owned(), environment }
}

impl Direct {
    pub(crate) fn summary() -> String {
        format!(
            "git over https, {COMMITS} commits, {TAGS} tags; medians of {ROUNDS} rounds, with the least and the most"
        )
    }

    /// The first row is the head.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let head = ["direct, ms", "go mod download", "stoa", "stoa ÷ go"].map(str::to_owned);
        let mut rows = vec![head.to_vec()];
        for (name, pair) in [("first version, cold", &self.first), ("second version", &self.second)]
        {
            let times = |times: &[Duration]| {
                let at = |time: Option<&Duration>| milliseconds(time.copied().unwrap_or_default());
                let (least, most) = (at(times.iter().min()), at(times.iter().max()));
                format!("{:.0} ({least:.0}–{most:.0})", milliseconds(median(times)))
            };
            let share = format!("{:.2}", pair.share());
            rows.push(vec![name.to_owned(), times(&pair.go), times(&pair.stoa), share]);
        }
        rows
    }

    pub(crate) fn promises(&self) -> Vec<Promise> {
        let (first, second) = (self.first.share(), self.second.share());
        vec![
            Promise {
                text: format!(
                    "the first version of a repository from git in at most {FIRST_SHARE:.2} (± {NOISE:.2}) of the \
                     time of a cold go mod download of it: {first:.2}"
                ),
                holds: first <= FIRST_SHARE + NOISE,
            },
            Promise {
                text: format!(
                    "the second in at most {SECOND_SHARE:.2} of that for it: {second:.2}"
                ),
                holds: second <= SECOND_SHARE,
            },
            Promise {
                text: format!(
                    "one clone for {CROWD} simultaneous first requests for {CROWD} versions: {}, {} served",
                    self.clones, self.crowd
                ),
                holds: self.clones == 1 && self.crowd == CROWD,
            },
        ]
    }
}
