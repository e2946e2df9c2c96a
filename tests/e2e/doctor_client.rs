//! `stoa doctor --client`: what it says of the go command's settings is what the real go command does with them, and
//! what it says mends them does.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use stoa::doctor::client::settings::Finding;
use stoa::doctor::client::{ClientReport, Verdict, examine};
use stoa_testkit::{FakeUpstream, Go, require_go};
use url::Url;

use crate::fixtures::{World, modules};
use crate::go::go;
use crate::stoa::Setup;

type Env = BTreeMap<String, String>;
type Settings<'s> = &'s [(&'s str, &'s str)];
type Names = &'static [&'static str];

async fn examined(client: &Go, env: &Env, url: Option<&str>) -> ClientReport {
    let url = url.map(|url| Url::parse(url).unwrap());
    examine(url, env, &client.project_dir()).await
}

/// Settings that the report shows as they are.
const NAMES: [&str; 7] =
    ["GOPROXY", "GONOPROXY", "GONOSUMDB", "GOSUMDB", "GOFLAGS", "GOPRIVATE", "GOAUTH"];

/// The environment of a shell that was given these lines, and what it writes when it then runs this.
fn sh(client: &Go, env: &Env, lines: &[String], then: &str) -> std::process::Output {
    let script = format!("set -e\n{}\n{then}", lines.join("\n"));
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).env_clear().envs(env).current_dir(client.project_dir());
    shell.stdin(Stdio::null()).output().unwrap()
}

