//! Behind a real nginx, with the very files that are given to people: deploy/nginx/stoa.conf and
//! config/examples/behind-nginx.toml.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stoa_testkit::{FakeUpstream, Modules, require_go};

use crate::fixtures::{World, client, noise};
use crate::listen::logged;
use crate::stoa::{Setup, Stoa};

/// nginx's program. Without one the test is skipped; with `STOA_REQUIRE_NGINX=1` it fails.
fn require_nginx() -> Option<&'static str> {
    // Debian has it where users do not look.
    let found = ["nginx", "/usr/sbin/nginx"].into_iter().find(|program| {
        let mut nginx = Command::new(program);
        nginx.arg("-v").stderr(Stdio::null());
        nginx.status().is_ok_and(|status| status.success())
    });
    if found.is_none() {
        let required = std::env::var_os("STOA_REQUIRE_NGINX").is_some_and(|value| value == "1");
        assert!(!required, "STOA_REQUIRE_NGINX=1, but there is no nginx");
        eprintln!("skipped: there is no nginx");
    }
    found
}

/// A file of the repository, in which each of these is there and is replaced.
fn given(path: &str, replace: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    let mut text = fs_err::read_to_string(path).unwrap();
    for (from, to) in replace {
        assert!(text.contains(from), "{from} is not in:\n{text}");
        text = text.replace(from, to);
    }
    text
}

struct Nginx {
    child: Child,
    url: String,
    dir: PathBuf,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM: its worker ends with it.
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs_err::read_to_string(self.dir.join("error.log"));
            eprintln!("--- log of nginx:\n{}", log.unwrap_or_default());
        }
    }
}

impl Nginx {
    async fn start(program: &str, setup: &Setup, socket: &Path) -> Self {
        let dir = setup.scratch().join("nginx");
        fs_err::create_dir_all(&dir).unwrap();
        // Free now; whoever takes it meanwhile makes nginx say so.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let site = given(
            "deploy/nginx/stoa.conf",
            &[
                ("/run/stoa/stoa.sock", socket.to_str().unwrap()),
                ("listen 80;", &format!("listen {address};")),
            ],
        );
        fs_err::write(dir.join("stoa.conf"), site).unwrap();
        let at = dir.display();
        let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {at}/{what};\n"))
            .concat();
        // Root would else be another user who cannot reach the socket.
        let main = format!(
            "daemon off;\nuser root;\nworker_processes 1;\npid {at}/pid;\nevents {{}}\n\
             http {{\naccess_log off;\n{places}include {at}/stoa.conf;\n}}\n"
        );
        fs_err::write(dir.join("nginx.conf"), main).unwrap();
        let log = dir.join("error.log");
        let mut nginx = Command::new(program);
        nginx.arg("-p").arg(&dir).arg("-c").arg(dir.join("nginx.conf")).arg("-e").arg(&log);
        let child = nginx.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let nginx = Self { child, url: format!("http://{address}/goproxy"), dir };
        let up = async {
            while client().get(&nginx.url).send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), up).await.expect("nginx answers");
        nginx
    }
}

/// A server with the example's settings, and nginx before it.
async fn behind(program: &str, setup: Setup) -> (Stoa, Nginx) {
    let socket = setup.scratch().join("stoa.sock");
    let settings = given(
        "config/examples/behind-nginx.toml",
        &[("/run/stoa/stoa.sock", socket.to_str().unwrap())],
    );
    fs_err::write(setup.scratch().join("stoa.toml"), settings).unwrap();
    // An empty variable is not set: the file's holds.
    let setup = setup.env("STOA_LISTEN", "");
    let stoa = setup.start();
    assert_eq!(setup.run(&["healthcheck"]).status.code(), Some(0));
    let nginx = Nginx::start(program, &setup, &socket).await;
    (stoa, nginx)
}

#[tokio::test]
async fn people_and_the_go_command_reach_it_through_nginx() {
    let Some(program) = require_nginx() else { return };
    let world = World::new();
    let (stoa, nginx) = behind(program, world.setup()).await;
    for page in [nginx.url.clone(), format!("{}/", nginx.url)] {
        let home = stoa.send(client().get(page).header("x-forwarded-for", "203.0.113.66")).await;
        assert!(home.text().contains(&format!("GOPROXY={}<", nginx.url)), "{}", home.text());
    }
    // The client is who asked nginx, whatever that one says.
    logged(&stoa, &["client=127.0.0.1", "status=200", "url.path=\"/goproxy/\""]).await;
    for path in ["ex.com/!upper/!case/@v/v1.0.0.mod", "ex.com/%21upper/%21case/@v/v1.0.0.info"] {
        stoa.send(client().get(format!("{}/{path}", nginx.url))).await.ok();
    }
    let answer = stoa.send(client().get(format!("{}/ex.com/none/@v/list", nginx.url))).await;
    answer.refused(404, "ex.com/none");
    // One id in both logs.
    assert_eq!(answer.header("x-request-id").len(), 32, "nginx's own");
    if require_go() {
        let go = crate::go::go(&world, &nginx.url);
        go.ok(["mod", "download", "all"]).await;
        assert_eq!(go.ok(["run", "."]).await, "lib v1.1.0 and Case and old\n");
    }
}

#[tokio::test]
async fn a_large_zip_passes_nginx_without_being_laid_down_there() {
    let Some(program) = require_nginx() else { return };
    let modules = Modules::default().with("ex.com/big@v1.0.0", [("noise.bin", noise(12 << 20))]);
    let expected = modules.zip("ex.com/big@v1.0.0").to_vec();
    let upstream = FakeUpstream::start(modules);
    let (stoa, nginx) = behind(program, Setup::new().goproxy(upstream.url())).await;
    let url = format!("{}/ex.com/big/@v/v1.0.0.zip", nginx.url);
    let mut reply = client().get(&url).send().await.unwrap();
    let mut read = reply.chunk().await.unwrap().unwrap().to_vec();
    // A client that rests: what it has not taken stays with stoa.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!stoa.log().contains("module.path=\"ex.com/big\""), "{}", stoa.log());
    while let Some(chunk) = reply.chunk().await.unwrap() {
        read.extend(chunk);
    }
    assert!(read == expected);
    let laid_down = |dir: &Path| fs_err::read_dir(dir).is_ok_and(|files| files.count() > 0);
    assert!(!laid_down(&nginx.dir.join("proxy")), "nginx kept a part of it");
    let part = stoa.send(client().get(&url).header("range", "bytes=12000000-")).await;
    assert_eq!(part.status, 206);
    assert!(part.body == expected[12_000_000..]);
}
