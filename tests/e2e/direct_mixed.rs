//! Builds of public modules from a proxy and of private ones from git through one GOPROXY, by the real go command: with the
//! answers and hashes that it has by itself in direct mode, and then without any network.

use std::collections::BTreeSet;
use std::time::Duration;

use stoa_module::H1;
use stoa_testkit::{Answer, Fault, Gate, Go, Modules, Reach, require_git, require_go};

use crate::direct_net::{CORP, Net, PROXY, SUMDB, module_files};
use crate::fixtures::bounded;
use crate::stoa::{Setup, Stoa};

/// Another host of the company's, where modules have names of their own.
const VANITY: &str = "go.corp.example.com";

const APP: &str = r#"
-- go.mod --
module example.org/app

go 1.21
-- main.go --
package main

import (
	"fmt"

	"ex.com/lib"
	"git.corp.example.com/r/one.git"
	"git.corp.example.com/r/one.git/deep/er"
	"go.corp.example.com/two"
	twotwo "go.corp.example.com/two/v2/pkg"
)

func main() { fmt.Println(lib.Name(), one.Name(), er.Name(), two.Name(), twotwo.Name()) }
"#;

const PRINTS: &str = "lib v1.1.0 one deeper two two/v2\n";

fn code(package: &str, says: &str) -> String {
    format!("package {package}\n\nfunc Name() string {{ return \"{says}\" }}\n")
}

/// Private modules: `one` by a path with `.git`, with another in a directory of it; `two` by a page, with a second major
/// version; `four` by a page that names a directory, too.
fn company() -> Net {
    let net = Net::new();
    let (one, deeper) = (code("one", "one"), code("er", "deeper"));
    net.repository("one", &[
        ("v1.0.0", &[
            ("go.mod", "module git.corp.example.com/r/one.git\n\ngo 1.21\n\nrequire ex.com/lib v1.0.0\n"),
            ("one.go", &one),
            ("LICENSE", "as you like it\n"),
        ]),
        ("v1.1.0-rc.1", &[("README", "soon\n")]),
        ("", &[
            ("deep/er/go.mod", "module git.corp.example.com/r/one.git/deep/er\n\ngo 1.21\n"),
            ("deep/er/er.go", &deeper),
        ]),
        ("deep/er/v0.3.0", &[]),
        ("", &[("README", "later\n")]),
    ]);
    let (two, twotwo) = (code("two", "two"), code("pkg", "two/v2"));
    let wanted = "module go.corp.example.com/two\n\ngo 1.21\n\nrequire ex.com/lib v1.1.0\n";
    net.repository(
        "two",
        &[
            ("v1.2.3", &[("go.mod", wanted), ("two.go", &two), ("vendor/modules.txt", "\n")]),
            (
                "v2.0.1",
                &[
                    ("go.mod", "module go.corp.example.com/two/v2\n\ngo 1.24\n"),
                    ("pkg/two.go", &twotwo),
                ],
            ),
        ],
    );
    net.host(CORP);
    let four = code("four", "four");
    net.repository(
        "four",
        &[
            ("v0.9.0", &[("go.mod", "module example.org/another\n")]),
            (
                "",
                &[
                    ("go/mod/go.mod", "module go.corp.example.com/four\n"),
                    ("go/mod/four.go", &four),
                ],
            ),
            ("go/mod/v0.1.0", &[]),
        ],
    );
    let content = format!("go.corp.example.com/four git https://{CORP}/r/four go/mod");
    let page = format!("<meta name=\"go-import\" content=\"{content}\">");
    net.internet.host(VANITY).page("/four", Answer::new(200, "text/html", page));
    net.internet.host(VANITY).go_import("two", "git", &format!("https://{CORP}/r/two"));
    net
}

fn private(setup: Setup) -> Setup {
    setup.env("STOA_GOPRIVATE", "*.corp.example.com")
}

/// The client as docs/private-modules.md has it.
fn client(net: &Net, stoa: &Stoa) -> Go {
    net.client(stoa).gonosumdb("*.corp.example.com")
}

/// The lines of a go.sum about private modules.
fn private_sums(go: &Go) -> BTreeSet<String> {
    let sums = go.read("go.sum");
    sums.lines().filter(|line| line.contains(".corp.example.com")).map(str::to_owned).collect()
}

