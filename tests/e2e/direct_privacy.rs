//! Which hosts learn the name of a private module: what they were asked is looked at, whatever was asked here and
//! whatever went wrong.

use std::collections::BTreeSet;

use stoa_testkit::{Answer, FakeUpstream, Fault, Internet, Modules, Reach, require_git};

use crate::direct_net::{CORP, Net, PROXY, SUMDB, with, with_file};
use crate::fixtures::{bounded, client};
use crate::stoa::Stoa;

/// A private proxy, for routes.
const ATHENS: &str = "athens.corp.example.com";
/// A public host that answers everything, so that it is asked again when it is asked once.
const ELSEWHERE: &str = "elsewhere.public.example";
const NAME: &str = "git.corp.example.com/team/secret";
/// No public host may see any of these in any letter case, encoded or not.
const NEEDLES: [&str; 2] = ["corp.example", "secret"];

/// Settings, a settings file, and which hosts they let know the name.
struct Case {
    env: &'static [(&'static str, &'static str)],
    file: &'static str,
    told: &'static [&'static str],
}

const fn case(
    env: &'static [(&'static str, &'static str)],
    file: &'static str,
    told: &'static [&'static str],
) -> Case {
    Case { env, file, told }
}

const TO_ATHENS: &str = "[[route]]\npattern = \"git.corp.example.com\"\ngoproxy = \"https://athens.corp.example.com\"\n";
const TO_ATHENS_OR_GIT: &str = "[[route]]\npattern = \"git.corp.example.com\"\n\
     goproxy = \"https://athens.corp.example.com|direct\"\n";
const TO_GIT: &str = "[[route]]\npattern = \"git.corp.example.com\"\ngoproxy = \"direct\"\n";

/// Public modules, of which a part is kept from some.
const PUBLIC: &[Case] = &[
    // Without a setting they are like all others; so these hosts would be seen to be told.
    case(&[], "", &[PROXY, SUMDB, CORP]),
    case(&[("STOA_GONOSUMDB", "git.corp.example.com")], "", &[PROXY, CORP]),
    case(&[], TO_GIT, &[SUMDB, CORP]),
    case(&[], TO_ATHENS, &[SUMDB, ATHENS]),
];

const PRIVATE: &[Case] = &[
    case(&[("STOA_GOPRIVATE", "git.corp.example.com")], "", &[CORP]),
    case(&[("STOA_GONOPROXY", "git.corp.example.com")], "", &[SUMDB, CORP]),
    case(&[("STOA_GOPRIVATE", "git.corp.example.com")], TO_ATHENS, &[ATHENS]),
    case(&[("STOA_GOPRIVATE", "*.corp.example.com")], TO_ATHENS_OR_GIT, &[ATHENS, CORP]),
    case(&[("STOA_GONOSUMDB", "git.corp.example.com")], TO_GIT, &[CORP]),
    case(&[("STOA_GONOSUMDB", "git.corp.example.com")], TO_ATHENS, &[ATHENS]),
];

/// Other words for GOPRIVATE.
const SPELLINGS: &[Case] = &[
    case(&[("STOA_GOPRIVATE", "example.org,*.corp.example.com")], "", &[CORP]),
    case(&[("STOA_GOPRIVATE", "git.corp.example.com"), ("STOA_GONOPROXY", "none")], "", &[CORP]),
    case(&[("STOA_GOPRIVATE", "git.corp.example.com"), ("STOA_GONOSUMDB", "none")], "", &[CORP]),
    case(&[("STOA_GOPRIVATE", "git.corp.example.com"), ("STOA_GOPROXY", "off")], "", &[CORP]),
    case(
        &[("STOA_GONOPROXY", "git.corp.example.com"), ("STOA_GONOSUMDB", "*.corp.example.com")],
        "",
        &[CORP],
    ),
];

/// What is asked, below `git.corp.example.com`: existing and not, as the go command asks and as it never would.
const ASKED: &[&str] = &[
    "team/secret/@v/list",
    "team/secret/@latest",
    "team/secret/@v/main.info",
    "team/secret/@v/nosuchbranch.info",
    "team/secret/@v/v1.0.0.info",
    "team/secret/@v/v1.0.0.mod",
    "team/secret/@v/v1.0.0.zip",
    "team/secret/@v/v1.9.0.info",
    "team/secret/@v/v1.9.0.mod",
    "team/secret/@v/v1.9.0.zip",
    "team/secret/@v/v0.0.0-20230102030405-abcdefabcdef.info",
    // Prefixes and packages, as the go command probes them.
    "@v/list",
    "@latest",
    "team/@v/list",
    "team/@latest",
    "team/secret/pkg/@v/list",
    "team/secret/v2/@latest",
    "team/secret.git/@latest",
    "team/!secret/@v/list",
    // What is no path of the protocol.
    "team/Secret/@v/list",
    "team/secret",
    "team/secret?go-get=1",
    "team/secret/@v/",
    "team/secret/@v/v1.0.0.ziphash",
    "team%2Fsecret/@v/list",
    "team/%73ecret/@v/v1.0.0.mod",
    "team/../team/secret/@v/list",
    "team//secret/@v/list",
];

