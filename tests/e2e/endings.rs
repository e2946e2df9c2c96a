//! SIGTERM in the midst of each fault: the server ends within the drain's time, whatever its upstreams, its clients or its
//! disk do, and its exit code says whether all of them had their answers.

use std::any::Any;
use std::time::{Duration, Instant};

use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;
use stoa_testkit::{FakeUpstream, Fault, Modules, require_git};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::direct_world::{Corp, GIT, processes};
use crate::fixtures::{BASE, World, client, noise};
use crate::stoa::{Setup, Stoa};
use crate::tls::{PREFACE, ask_over_http2, http2, secured};

/// What the servers give those whom they still owe something.
const DRAIN: Duration = Duration::from_millis(1200);
/// For whatever a stop does besides: it closes the index, and this machine may have much else to do.
const MARGIN: Duration = Duration::from_secs(10);
/// Who waits for less than this waits for nothing that the drain bounds.
const AT_ONCE: Duration = Duration::from_millis(900);

/// Until what must happen by itself has happened.
const PATIENCE: Duration = Duration::from_secs(10);

/// All that was asked is answered; or somebody is still owed something when the time is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ends {
    AtOnce,
    AtTheBound,
    /// It depends on the moment, and both are right.
    Either,
}

/// A server in trouble.
struct Scene {
    amid: &'static str,
    ends: Ends,
    stoa: Stoa,
    /// What makes the trouble: dropped when all is over.
    held: Vec<Box<dyn Any + Send>>,
}

impl Scene {
    fn new(amid: &'static str, ends: Ends, stoa: Stoa) -> Self {
        Self { amid, ends, stoa, held: Vec::new() }
    }

    fn holding(mut self, held: impl Any + Send) -> Self {
        self.held.push(Box::new(held));
        self
    }

    /// A client that waits for an answer.
    fn asking(self, path: &str) -> Self {
        let waiting = tokio::spawn(client().get(format!("{}/{path}", self.stoa.url)).send());
        self.holding(waiting)
    }

    async fn flying(self, kind: &str, flights: usize) -> Self {
        flying(&self.stoa, kind, flights).await;
        self
    }
}

/// Waits until so many things are being fetched.
async fn flying(stoa: &Stoa, kind: &str, flights: usize) {
    let until = Instant::now() + PATIENCE;
    let line = format!("stoa_flights{{kind=\"{kind}\"}} ");
    loop {
        let page = stoa.get("metrics").await;
        let number = page.text().lines().find_map(|it| it.strip_prefix(&line));
        if number.and_then(|number| number.parse().ok()).is_some_and(|it: usize| it >= flights) {
            return;
        }
        assert!(Instant::now() < until, "{number:?} of {flights} flights ({kind})");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn drained(setup: Setup) -> Setup {
    setup.env("STOA_SERVER_DRAIN_TIMEOUT", format!("{}ms", DRAIN.as_millis()))
}

/// No bound but the drain's ends anything here.
fn patient(setup: Setup) -> Setup {
    let mut setup = drained(setup);
    for bound in ["CONNECT", "LIST", "FILE", "ALTERNATIVE", "STALL"] {
        setup = setup.env(&format!("STOA_UPSTREAM_{bound}_TIMEOUT"), "60s");
    }
    setup.env("STOA_SUMDB_TIMEOUT", "60s").env("STOA_SERVER_HEADER_TIMEOUT", "60s")
}

/// A client waits for a file while the upstream commits the fault.
async fn upstream(amid: &'static str, pattern: &str, fault: Fault) -> Scene {
    let world = World::new();
    world.upstream.fault(pattern, fault);
    let stoa = patient(world.setup()).env("STOA_UPSTREAM_TRIES", "10").start();
    let scene = Scene::new(amid, Ends::AtTheBound, stoa).asking(&format!("{BASE}.zip"));
    scene.holding(world).flying("file", 1).await
}

/// Clients that go on asking, each for something else, whatever they are told.
async fn storm(amid: &'static str, fault: Option<Fault>, ends: Ends) -> Scene {
    let world = World::new();
    if let Some(fault) = fault {
        world.upstream.fault("/ex.com/unknown/*", fault);
    }
    let stoa = patient(world.setup()).env("STOA_UPSTREAM_BREAKER", "false").start();
    let mut scene = Scene::new(amid, ends, stoa);
    let client = client();
    for who in 0..8 {
        let (client, url) = (client.clone(), scene.stoa.url.clone());
        scene = scene.holding(tokio::spawn(async move {
            for n in 0.. {
                let path = format!("ex.com/unknown/{who}/{n}/@v/list");
                if client.get(format!("{url}/{path}")).send().await.is_err() {
                    return;
                }
            }
        }));
    }
    world.upstream.wait_for_requests("/ex.com/unknown/*", 16).await;
    scene.holding(world)
}

async fn connect(stoa: &Stoa) -> TcpStream {
    TcpStream::connect(stoa.address()).await.expect("a connection")
}

const LARGE: &str = "ex.com/large/@v/v1.0.0.zip";

fn large() -> FakeUpstream {
    FakeUpstream::start(Modules::default().with("ex.com/large@v1.0.0", [("noise", noise(6 << 20))]))
}

/// A client that has the beginning of a large answer and then takes a byte now and then, or nothing.
async fn reader(amid: &'static str, every: Duration) -> Scene {
    let upstream = large();
    let stoa = patient(Setup::new().goproxy(upstream.url())).start();
    stoa.get(LARGE).await.ok();
    let mut stream = connect(&stoa).await;
    let request = format!("GET /{LARGE} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request fits");
    let mut byte = [0];
    stream.read_exact(&mut byte).await.expect("the answer begins");
    let reading = tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            if stream.read_exact(&mut byte).await.is_err() {
                return;
            }
        }
    });
    Scene::new(amid, Ends::AtTheBound, stoa).holding(reading)
}