#[tokio::test]
async fn one_proxy_for_public_and_private_modules() {
    if !(require_go() && require_git()) {
        return;
    }
    let net = company();
    let setup = private(net.setup());
    let stoa = setup.start();
    let go = client(&net, &stoa).project(APP);
    go.ok(["mod", "tidy"]).await;
    assert_eq!(go.ok(["run", "."]).await, PRINTS);
    let sums = private_sums(&go);
    assert_eq!(sums.len(), 8, "{sums:#?}");

    // The go command by itself has the same, and the public modules of the same proxy.
    let alone =
        net.direct().env("GOPRIVATE", "*.corp.example.com").goproxy(net.proxy.url()).project(APP);
    alone.ok(["mod", "tidy"]).await;
    assert_eq!(alone.ok(["run", "."]).await, PRINTS);
    assert_eq!(
        (go.read("go.mod"), go.read("go.sum")),
        (alone.read("go.mod"), alone.read("go.sum"))
    );
    drop(alone);

    // A client that has GOPRIVATE for other tools comes here with GONOPROXY=none.
    let other = net.client(&stoa).env("GOPRIVATE", "*.corp.example.com").env("GONOPROXY", "none");
    let other = other.project(APP);
    other.ok(["mod", "tidy"]).await;
    assert_eq!(other.read("go.sum"), go.read("go.sum"));
    stoa.stop();

    // Nobody is there any more, and nobody is missed.
    for host in [CORP, VANITY] {
        net.internet.host(host).reach(Reach::Unresolvable);
    }
    net.proxy.fault("*", Fault::status(500));
    net.internet.forget_requests();
    let offline = setup.offline().start();
    let (go_mod, go_sum) = (go.read("go.mod"), go.read("go.sum"));
    drop(go);
    let fresh = client(&net, &offline).project(APP);
    fresh.ok(["mod", "tidy"]).await;
    assert_eq!(fresh.ok(["run", "."]).await, PRINTS);
    assert_eq!((fresh.read("go.mod"), fresh.read("go.sum")), (go_mod, go_sum));
    let one = "git.corp.example.com/r/one.git";
    // What is stored, and nothing that could not be had.
    let list = fresh.ok(["list", "-m", "-versions", one]).await;
    assert_eq!(list, format!("{one} v1.0.0\n"));
    let missing = fresh.fails(["get", &format!("{one}@v1.1.0-rc.1")]).await;
    assert!(missing.contains("offline, not stored"), "{missing}");
    assert_eq!(net.internet.hosts_asked(), Vec::<String>::new());
}

#[tokio::test]
async fn versions_and_queries_are_the_go_commands() {
    if !(require_go() && require_git()) {
        return;
    }
    let net = company();
    let stoa = private(net.setup()).start();
    let go = client(&net, &stoa).project("-- go.mod --\nmodule example.org/app\n");
    let alone = net.direct().env("GOPRIVATE", "*.corp.example.com");
    let alone = alone.project("-- go.mod --\nmodule example.org/app\n");
    let args = [
        "list",
        "-m",
        "-versions",
        "git.corp.example.com/r/one.git",
        "git.corp.example.com/r/one.git/deep/er",
        "go.corp.example.com/two",
        "go.corp.example.com/two/v2",
        "go.corp.example.com/four",
    ];
    let lists = go.ok(args).await;
    assert_eq!(lists, alone.ok(args).await);
    assert_eq!(lists.matches(" v").count(), 6, "{lists}");
    let hash = |rev: &str| net.remotes.git("one", &["rev-parse", rev]).trim().to_owned();
    let (head, first) = (hash("main"), hash("v1.0.0"));
    let queries = [
        "git.corp.example.com/r/one.git@latest".to_owned(),
        "git.corp.example.com/r/one.git@main".to_owned(),
        "git.corp.example.com/r/one.git@v1".to_owned(),
        "git.corp.example.com/r/one.git@<v1.1.0".to_owned(),
        format!("git.corp.example.com/r/one.git@{head}"),
        format!("git.corp.example.com/r/one.git@{}", &first[..9]),
        format!("git.corp.example.com/r/one.git@v0.0.0-20231114221320-{}", &first[..12]),
        "git.corp.example.com/r/one.git/deep/er@latest".to_owned(),
        "git.corp.example.com/r/one.git/deep/er@main".to_owned(),
        "go.corp.example.com/two@latest".to_owned(),
        "go.corp.example.com/two@main".to_owned(),
        "go.corp.example.com/two/v2@latest".to_owned(),
        "go.corp.example.com/two@upgrade".to_owned(),
        "go.corp.example.com/four@latest".to_owned(),
        "go.corp.example.com/four@main".to_owned(),
        // There is no such thing.
        "git.corp.example.com/r/one.git@nobranch".to_owned(),
        "git.corp.example.com/r/one.git@v9.9.9".to_owned(),
        "git.corp.example.com/r/none.git@latest".to_owned(),
        "go.corp.example.com/two/v3@latest".to_owned(),
        "go.corp.example.com/none@latest".to_owned(),
    ];
    let shown = "{{.Path}}@{{.Query}} {{.Version}} {{.Time}}{{with .Error}} is an error{{end}}";
    let args: Vec<&str> = ["list", "-m", "-e", "-f", shown]
        .into_iter()
        .chain(queries.iter().map(String::as_str))
        .collect();
    let (got, expected) = (go.ok(&args).await, alone.ok(&args).await);
    assert_eq!(got, expected);
    assert_eq!(
        (got.lines().count(), got.matches("is an error").count()),
        (queries.len(), 6),
        "{got}"
    );
    for query in [0, 1, 4, 9, 11, 13].map(|n| &queries[n]) {
        go.ok(["get", query]).await;
        alone.ok(["get", query]).await;
        let both = |file: &str| (go.read(file), alone.read(file));
        let ((go_mod, own_mod), (go_sum, own_sum)) = (both("go.mod"), both("go.sum"));
        assert_eq!((go_mod, go_sum), (own_mod, own_sum), "{query}");
    }
}