/// A network with a private module at its host and at a private proxy. A public host claims to have both, too.
struct World {
    net: Net,
    athens: FakeUpstream,
}

/// What goes wrong at the hosts of the company.
type Trouble = (&'static str, fn(&World));

const TROUBLES: &[Trouble] = &[
    ("they are down", |world| {
        for host in [CORP, ATHENS] {
            world.net.internet.host(host).reach(Reach::Unresolvable);
        }
    }),
    ("404", |world| world.fault(&Fault::status(404))),
    ("500", |world| world.fault(&Fault::status(500))),
    ("all is elsewhere", |world| {
        world.fault(&Fault::redirect(format!("https://{ELSEWHERE}/team/secret?go-get=1")));
    }),
    ("repositories are elsewhere", |world| {
        let to = format!("https://{ELSEWHERE}/r/secret/info/refs?service=git-upload-pack");
        world.net.internet.host(CORP).fault("/r/*", Fault::redirect(to));
    }),
];

impl World {
    fn new() -> Self {
        let net = Net::new();
        net.module("secret", NAME);
        net.host(CORP).go_import("team/secret", "git", "https://git.corp.example.com/r/secret");
        let page = "<meta name=go-import content=\
                    'git.corp.example.com/team/secret git https://git.corp.example.com/r/secret'>";
        net.host(ELSEWHERE).page("/team/secret", Answer::new(200, "text/html", page));
        let files = [("go.mod", "module git.corp.example.com/team/secret\n")];
        let athens = FakeUpstream::start(Modules::default().with(&format!("{NAME}@v1.0.0"), files));
        net.internet.host(ATHENS).upstream(&athens);
        Self { net, athens }
    }

    fn fault(&self, fault: &Fault) {
        self.net.internet.host(CORP).fault("*", fault.clone());
        self.athens.fault("*", fault.clone());
    }

    fn start(&self, case: &Case) -> Stoa {
        with_file(with(self.net.setup(), case.env), case.file).start()
    }

    /// With a database that is asked at its own address alone, and not through the proxy.
    fn start_with_explicit_database(&self, case: &Case) -> Stoa {
        let gosumdb = format!("{} https://{SUMDB}", self.net.sumdb.verifier_key());
        with_file(with(self.net.setup().gosumdb(gosumdb), case.env), case.file).start()
    }

    /// Which hosts were told a private name.
    fn told(&self) -> BTreeSet<String> {
        let asked = self.net.internet.hosts_asked();
        let hosts = asked.iter().map(|it| it.rsplit_once(':').unwrap().0);
        hosts.filter(|host| tells(&self.net.internet, host)).map(str::to_owned).collect()
    }
}

/// Whether any request to a host shows a private name.
fn tells(internet: &Internet, host: &str) -> bool {
    let shows = |text: &str| {
        let text = text.to_ascii_lowercase();
        NEEDLES.iter().any(|needle| text.contains(needle))
    };
    internet.requests(host).iter().any(|request| {
        let headers = request.headers.iter().any(|(_, value)| shows(value));
        shows(&request.path) || shows(&request.target) || headers
    })
}

/// Asks for everything there is to be asked for, at once.
async fn ask(stoa: &Stoa, case: &Case) {
    // Its client is told what to set, or that there is no record.
    let lookup = if case.told.contains(&SUMDB) { 404 } else { 403 };
    let mut asked: Vec<String> = ASKED.iter().map(|path| format!("{CORP}/{path}")).collect();
    asked.extend([
        format!("sumdb/{SUMDB}/lookup/{NAME}@v1.0.0"),
        format!("sumdb/{SUMDB}/lookup/{NAME}@v1.9.0"),
        format!("sumdb/{SUMDB}/lookup/git.corp.example.com/team/!secret@v1.0.0"),
        format!("sumdb/{SUMDB}/lookup/git%2Ecorp.example.com/team/secret@v1.0.0"),
        "%67it.corp.example.com/team/secret/@v/list".to_owned(),
        "git%2Ecorp.example.com/team/secret/@latest".to_owned(),
    ]);
    // One for all: making one takes longer than most of the questions.
    let client = client();
    let client = &client;
    let asking = asked.iter().map(|path| async move {
        let url = format!("{}/{path}", stoa.url);
        let reply = bounded(stoa.send(client.get(url))).await;
        (path, reply.status.as_u16())
    });
    for (path, status) in futures_util::future::join_all(asking).await {
        let is_lookup = path.starts_with("sumdb/");
        assert!(!is_lookup || status == lookup, "{path}: {status}");
        // What the server has no words for.
        assert_ne!(status, 500, "{path}");
    }
}

/// No label of `/metrics` is a private name.
async fn metrics_are_silent(stoa: &Stoa) {
    let metrics = String::from_utf8(stoa.get("metrics").await.ok()).unwrap();
    assert!(metrics.contains("stoa_requests_total"), "{metrics}");
    let line = metrics.lines().find(|line| line.contains("secret") || line.contains("team"));
    assert_eq!(line, None);
}

#[tokio::test]
async fn the_settings_decide_who_learns_a_name() {
    if !require_git() {
        return;
    }
    let cases = PUBLIC.iter().chain(PRIVATE).chain(SPELLINGS);
    for (n, case) in cases.enumerate() {
        let world = World::new();
        let stoa =
            if n % 2 == 0 { world.start(case) } else { world.start_with_explicit_database(case) };
        ask(&stoa, case).await;
        let expected: BTreeSet<_> = case.told.iter().map(|&host| host.to_owned()).collect();
        assert_eq!(world.told(), expected, "{:?} {}", case.env, case.file);
        metrics_are_silent(&stoa).await;
    }
}

#[tokio::test]
async fn nobody_else_learns_it_when_something_goes_wrong() {
    if !require_git() {
        return;
    }
    for (trouble, begin) in TROUBLES {
        for case in PRIVATE {
            let world = World::new();
            begin(&world);
            let stoa = world.start(case);
            ask(&stoa, case).await;
            let told = world.told();
            let others: Vec<_> =
                told.iter().filter(|it| !case.told.contains(&it.as_str())).collect();
            assert!(others.is_empty(), "{trouble}: {:?} {}: {others:?}", case.env, case.file);
        }
    }
}

#[tokio::test]
async fn redirects_of_public_modules_are_followed() {
    if !require_git() {
        return;
    }
    // What the test above would see if private names were not kept at home.
    for (trouble, begin) in TROUBLES.iter().filter(|(trouble, _)| trouble.ends_with("elsewhere")) {
        let world = World::new();
        begin(&world);
        let stoa = world.start(&PUBLIC[0]);
        stoa.get(&format!("{NAME}/@latest")).await;
        assert!(world.told().contains(ELSEWHERE), "{trouble}: {:?}", world.told());
    }
}

#[tokio::test]
async fn a_repository_at_another_host() {
    if !require_git() {
        return;
    }
    // The page of the module's own host names it; that host learns what the page says and nothing more.
    for (url, status, words) in [
        ("https://elsewhere.public.example/r/mirror", 200, "v1.0.0"),
        ("https://git.other.example.org/r/mirror", 200, "v1.0.0"),
        // Inside the network a person must have named it.
        ("https://localhost:9/r/mirror", 403, "not a public one"),
        ("ssh://git@127.0.0.1:9/r/mirror", 403, "not a public one"),
    ] {
        let world = World::new();
        let net = &world.net;
        net.module("mirror", "git.corp.example.com/team/secret/of/all");
        for host in [ELSEWHERE, "git.other.example.org"] {
            net.host(host);
        }
        net.internet.host(CORP).go_import("team/secret/of/all", "git", url);
        let stoa = world.start(&PRIVATE[0]);
        let reply = bounded(stoa.get(&format!("{NAME}/of/all/@latest"))).await;
        assert_eq!(reply.status.as_u16(), status, "{url}: {}", reply.text());
        assert!(reply.text().contains(words), "{url}: {}", reply.text());
        assert_eq!(world.told(), BTreeSet::from([CORP.to_owned()]), "{url}");
        let asked = net.internet.hosts_asked().len();
        assert_eq!(asked, if status == 200 { 2 } else { 1 }, "{url}");
    }
}

#[tokio::test]
async fn what_is_nowhere_is_not_looked_up() {
    // GONOPROXY alone lets the database know a name, but there is nothing to verify.
    let world = World::new();
    world.fault(&Fault::status(404));
    let stoa = world.start(&PRIVATE[1]);
    for file in ["@v/v1.0.0.mod", "@v/v1.0.0.zip", "@v/v1.0.0.info"] {
        let reply = bounded(stoa.get(&format!("{NAME}/{file}"))).await;
        reply.refused(404, "direct: http: https://git.corp.example.com/team/secret?go-get=1");
    }
    assert_eq!(world.told(), BTreeSet::from([CORP.to_owned()]));
}