/// Clients that have sent so much, and are silent now.
async fn silent(amid: &'static str, number: usize, sent: &[u8], answered: bool) -> Scene {
    let world = World::new();
    let mut scene = Scene::new(amid, Ends::AtOnce, patient(world.setup()).start());
    for _ in 0..number {
        let mut stream = connect(&scene.stoa).await;
        stream.write_all(sent).await.expect("it fits");
        if answered {
            stream.read_exact(&mut [0; 12]).await.expect("an answer");
        }
        scene = scene.holding(stream);
    }
    // Whoever came before this one was taken in before it.
    scene.stoa.get("healthz").await.ok();
    scene.holding(world)
}

async fn of_upstreams() -> Vec<Scene> {
    let mut muted = World::new();
    muted.upstream.mute();
    let stoa = patient(muted.setup()).start();
    let connecting = Scene::new("connecting", Ends::AtTheBound, stoa)
        .asking(&format!("{BASE}.zip"))
        .holding(muted);

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    let stoa = patient(Setup::new().goproxy(url)).start();
    let handshake = Scene::new("a handshake", Ends::AtTheBound, stoa)
        .asking(&format!("{BASE}.zip"))
        .holding(listener);

    let misses = World::new();
    misses.upstream.fault("/ex.com/cold*", Fault::hang());
    let mut hung =
        Scene::new("misses that hang", Ends::AtTheBound, patient(misses.setup()).start());
    for n in 0..100 {
        hung = hung.asking(&format!("ex.com/cold{n}/@v/list"));
    }

    let alone = World::new();
    alone.upstream.fault("*.zip", Fault::hang_after(50));
    let stoa = patient(alone.setup()).start();
    let client = tokio::spawn(client().get(format!("{}/{BASE}.zip", stoa.url)).send());
    flying(&stoa, "file", 1).await;
    client.abort();
    until_logged(&stoa, "the client left before the answer").await;
    // Nobody waits for it any more, so nobody is owed anything.
    let left = Scene::new("a client that left", Ends::AtOnce, stoa).holding(alone);

    vec![
        connecting.flying("file", 1).await,
        handshake.flying("file", 1).await,
        hung.holding(misses).flying("answer", 100).await,
        left,
        upstream("a silent upstream", "*.zip", Fault::hang()).await,
        upstream("a body that stopped", "*.zip", Fault::hang_after(50)).await,
        upstream("a body that drips", "*.zip", Fault::drip(1, Duration::from_millis(50))).await,
        upstream("a length too large", "*.zip", Fault::content_length(100_000)).await,
        upstream("a pause between tries", "*.zip", Fault::status(503).retry_after(5)).await,
        upstream("a database that hangs", "*/lookup/*", Fault::hang()).await,
        storm("resets", Some(Fault::reset()), Ends::Either).await,
        storm("garbage", Some(Fault::raw("SSH-2.0-OpenSSH_9.2\r\n")), Ends::Either).await,
        storm(
            "bodies cut short",
            Some(Fault::replace("v1").with(Fault::truncate(1))),
            Ends::Either,
        )
        .await,
        storm("a flood of names that nobody knows", None, Ends::AtOnce).await,
    ]
}