#[tokio::test]
async fn twenty_versions_at_once_are_one_clone() {
    if !require_git() {
        return;
    }
    let net = Net::new();
    net.host(CORP);
    net.module("many", "git.corp.example.com/r/many.git");
    for n in 1..20 {
        let (tag, text) = (format!("v1.{n}.0"), format!("package lib // {n}\n"));
        net.repository("many", &[(&tag, &[("n.go", &text)])]);
    }
    // Until all have come.
    let gate = Gate::new();
    net.internet.host(CORP).fault("*/info/refs*", Fault::gate(&gate));
    let stoa = private(net.setup()).start();
    let client = crate::fixtures::client();
    let asking = (0..20).map(|n| {
        let path = format!("git.corp.example.com/r/many.git/@v/v1.{n}.0.zip");
        let request = client.get(format!("{}/{path}", stoa.url));
        async { bounded(stoa.send(request)).await.ok() }
    });
    let opening = async {
        net.internet.wait_for_request(CORP, "*/info/refs*").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        gate.open();
    };
    let (zips, ()) = tokio::join!(futures_util::future::join_all(asking), opening);
    let different: BTreeSet<_> = zips.iter().collect();
    assert_eq!(different.len(), 20);
    // What is there was listed once, and once more by git when it fetched.
    assert_eq!((net.internet.clones(), net.internet.ls_remotes()), (1, 2));
}

/// Whether a host was asked about a module.
fn told_of(net: &Net, host: &str, module: &str) -> bool {
    net.internet.requests(host).iter().any(|request| request.path.contains(module))
}

/// A record of the checksum database, or none, and what comes of it.
type Record = (&'static str, Option<bool>, u16, &'static [&'static str]);

#[tokio::test]
async fn what_comes_direct_is_verified_when_it_is_public() {
    if !require_git() {
        return;
    }
    let records: &[Record] = &[
        ("right", Some(true), 200, &[]),
        ("wrong", Some(false), 403, &["checksum mismatch"]),
        ("none", None, 404, &["has no record of it", "GOPRIVATE"]),
    ];
    for (name, record, status, words) in records {
        let net = Net::new();
        let module = format!("code.public.example/r/{name}.git");
        net.module(name, &module);
        net.host("code.public.example");
        let version = format!("{module}@v1.0.0");
        let right = Modules::default().with(&version, module_files(&module));
        let (zip, go_mod) = (right.zip_h1(&version), right.go_mod_h1(&version));
        let other = H1::of_go_mod(b"other content");
        if let Some(is_right) = record {
            net.sumdb.append_record(&version, if *is_right { zip } else { other }, go_mod);
        }
        let stoa = net.setup().start();
        let reply = bounded(stoa.get(&format!("{module}/@v/v1.0.0.zip"))).await;
        let text = String::from_utf8_lossy(&reply.body);
        assert_eq!(reply.status.as_u16(), *status, "{name}: {text}");
        for words in *words {
            assert!(text.contains(words), "{name}: {text}");
        }
        if *status == 403 {
            let (found, recorded) = (zip.to_string(), other.to_string());
            assert!(text.contains(&found) && text.contains(&recorded), "both hashes: {text}");
        }
        assert!(told_of(&net, PROXY, &module) && told_of(&net, SUMDB, &module));
    }
}