fn environment_after(client: &Go, env: &Env, lines: &[String]) -> Env {
    let output = sh(client, env, lines, "env -0");
    assert!(output.status.success(), "{lines:?}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Whether `go mod download` works, and fetches through the stoa.
fn downloads(client: &Go, env: &Env, lines: &[String], stoa: &str) -> Result<(), String> {
    client.clear_modcache();
    client.clear_gopath();
    let output = sh(client, env, lines, "go mod download -x all");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let asked = said.contains(&format!("# get {stoa}/ex.com/lib/@v/v1.1.0.zip"));
    if output.status.success() && asked { Ok(()) } else { Err(said) }
}

fn findings(report: &ClientReport, verdict: Verdict) -> Vec<&'static str> {
    let findings = report.settings.iter().filter(|finding: &&Finding| finding.verdict == verdict);
    findings.map(|finding| finding.setting).collect()
}

#[tokio::test]
async fn what_it_says_mends_the_real_go_command() {
    if !require_go() {
        return;
    }
    let world = World::new();
    let stoa = world.setup().start();
    let key = world.sumdb.verifier_key();
    let with_login = stoa.url.replace("http://", "http://me:hunter2@");
    let with_path = format!("{}/go", stoa.url);
    let elsewhere = format!("{key} http://127.0.0.1:1");
    let behind = format!("{},http://127.0.0.1:1", stoa.url);
    let before = format!("http://127.0.0.1:1|{}", stoa.url);
    // Settings, those of them that defeat the stoa, and those that weaken it.
    let cases: &[(Settings<'_>, Names, Names)] = &[
        (&[("GOPROXY", "off")], &["GOPROXY"], &[]),
        (&[("GOPROXY", "direct")], &["GOPROXY"], &[]),
        (&[("GOPROXY", &with_login)], &["GOPROXY"], &[]),
        (&[("GOPROXY", &with_path)], &["GOPROXY"], &[]),
        (&[("GOPROXY", "nonsense")], &["GOPROXY"], &[]),
        (&[("GOPRIVATE", "ex.com")], &[], &["GONOPROXY"]),
        (&[("GOPRIVATE", "*")], &["GONOPROXY"], &["GONOSUMDB"]),
        (&[("GO111MODULE", "off")], &["GO111MODULE"], &[]),
        (&[("GOSUMDB", &elsewhere)], &[], &["GOSUMDB"]),
        (&[("GOSUMDB", "sum.test.example")], &["GOSUMDB"], &[]),
        (&[("GOPROXY", &before)], &["GOPROXY"], &[]),
        (&[("GOPROXY", &behind)], &[], &["GOPROXY"]),
    ];
    for (settings, defeats, weakens) in cases {
        // What goes past every proxy must not leave this machine.
        let mut client = go(&world, &stoa.url).env("HTTPS_PROXY", "http://127.0.0.1:1");
        for (name, value) in *settings {
            client = client.env(name, *value);
        }
        let env = client.environment();
        let report = examined(&client, &env, Some(&stoa.url)).await;
        let text = report.to_text(false);
        assert_eq!(findings(&report, Verdict::Defeats), *defeats, "{settings:?}\n{text}");
        assert_eq!(findings(&report, Verdict::Weakens), *weakens, "{settings:?}\n{text}");
        assert_eq!((report.exit(), report.questions[0].verdict), (1, Verdict::Fine), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        // Another proxy around it does not stop a download as long as nothing is missing.
        let works = downloads(&client, &env, &[], &stoa.url);
        let harmless = *settings == [("GOPROXY", behind.as_str())]
            || *settings == [("GOPROXY", before.as_str())];
        assert_eq!(works.is_ok(), harmless, "{settings:?}: {works:?}");

        let mut mended = environment_after(&client, &env, &report.lines.sh);
        // The default database is not the one of this test.
        let database = report.set.get("GOSUMDB").is_some_and(|value| value == "sum.golang.org");
        let lines: Vec<String> = if database {
            mended.insert("GOSUMDB".to_owned(), key.clone());
            vec![format!("export GOSUMDB={key}")]
        } else {
            report.lines.sh.clone()
        };
        let after = examined(&client, &mended, Some(&stoa.url)).await;
        assert_eq!(after.exit(), 0, "{settings:?}\n{}", after.to_text(false));
        downloads(&client, &env, &lines, &stoa.url)
            .unwrap_or_else(|said| panic!("{settings:?}: {said}"));
    }
}

#[tokio::test]
async fn settings_are_those_that_the_go_command_sees() {
    if !require_go() {
        return;
    }
    let world = World::new();
    let stoa = world.setup().start();
    let cases: &[(&str, Settings<'_>)] = &[
        ("", &[]),
        ("GOPROXY=off\nGOPRIVATE=a.example.com\n", &[("GOPRIVATE", "")]),
        (
            "GOPROXY=off\nGOPROXY=direct\n#GOSUMDB=off\n GOSUMDB=off\nnonsense\n",
            &[("GONOSUMDB", "b.example.com")],
        ),
        ("GONOPROXY=a.example.com\nGOFLAGS=-mod=mod -trimpath", &[("GOPRIVATE", "c.example.com")]),
        ("GOSUMDB=sum.golang.org https://sum.example.com\nGOFLAGS=", &[("GOAUTH", "off")]),
    ];
    for (stored, settings) in cases {
        let mut client = Go::new();
        client.write("go.mod", "module ex.com/app\n\ngo 1.99\ntoolchain go1.99.1\n");
        client.write("goenv", stored);
        let goenv = client.project_dir().join("goenv").display().to_string();
        for name in NAMES {
            client = client.env(name, "");
        }
        client = client.env("GOENV", goenv).env("GOTOOLCHAIN", "local");
        for (name, value) in *settings {
            client = client.env(name, *value);
        }
        let env = client.environment();
        let report = examined(&client, &env, Some(&stoa.url)).await;
        assert!(report.go.as_ref().is_some_and(|go| go.starts_with("go1.")), "{:?}", report.go);
        for finding in report.settings.iter().filter(|finding| NAMES.contains(&finding.setting)) {
            let said = client.ok(["env", finding.setting]).await;
            assert_eq!(
                finding.value,
                said.trim_end_matches('\n'),
                "{stored:?}: {}",
                finding.setting
            );
        }
        // Without the go command it is the same.
        let mut without = env.clone();
        without.insert("PATH".to_owned(), "/nowhere".to_owned());
        let blind = examined(&client, &without, Some(&stoa.url)).await;
        assert_eq!(blind.go, None);
        let shown = |report: &ClientReport| format!("{:?}", report.settings);
        assert_eq!(shown(&blind), shown(&report), "{stored:?}");
    }
}

#[tokio::test]
async fn what_was_stored_is_mended_by_what_is_stored() {
    if !require_go() {
        return;
    }
    let world = World::new();
    let stoa = world.setup().start();
    let client = go(&world, &stoa.url).env("GOPRIVATE", "");
    client.write("../goenv", "GOPROXY=off\nGOPRIVATE=*\nGOFLAGS=-mod=vendor\n");
    let goenv = client.project_dir().join("../goenv").display().to_string();
    let client = client.env("GOENV", goenv).env("GOFLAGS", "").env("GOPROXY", "direct");
    let env = client.environment();
    let report = examined(&client, &env, Some(&stoa.url)).await;
    let text = report.to_text(false);
    assert_eq!(findings(&report, Verdict::Defeats), ["GOPROXY", "GONOPROXY", "GOFLAGS"], "{text}");
    // GOPROXY is in the environment, which is stronger than what is stored.
    let lines = &report.lines.go_env;
    assert_eq!(lines[0], "unset GOPROXY", "{text}");
    let mended = environment_after(&client, &env, lines);
    let after = examined(&client, &mended, Some(&stoa.url)).await;
    assert_eq!(after.exit(), 0, "{}", after.to_text(false));
    // On a new machine nothing has to be unset.
    assert_eq!(after.lines.go_env.len(), 1, "{:?}", after.lines);
    downloads(&client, &env, lines, &stoa.url).unwrap();
}

#[tokio::test]
async fn a_vendor_directory_is_told() {
    if !require_go() {
        return;
    }
    let client = Go::new().project("-- go.mod --\nmodule ex.com/app\n\ngo 1.21\n");
    let is_told = async || {
        let report = examined(&client, &client.environment(), None).await;
        let found = report.settings.iter().find(|finding| finding.setting == "vendor").cloned();
        found.map(|finding| (finding.value, finding.verdict))
    };
    assert_eq!(is_told().await, None);
    client.write("vendor/modules.txt", "");
    let vendor = client.project_dir().join("vendor").display().to_string();
    assert_eq!(is_told().await, Some((vendor, Verdict::Fine)));
}

#[tokio::test]
async fn without_an_address_goproxy_names_it() {
    let world = World::new();
    let stoa = world.setup().start();
    let client = Go::new();
    let env: Env = [
        ("GOPROXY", stoa.url.as_str()),
        ("GOSUMDB", &world.sumdb.verifier_key()),
        ("GONOSUMDB", "*.corp.example.com"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let report = examined(&client, &env, None).await;
    let text = report.to_text(false);
    assert_eq!((report.exit(), report.stoa.as_deref()), (0, Some(stoa.url.as_str())), "{text}");
    assert!(text.starts_with(&format!("fine: the go command on this machine uses {}\n", stoa.url)));
    assert!(text.contains("Nothing to mend. On a new machine:\n"), "{text}");
    assert!(text.contains("  GONOSUMDB: '*.corp.example.com'\n"), "{text}");
    let questions: Vec<_> = report.questions.iter().map(|question| question.question).collect();
    assert_eq!(questions, ["version", "sumdb"]);

    // Nobody has said which stoa is meant, and this is another proxy.
    for goproxy in [&world.upstream.url(), "off", "direct"] {
        let env = Env::from([("GOPROXY".to_owned(), goproxy.to_owned())]);
        let report = examined(&client, &env, None).await;
        let text = report.to_text(false);
        assert_eq!((report.exit(), report.stoa.as_deref()), (1, None), "{text}");
        assert!(report.settings[0].says.contains("doctor --client URL"), "{text}");
        assert!(report.lines.sh.is_empty() && report.questions.len() < 2, "{text}");
    }
}

/// The verdict on the first question, and its words.
#[track_caller]
fn first(report: &ClientReport, verdict: Verdict, words: &str) {
    let question = &report.questions[0];
    let is_so = question.verdict == verdict && question.says.contains(words);
    assert!(is_so, "{words:?} is not in {question:?}");
    assert_eq!(report.exit(), u8::from(report.verdict != Verdict::Fine));
}

#[tokio::test]
async fn what_is_found_at_the_address() {
    let world = World::new();
    let client = Go::new();
    let key = world.sumdb.verifier_key();
    let asked = async |url: &str| {
        let env = [("GOPROXY", url), ("GOSUMDB", &key)];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let begun = Instant::now();
        let report = examined(&client, &env, None).await;
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        report
    };

    let stoa = world.setup().start();
    first(&asked(&stoa.url).await, Verdict::Fine, "stoa 0.");
    let apart = world.setup().env("STOA_SERVER_ADMIN_LISTEN", "127.0.0.1:0").start();
    let report = asked(&apart.url).await;
    first(&report, Verdict::Fine, "its pages are at another address");
    assert_eq!(report.exit(), 0, "{}", report.to_text(false));
    let below = world.setup().env("STOA_SERVER_PATH_PREFIX", "/go").start();
    first(&asked(&below.url).await, Verdict::Fine, "stoa 0.");
    let root = below.url.strip_suffix("/go").unwrap();
    first(&asked(root).await, Verdict::Defeats, &format!("set GOPROXY={}", below.url));
    // One that verifies with another database, or none.
    let other = world.setup().gosumdb("off").start();
    let report = asked(&other.url).await;
    first(&report, Verdict::Fine, "stoa 0.");
    assert_eq!((report.questions[1].verdict, report.verdict), (Verdict::Weakens, Verdict::Weakens));

    // Others.
    first(&asked(&world.upstream.url()).await, Verdict::Defeats, "does not say whether it is stoa");
    let named = examined(&client, &Env::new(), Some(&world.upstream.url())).await;
    assert_eq!(named.stoa, Some(world.upstream.url()));
    let plain = FakeUpstream::start(modules());
    first(&asked(&plain.url()).await, Verdict::Defeats, "no stoa there");
    first(&asked("http://127.0.0.1:1").await, Verdict::Defeats, "refused");
    first(&asked("http://nowhere.invalid").await, Verdict::Defeats, "dns");
    let silent = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let silent = silent.local_addr().unwrap();
    first(&asked(&format!("http://{silent}")).await, Verdict::Defeats, "");
}

#[tokio::test]
async fn over_tls() {
    let world = World::new();
    let setup = Setup::new();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let put = |name: &str, text: String| {
        let path = setup.scratch().join(name);
        fs_err::write(&path, text).unwrap();
        path.display().to_string()
    };
    let stoa = world
        .setup()
        .env("STOA_SERVER_TLS_CERT", put("tls.crt", cert.pem()))
        .env("STOA_SERVER_TLS_KEY", put("tls.key", signing_key.serialize_pem()))
        .start();
    let client = Go::new();
    let https = stoa.url.as_str();
    assert!(https.starts_with("https://"), "{https}");
    let env: Env = client.environment();
    first(&examined(&client, &env, Some(https)).await, Verdict::Defeats, "SSL_CERT_FILE");
    let http = https.replace("https://", "http://");
    let report = examined(&client, &env, Some(&http)).await;
    first(&report, Verdict::Defeats, "speaks TLS");
    let plain = world.setup().start();
    let https = plain.url.replace("http://", "https://");
    first(&examined(&client, &env, Some(&https)).await, Verdict::Defeats, "should it be http://?");
}