async fn until_logged(stoa: &Stoa, words: &str) {
    let until = Instant::now() + PATIENCE;
    while !stoa.log().contains(words) {
        assert!(Instant::now() < until, "{words:?} is not logged");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn of_clients() -> Vec<Scene> {
    let whole = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut scenes = vec![
        reader("a byte now and then", Duration::from_millis(100)).await,
        reader("a client that reads nothing", Duration::from_mins(10)).await,
        silent("connections without a word", 100, b"", false).await,
        silent("connections kept alive", 100, whole, true).await,
        silent("half a request", 20, b"GET /ex.com/lib/@v/li", false).await,
        silent("a head without its end", 20, b"GET / HTTP/1.1\r\nhost: x\r\n", false).await,
        silent("the beginning of a second request", 20, &[whole, &b"GET /"[..]].concat(), true)
            .await,
    ];

    let (signed, setup) = secured(patient(Setup::new()));
    let stoa = setup.start();
    let mut handshake = connect(&stoa).await;
    handshake.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await.expect("it fits");
    let mut idle = signed.connect(&stoa, b"h2").await;
    idle.write_all(PREFACE).await.expect("it fits");
    idle.flush().await.expect("it fits");
    let scene = Scene::new("handshakes and idle connections of HTTP/2", Ends::AtOnce, stoa);
    scenes.push(scene.holding((handshake, idle)));

    let upstream = large();
    let (signed, setup) = secured(patient(Setup::new().goproxy(upstream.url())));
    let stoa = setup.start();
    let (mut send, connection) = http2(&signed, &stoa, 1000).await;
    let answer = ask_over_http2(&mut send, &stoa, LARGE).await.expect("an answer");
    let scene = Scene::new("an answer over HTTP/2 that nobody takes", Ends::AtTheBound, stoa);
    scenes.push(scene.holding((send, connection, answer, upstream)));
    scenes
}

async fn of_disks() -> Vec<Scene> {
    let mut scenes = Vec::new();
    let world = World::new();
    if let Some(setup) = world.setup().on_tmpfs("4m") {
        let stoa = patient(setup.clone()).start();
        setup.tmpfs().fill(0);
        stoa.get(&format!("{BASE}.mod")).await.ok();
        world.upstream.fault("*.zip", Fault::hang_after(50));
        let scene = Scene::new("a full disk", Ends::AtTheBound, stoa);
        let scene = scene.asking(&format!("{BASE}.zip")).flying("file", 1).await;
        scenes.push(scene.holding(world).holding(setup));
    }
    let world = World::new();
    let setup = patient(world.setup());
    let stoa = setup.start();
    let database = setup.data_dir().join("stoa.db");
    let locked = SqliteConnectOptions::new().filename(database).connect().await;
    let mut locked = locked.expect("the index");
    sqlx::query("begin exclusive").execute(&mut locked).await.expect("a lock");
    stoa.get(&format!("{BASE}.zip")).await.ok();
    let scene = Scene::new("a locked index", Ends::AtOnce, stoa);
    scenes.push(scene.holding(world).holding(locked));
    scenes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_amid_every_fault() {
    let (upstreams, clients, disks) = tokio::join!(of_upstreams(), of_clients(), of_disks());
    let mut ending = Vec::new();
    for scene in upstreams.into_iter().chain(clients).chain(disks) {
        ending.push(tokio::task::spawn_blocking(move || {
            let Scene { amid, ends, mut stoa, held } = scene;
            let began = Instant::now();
            stoa.terminate();
            let code = stoa.wait().code();
            let took = began.elapsed();
            drop(held);
            let is_right = match (ends, code) {
                (Ends::AtOnce | Ends::Either, Some(0)) => true,
                (Ends::AtTheBound | Ends::Either, Some(1)) => took >= AT_ONCE,
                _ => false,
            };
            let mut wrong = String::new();
            if !is_right || took > DRAIN + MARGIN || stoa.log().contains("panicked") {
                let log = stoa.log();
                let last: Vec<&str> = log.lines().rev().take(12).collect();
                wrong = format!("{amid}: {code:?} after {took:?}, not {ends:?}:\n{last:#?}");
            }
            eprintln!("{amid}: {code:?} after {took:?}");
            wrong
        }));
    }
    let number = ending.len();
    let mut wrong = Vec::new();
    for ended in ending {
        wrong.push(ended.await.expect("an end"));
    }
    wrong.retain(|it| !it.is_empty());
    assert!(wrong.is_empty(), "{} of {number}:\n{}", wrong.len(), wrong.join("\n"));
}

/// A git command that waits for its remote, with all that it has started, ends with the server.
#[tokio::test]
async fn git_does_not_outlive_the_server() {
    if !require_git() {
        return;
    }
    let corp = Corp::new();
    corp.host(GIT, "lib", "lib").fault("*/info/refs*", Fault::hang());
    let setup = patient(corp.setup());
    let mut stoa = setup.start();
    let waiting = tokio::spawn(client().get(format!("{}/{GIT}/lib/@v/list", stoa.url)).send());
    let until = Instant::now() + PATIENCE;
    while !processes(&setup, &stoa).iter().any(|line| line.contains("ls-remote")) {
        assert!(Instant::now() < until, "git does not run");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let began = Instant::now();
    stoa.terminate();
    assert_eq!(stoa.wait().code(), Some(1));
    assert!(began.elapsed() < DRAIN + MARGIN, "{:?}", began.elapsed());
    let until = Instant::now() + PATIENCE;
    while !processes(&setup, &stoa).is_empty() {
        assert!(Instant::now() < until, "left behind: {:#?}", processes(&setup, &stoa));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    waiting.abort();
}
