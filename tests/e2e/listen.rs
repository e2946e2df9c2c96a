//! By which ways clients reach the server: unix sockets, a path prefix, proxies before it, a listener for the pages alone.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use stoa_testkit::{Fault, Gate};

use crate::fixtures::{BASE, Reply, World, client, modules};
use crate::stoa::{Setup, Stoa};

/// Over a unix socket, whatever the URL's host is.
pub async fn over_unix(socket: &Path, path: &str, headers: &[(&str, &str)]) -> Reply {
    let client = reqwest::Client::builder().unix_socket(socket).build().unwrap();
    let mut request = client.get(format!("http://stoa.example/{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let reply = request.send().await.expect("an answer");
    let (status, headers) = (reply.status(), reply.headers().clone());
    Reply { status, headers, body: reply.bytes().await.expect("a whole body").to_vec() }
}

/// Waits until the log has a line with all these words.
pub async fn logged(stoa: &Stoa, words: &[&str]) -> String {
    let found = async {
        loop {
            let log = stoa.log();
            let line = log.lines().find(|line| words.iter().all(|word| line.contains(word)));
            if let Some(line) = line {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(10), found).await;
    found.unwrap_or_else(|_| panic!("no line with {words:?} in:\n{}", stoa.log()))
}

#[tokio::test]
async fn a_unix_socket_serves_and_leaves_nothing_behind() {
    let world = World::new();
    let setup = world.setup();
    let socket = setup.scratch().join("stoa.sock");
    let setup = setup.env("STOA_LISTEN", format!("unix:{}", socket.display()));
    let mut stoa = setup.clone().env("STOA_SERVER_UNIX_MODE", "0600").start();
    assert_eq!(stoa.url, format!("unix:{}", socket.display()));
    assert_eq!(fs_err::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let zip = over_unix(&socket, &format!("{BASE}.zip"), &[]).await;
    assert!(zip.ok() == modules().zip("ex.com/lib@v1.0.0"));
    let home = over_unix(&socket, "", &[]).await;
    assert!(home.text().contains("GOPROXY=http://stoa.example<"), "{}", home.text());
    logged(&stoa, &["answered", "ex.com/lib", "client=unix"]).await;
    let (health, alone) = (setup.run(&["healthcheck"]), setup.data_dir().join("stoa.sock"));
    assert_eq!(health.status.code(), Some(0));
    // Also where there is no command socket.
    fs_err::remove_file(&alone).unwrap();
    assert_eq!(setup.run(&["healthcheck"]).status.code(), Some(0));

    // A second one says that somebody listens there; one that comes after a kill does not mind what was left.
    let other = Setup::new().env("STOA_LISTEN", &stoa.url);
    let refused = other.run(&["serve"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("the address is in use"), "{text}");
    stoa.kill();
    assert!(socket.exists());
    let again = setup.start();
    assert_eq!(fs_err::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    over_unix(&socket, "healthz", &[]).await.ok();
    assert_eq!(again.stop().0.code(), Some(0));
    assert!(!socket.exists());
}

#[tokio::test]
async fn below_a_prefix_everything_is_and_nothing_else() {
    let world = World::new();
    let setup = world.setup().env("STOA_SERVER_PATH_PREFIX", "/go/proxy");
    let stoa = setup.start();
    let root = stoa.url.strip_suffix("/go/proxy").expect("the url has the prefix").to_owned();
    assert!(stoa.get(&format!("{BASE}.zip")).await.ok() == modules().zip("ex.com/lib@v1.0.0"));
    let head = stoa.send(client().get(&stoa.url)).await;
    let slash = stoa.get("").await;
    for page in [head, slash] {
        assert!(page.text().contains(&format!("GOPROXY={}<", stoa.url)), "{}", page.text());
    }
    for path in [
        "healthz",
        "readyz",
        "version",
        "metrics",
        "robots.txt",
        "sumdb/sum.test.example/supported",
    ] {
        stoa.get(path).await.ok();
    }
    let at_root = async |path: &str| stoa.send(client().get(format!("{root}{path}"))).await;
    for path in ["/healthz", "/readyz", "/robots.txt"] {
        at_root(path).await.ok();
    }
    for path in [
        "/",
        "",
        "/version",
        "/metrics",
        "/go",
        "/go/",
        "/go/proxyx/@latest",
        "/GO/PROXY/",
        "/go%2fproxy/",
        "//go/proxy/",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([format!("/{BASE}.zip")])
    {
        let words = format!(
            "everything of this server is below /go/proxy\nhint: set GOPROXY={}\n",
            stoa.url
        );
        at_root(&path).await.refused(404, &words);
    }
    // The log has the whole path.
    logged(&stoa, &["url.path=\"/go/proxy/version\""]).await;
    let data = setup.data_dir().join("stoa.sock");
    fs_err::remove_file(data).unwrap();
    let checked =
        setup.env("STOA_LISTEN", root.strip_prefix("http://").unwrap()).run(&["healthcheck"]);
    assert_eq!(checked.status.code(), Some(0));
}

#[tokio::test]
async fn proxies_are_believed_if_they_are_named() {
    let socket = |setup: &Setup| setup.scratch().join("stoa.sock");
    let forwarded = [
        ("host", "inside"),
        ("x-forwarded-for", "203.0.113.66, 198.51.100.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "go.example.com"),
        ("x-forwarded-prefix", "/mirror"),
    ];
    let stranger = Setup::new().env("STOA_SERVER_TRUSTED_PROXIES", "10.0.0.0/8,unix").start();
    let home = stoa_home(stranger.get_with("", &forwarded).await);
    assert!(home.contains("GOPROXY=http://inside<"), "{home}");
    logged(&stranger, &["client=127.0.0.1", "status=200"]).await;

    let setup = Setup::new().env("STOA_SERVER_TRUSTED_PROXIES", "127.0.0.0/8");
    let known = setup.start();
    let home = stoa_home(known.get_with("", &forwarded).await);
    assert!(home.contains("GOPROXY=https://go.example.com/mirror<"), "{home}");
    logged(&known, &["client=198.51.100.7", "status=200"]).await;
    let strange = [
        ("host", "inside"),
        ("x-forwarded-for", "<script>"),
        ("x-forwarded-host", "a b"),
        ("x-forwarded-proto", "gopher"),
    ];
    let home = stoa_home(known.get_with("", &strange).await);
    assert!(home.contains("GOPROXY=http://inside<"), "{home}");
    logged(&known, &["client=127.0.0.1", "status=200"]).await;

    let setup = Setup::new().env("STOA_SERVER_TRUSTED_PROXIES", "unix");
    let path = socket(&setup);
    let over = setup.env("STOA_LISTEN", format!("unix:{}", path.display())).start();
    let home = stoa_home(over_unix(&path, "", &forwarded).await);
    assert!(home.contains("GOPROXY=https://go.example.com/mirror<"), "{home}");
    logged(&over, &["client=198.51.100.7"]).await;
}

fn stoa_home(reply: Reply) -> String {
    String::from_utf8(reply.ok()).unwrap()
}

/// `http://host:port` of the pages' own listener.
pub fn admin_url(stoa: &Stoa) -> String {
    let log = stoa.log();
    let line = log.lines().find(|line| line.contains("stoa is listening")).unwrap();
    let address = line.split("admin=\"").nth(1).and_then(|rest| rest.split('"').next());
    format!("http://{}", address.expect("the admin listener is logged"))
}

#[tokio::test]
async fn pages_can_have_a_listener_of_their_own() {
    let world = World::new();
    let gate = Gate::new();
    world.upstream.fault("*.zip", Fault::gate(&gate));
    let setup = world
        .setup()
        .env("STOA_SERVER_ADMIN_LISTEN", "127.0.0.1:0")
        .env("STOA_SERVER_MAX_CONNECTIONS", "2")
        .env("STOA_UPSTREAM_FILE_TIMEOUT", "30s");
    let stoa = setup.start();
    let admin = admin_url(&stoa);
    let pages = ["/", "/healthz", "/readyz", "/version", "/metrics"];
    let at_admin = async |path: &str| stoa.send(client().get(format!("{admin}{path}"))).await;
    for path in pages {
        let there = at_admin(path).await;
        stoa.get(&path[1..])
            .await
            .refused(404, "this server's pages are at another address\nhint: server.admin-listen");
        let text = String::from_utf8(there.ok()).unwrap();
        assert!(path != "/" || text.contains(&format!("GOPROXY={}<", stoa.url)), "{text}");
    }
    stoa.get("robots.txt").await.ok();
    stoa.get("ex.com/lib/@v/list").await.ok();
    let words = format!("this address serves no modules\nhint: set GOPROXY={}\n", stoa.url);
    at_admin("/ex.com/lib/@v/list").await.refused(404, &words);

    // The protocol's connections are all taken; the pages do not notice.
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..3 {
        waiting.spawn(client().get(format!("{}/{BASE}.zip", stoa.url)).send());
    }
    gate.wait_for_held(1).await;
    let taken = async {
        // Two, and the one that asks.
        while !at_admin("/metrics").await.text().contains("\nstoa_requests_in_progress 3\n") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), taken).await.expect("two are waiting");
    let full = client().get(format!("{}/robots.txt", stoa.url)).timeout(Duration::from_millis(200));
    assert!(full.send().await.is_err());
    at_admin("/readyz").await.ok();
    let checked = setup.run(&["healthcheck"]);
    assert_eq!(checked.status.code(), Some(0));
    gate.open();
    while let Some(reply) = waiting.join_next().await {
        assert_eq!(reply.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_health_check_asks_where_the_pages_are() {
    let setup = Setup::new();
    let socket = setup.scratch().join("admin.sock");
    let setup = setup.env("STOA_SERVER_ADMIN_LISTEN", format!("unix:{}", socket.display()));
    let stoa = setup.start();
    fs_err::remove_file(setup.data_dir().join("stoa.sock")).unwrap();
    assert_eq!(setup.run(&["healthcheck"]).status.code(), Some(0));
    over_unix(&socket, "version", &[]).await.ok();
    assert_eq!(stoa.stop().0.code(), Some(0));
    assert!(!socket.exists());
    let checked = setup.run(&["healthcheck"]);
    assert_eq!(checked.status.code(), Some(1));
    let text = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(text.contains("admin.sock"), "{text}");
}
