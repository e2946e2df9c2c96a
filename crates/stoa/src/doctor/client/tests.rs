use std::collections::BTreeMap;

use stoa_module::ErrorClass;
use stoa_upstream::{Failure, Source, Stage};

use super::lines::Lines;
use super::machine::{Machine, Origin};
use super::settings::{Finding, of_a_new_machine};
use super::*;

const STOA: &str = "http://stoa:3000";

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn settings(env: &BTreeMap<String, String>, stoa: &str) -> Vec<Finding> {
    let machine = Machine::of(env.clone(), BTreeMap::new());
    settings::check(&machine, Some(&Url::parse(stoa).unwrap()))
}

/// What is not fine, as `verdict SETTING [NAME=VALUE]`.
fn troubles(findings: &[Finding]) -> Vec<String> {
    let troubles = findings.iter().filter(|finding| finding.verdict != Verdict::Fine);
    let shown = troubles.map(|finding| {
        let set = finding.set.as_ref();
        let set = set.map(|set| format!(" {}={}", set.name, set.value)).unwrap_or_default();
        format!("{} {}{set}", finding.verdict.as_str(), finding.setting)
    });
    shown.collect()
}

/// With GOPROXY naming the stoa, unless it is among the variables. What mends it must leave nothing wrong.
#[track_caller]
fn check_for(stoa: &str, env: &[(&str, &str)], expected: &[&str]) {
    let mut env = map(env);
    env.entry("GOPROXY".to_owned()).or_insert_with(|| stoa.to_owned());
    let findings = settings(&env, stoa);
    assert_eq!(troubles(&findings), expected, "{env:?}: {findings:#?}");
    for change in findings.iter().filter_map(|finding| finding.set.as_ref()) {
        assert!(!change.value.is_empty(), "an empty variable lets the stored one through");
        env.insert(change.name.to_owned(), change.value.clone());
    }
    let mended = settings(&env, stoa);
    assert_eq!(troubles(&mended), Vec::<String>::new(), "{env:?} is mended: {mended:#?}");
}

#[track_caller]
fn check(env: &[(&str, &str)], expected: &[&str]) {
    check_for(STOA, env, expected);
}

#[test]
fn goproxy() {
    let is = |value: &str, expected: &[&str]| check(&[("GOPROXY", value)], expected);
    let defeats: &[&str] = &["defeats GOPROXY GOPROXY=http://stoa:3000"];
    let weakens: &[&str] = &["weakens GOPROXY GOPROXY=http://stoa:3000"];
    is("http://stoa:3000", &[]);
    is("http://stoa:3000/", &[]);
    is(" http://STOA:3000 ,", &[]);
    is("http://stoa:3000,off", &[]);
    is("http://stoa:3000,direct", weakens);
    is("http://stoa:3000|direct", weakens);
    is("http://stoa:3000,https://proxy.golang.org,direct", weakens);
    is("file:///cache,http://stoa:3000", weakens);
    // go is asked with its default.
    is("", defeats);
    is("https://proxy.golang.org,direct", defeats);
    is("https://proxy.golang.org,http://stoa:3000", defeats);
    is("off", defeats);
    is("direct", defeats);
    is("off,http://stoa:3000", defeats);
    is("direct,http://stoa:3000", defeats);
    is("https://stoa:3000", defeats);
    is("stoa:3000", defeats);
    is("http://stoa", defeats);
    is("http://stoa:3000/go", defeats);
    is("http://stoa:3000,nonsense", defeats);
    is(",", defeats);
    is("http://me:secret@stoa:3000", defeats);
    // With a path, over TLS, and with a login.
    let is = |value: &str, expected: &[&str]| {
        check_for("https://go.example.com/proxy/", &[("GOPROXY", value)], expected);
    };
    is("https://go.example.com/proxy", &[]);
    is("go.example.com/proxy/", &[]);
    is("https://me:secret@go.example.com:443/proxy", &[]);
    is("https://go.example.com", &["defeats GOPROXY GOPROXY=https://go.example.com/proxy"]);
    check_for("http://localhost:3000", &[("GOPROXY", "http://127.0.0.1:3000")], &[]);
}

#[test]
fn private_modules() {
    let past = "weakens GONOPROXY GONOPROXY=none";
    let everything = "defeats GONOPROXY GONOPROXY=none";
    check(&[("GOPRIVATE", "git.corp.example.com")], &[past]);
    check(&[("GOPRIVATE", "git.corp.example.com"), ("GONOPROXY", "none")], &[]);
    check(&[("GONOSUMDB", "git.corp.example.com,github.com/corp")], &[]);
    check(&[("GONOPROXY", "none"), ("GONOSUMDB", "none")], &[]);
    for public in ["*", "*.*", "github.com", "github.com/*", "golang.org/x"] {
        check(&[("GOPRIVATE", public)], &[everything, "weakens GONOSUMDB GONOSUMDB=none"]);
        check(&[("GONOSUMDB", public)], &["weakens GONOSUMDB GONOSUMDB=none"]);
        check(
            &[("GONOSUMDB", public), ("GOSUMDB", "off")],
            &["weakens GONOSUMDB GONOSUMDB=none", "weakens GOSUMDB GOSUMDB=sum.golang.org"],
        );
    }
    check(&[("GOPRIVATE", "*/*/*/internal,github.com/corp")], &[past]);
    // What goes past the proxy is private, and has no place in the public database either.
    check(
        &[("GONOPROXY", "git.corp.example.com,github.com/corp"), ("GONOSUMDB", "github.com/corp")],
        &[past, "weakens GONOSUMDB GONOSUMDB=github.com/corp,git.corp.example.com"],
    );
    check(
        &[("GONOPROXY", "git.corp.example.com"), ("GONOSUMDB", "*")],
        &[past, "weakens GONOSUMDB GONOSUMDB=git.corp.example.com"],
    );
    check(
        &[("GONOPROXY", "git.corp.example.com/team"), ("GONOSUMDB", "*.corp.example.com")],
        &[past],
    );
    // What the go command passes over.
    check(
        &[("GONOSUMDB", "a.example.com, b.example.com")],
        &["weakens GONOSUMDB GONOSUMDB=a.example.com,b.example.com"],
    );
    check(
        &[("GONOSUMDB", "https://a.example.com/,b.example.com/[")],
        &["weakens GONOSUMDB GONOSUMDB=a.example.com"],
    );
}

#[test]
fn checksum_database() {
    const KEY: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
    let is = |value: &str, expected: &[&str]| check(&[("GOSUMDB", value)], expected);
    let weakens: &[&str] = &["weakens GOSUMDB GOSUMDB=sum.golang.org"];
    is("sum.golang.org", &[]);
    is(KEY, &[]);
    is("sum.golang.org http://stoa:3000/sumdb/sum.golang.org", &[]);
    is("off", weakens);
    is("sum.golang.google.cn", weakens);
    is("sum.golang.org https://sum.example.com", weakens);
    is(&format!("{KEY} https://sum.example.com"), weakens);
    is("sum.example.com", &["defeats GOSUMDB GOSUMDB=sum.golang.org"]);
    is("sum.golang.org a b", &["defeats GOSUMDB GOSUMDB=sum.golang.org"]);
}

#[test]
fn flags_and_toolchains() {
    let is = |value: &str, expected: &[&str]| check(&[("GOFLAGS", value)], expected);
    is("-mod=mod -trimpath", &[]);
    is("-mod=vendor -mod=mod", &[]);
    is("-mod=vendor", &["defeats GOFLAGS GOFLAGS=-mod=readonly"]);
    is(
        "'-ldflags=-s  -w' --mod=vendor -v",
        &["defeats GOFLAGS GOFLAGS='-ldflags=-s  -w' -mod=readonly -v"],
    );
    is("-insecure", &["defeats GOFLAGS GOFLAGS=-insecure=false"]);
    for fine in ["auto", "local", "path", "go1.21.0+auto", "go1.21.0+path"] {
        check(&[("GOTOOLCHAIN", fine)], &[]);
    }
    for bad in ["nonsense", "go1.21.0+later", "1.21.0", "path+auto"] {
        check(&[("GOTOOLCHAIN", bad)], &["defeats GOTOOLCHAIN GOTOOLCHAIN=auto"]);
    }
    check(&[("GO111MODULE", "auto")], &[]);
    check(&[("GO111MODULE", "off")], &["defeats GO111MODULE GO111MODULE=on"]);
    check(&[("GO111MODULE", "banana")], &["defeats GO111MODULE GO111MODULE=on"]);
    check(&[("GOINSECURE", "*"), ("GOVCS", "*:off"), ("GOENV", "off")], &[]);
}

#[test]
fn outgoing_proxies() {
    let proxy = ("HTTP_PROXY", "http://proxy:3128");
    check(&[proxy], &["weakens HTTP_PROXY NO_PROXY=stoa"]);
    check(
        &[proxy, ("no_proxy", "a.example.com")],
        &["weakens HTTP_PROXY NO_PROXY=a.example.com,stoa"],
    );
    check(&[proxy, ("NO_PROXY", "stoa")], &[]);
    check(&[("HTTPS_PROXY", "http://proxy:3128")], &[]);
    check_for("http://[2001:db8::1]:3000", &[proxy], &["weakens HTTP_PROXY NO_PROXY=2001:db8::1"]);
    check_for("http://localhost:3000", &[proxy], &[]);
    let https = ("https_proxy", "proxy:3128");
    check_for("https://stoa", &[https], &["weakens HTTPS_PROXY NO_PROXY=stoa"]);
}

#[test]
fn credentials() {
    let is = |value: &str, expected: &[&str]| {
        check_for("https://stoa", &[("GOAUTH", value)], expected);
        // They are not used in cleartext.
        check(&[("GOAUTH", value)], &[]);
    };
    is("netrc", &[]);
    is("off", &[]);
    is("git /src; netrc", &[]);
    is("helper --token abc", &[]);
    let defeats: &[&str] = &["defeats GOAUTH GOAUTH=netrc"];
    is("off;netrc", defeats);
    is("netrc;", defeats);
    is("git", defeats);
    is("git src", defeats);
}

#[test]
fn the_stronger_setting_wins() {
    let check = |env: &[(&str, &str)], stored: &[(&str, &str)], name: &str, value: &str, origin| {
        let found = Machine::of(map(env), map(stored)).setting(name);
        assert_eq!((found.value.as_str(), found.origin), (value, origin), "{env:?} {stored:?}");
    };
    check(&[], &[], "GOSUMDB", "sum.golang.org", Origin::Default);
    check(&[], &[("GOSUMDB", "off")], "GOSUMDB", "off", Origin::GoEnv);
    check(&[("GOSUMDB", "a")], &[("GOSUMDB", "off")], "GOSUMDB", "a", Origin::Environment);
    check(&[("GOSUMDB", "")], &[("GOSUMDB", "off")], "GOSUMDB", "off", Origin::GoEnv);
    check(&[], &[], "GONOPROXY", "", Origin::Default);
    check(&[], &[("GOPRIVATE", "p")], "GONOPROXY", "p", Origin::Goprivate);
    check(&[("GONOSUMDB", "s")], &[("GOPRIVATE", "p")], "GONOSUMDB", "s", Origin::Environment);
}

#[test]
fn a_new_machine_gets_what_this_one_has() {
    let check = |env: &[(&str, &str)], expected: &[(&str, &str)]| {
        let machine = Machine::of(map(env), BTreeMap::new());
        let set = of_a_new_machine(&machine, &Url::parse("https://me:secret@stoa/").unwrap());
        let set: Vec<_> = set.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(set, expected);
    };
    check(&[], &[("GOPROXY", "https://stoa")]);
    check(
        &[("GOPRIVATE", "a.example.com"), ("GONOPROXY", "none"), ("GOSUMDB", "off")],
        &[("GONOSUMDB", "a.example.com"), ("GOPROXY", "https://stoa"), ("GOSUMDB", "off")],
    );
}

#[test]
fn what_is_stronger_than_what_is_stored() {
    let check = |env: &[(&str, &str)], name: &str, expected: bool| {
        assert_eq!(Machine::of(map(env), map(&[])).hides_stored(name), expected, "{env:?}");
    };
    check(&[], "GOPROXY", false);
    check(&[("GOPROXY", "")], "GOPROXY", false);
    check(&[("GOPROXY", "off")], "GOPROXY", true);
    check(&[("GOENV", "/home/me/goenv")], "GOENV", false);
    check(&[("GOENV", "off")], "GOENV", true);
}

fn report(env: &[(&str, &str)], stoa: Option<&str>) -> ClientReport {
    let machine = Machine::of(map(env), BTreeMap::new());
    let stoa = stoa.map(|stoa| Url::parse(stoa).unwrap());
    let settings = settings::check(&machine, stoa.as_ref());
    ClientReport::new(&machine, stoa.as_ref(), settings, Vec::new())
}

#[test]
fn nothing_shows_a_password() {
    let secret = "hunter2";
    let stoa = "https://me:hunter2@stoa/?token=hunter2";
    for goproxy in [
        "https://me:hunter2@stoa/",
        "me:hunter2@stoa,direct",
        "https://other:hunter2,stoa|https://x:hunter2@h/?t=hunter2",
        "https://a:hunter2@b:hunter2@stoa",
        "ftp://u:hunter2@h",
    ] {
        let env = [
            ("GOPROXY", goproxy),
            ("GOSUMDB", "sum.golang.org https://u:hunter2@sum.example.com"),
            ("HTTPS_PROXY", "http://u:hunter2@proxy:3128"),
            ("GOAUTH", "helper --token hunter2; git /src"),
        ];
        let report = report(&env, Some(stoa));
        for text in [report.to_text(true), report.to_json(), format!("{report:?}")] {
            assert!(!text.contains(secret), "{goproxy}: {text}");
        }
    }
}

#[test]
fn a_login_is_left_out_and_that_is_said() {
    let said = "A login is no part of these lines";
    let check = |goproxy: &str, stoa: &str, expected: bool| {
        let text = report(&[("GOPROXY", goproxy)], Some(stoa)).to_text(false);
        assert_eq!(text.contains(said), expected, "{text}");
        assert!(text.contains("export GOPROXY=https://stoa\n"), "{text}");
    };
    check("https://me:secret@stoa,direct", "https://stoa", true);
    check("https://stoa", "https://me:secret@stoa", true);
    check("off", "https://stoa", false);
}

#[test]
fn exit_codes() {
    assert_eq!(report(&[("GOPROXY", STOA)], Some(STOA)).exit(), 0);
    assert_eq!(report(&[("GOPROXY", "http://stoa:3000,direct")], Some(STOA)).exit(), 1);
    let nobody = report(&[("GOPROXY", "off")], None);
    assert_eq!(nobody.exit(), 1);
    assert!(nobody.lines.sh.is_empty() && nobody.to_text(false).contains("doctor --client URL"));
}

#[test]
fn text_is_aligned_and_bounded() {
    let long = "é".repeat(400);
    let env = [
        ("GOPROXY", "http://stoa:3000,direct"),
        ("GOPRIVATE", long.as_str()),
        ("GOVCS", "*:off\u{1b}[31m"),
    ];
    let report = report(&env, Some(STOA));
    let plain = report.to_text(false);
    let (table, lines) = plain.split_once("This mends it:").unwrap();
    assert!(table.lines().all(|line| line.chars().count() <= 120), "{table}");
    assert!(!table.contains('\u{1b}'), "{table}");
    assert!(lines.contains("export GOPROXY=http://stoa:3000\n"), "{lines}");
    // The worst first, and the columns of all rows begin where those of the first do.
    let rows: Vec<Vec<char>> = table.lines().skip(2).map(|line| line.chars().collect()).collect();
    assert!(table.lines().nth(2).unwrap().starts_with("weakens  GOPROXY"), "{table}");
    let column = |row: &[char], at: usize| at == 0 || (row[at - 1] == ' ' && row[at] != ' ');
    let from =
        plain.lines().nth(2).unwrap().chars().collect::<String>().find("environment").unwrap();
    for row in rows.iter().filter(|row| row.starts_with(&['f', 'i', 'n', 'e'])) {
        assert!(column(row, 9) && column(row, from), "{table}");
    }
    // Colours are all that differs.
    let colored = report.to_text(true);
    let mut stripped = String::new();
    let mut parts = colored.split("\x1b[");
    stripped.push_str(parts.next().unwrap());
    for part in parts {
        stripped.push_str(part.split_once('m').unwrap().1);
    }
    assert_eq!(stripped, plain);
    assert!(colored.len() > plain.len());
}

#[test]
fn lines_are_quoted_for_their_readers() {
    #[track_caller]
    fn check(value: &str, expected: [&str; 6]) {
        let set = BTreeMap::from([("GONOSUMDB", value.to_owned())]);
        let lines = Lines::new(&set, |_| false);
        let Lines { sh, powershell, dockerfile, github_actions, gitlab_ci, go_env } = lines;
        assert_eq!((github_actions[0].as_str(), gitlab_ci[0].as_str()), ("env:", "variables:"));
        let all =
            [&sh[0], &powershell[0], &dockerfile[0], &github_actions[1], &gitlab_ci[1], &go_env[0]];
        assert_eq!(all, expected);
        let script = format!("{}; printf %s \"$GONOSUMDB\"", sh[0]);
        let shell = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&shell.stdout), value, "{script}");
    }
    check(
        "https://stoa:3000/go",
        [
            "export GONOSUMDB=https://stoa:3000/go",
            "$env:GONOSUMDB = 'https://stoa:3000/go'",
            "ENV GONOSUMDB=\"https://stoa:3000/go\"",
            "  GONOSUMDB: 'https://stoa:3000/go'",
            "  GONOSUMDB: 'https://stoa:3000/go'",
            "go env -w GONOSUMDB=https://stoa:3000/go",
        ],
    );
    check(
        "*.example.com,b",
        [
            "export GONOSUMDB='*.example.com,b'",
            "$env:GONOSUMDB = '*.example.com,b'",
            "ENV GONOSUMDB=\"*.example.com,b\"",
            "  GONOSUMDB: '*.example.com,b'",
            "  GONOSUMDB: '*.example.com,b'",
            "go env -w 'GONOSUMDB=*.example.com,b'",
        ],
    );
    check(
        "it's $A \\ \"b\" ${{ c }} ’",
        [
            "export GONOSUMDB='it'\\''s $A \\ \"b\" ${{ c }} ’'",
            "$env:GONOSUMDB = 'it''s $A \\ \"b\" ${{ c }} ’’'",
            "ENV GONOSUMDB=\"it's \\$A \\\\ \\\"b\\\" \\${{ c }} ’\"",
            "  GONOSUMDB: 'it''s $A \\ \"b\" ${{ ''${{'' }} c }} ’'",
            "  GONOSUMDB: 'it''s $$A \\ \"b\" $${{ c }} ’'",
            "go env -w 'GONOSUMDB=it'\\''s $A \\ \"b\" ${{ c }} ’'",
        ],
    );
}

#[test]
fn what_hides_a_stored_setting_is_unset() {
    let set = BTreeMap::from([("GOPROXY", STOA.to_owned()), ("NO_PROXY", "stoa".to_owned())]);
    let lines = |hides: fn(&str) -> bool| Lines::new(&set, hides).go_env;
    assert_eq!(lines(|_| false), ["go env -w GOPROXY=http://stoa:3000"]);
    assert_eq!(
        lines(|name| name == "GOPROXY" || name == "GOENV"),
        ["unset GOPROXY GOENV", "go env -w GOPROXY=http://stoa:3000"]
    );
    assert_eq!(Lines::new(&BTreeMap::new(), |_| true), Lines::default());
}

#[test]
fn json_has_the_documented_fields() {
    let report = report(&[("GOPROXY", "http://stoa:3000,direct")], Some(STOA));
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let top = ["go", "lines", "questions", "set", "settings", "stoa", "verdict"];
    let mut found = keys(&json);
    found.sort();
    assert_eq!(found, top);
    assert_eq!((&json["verdict"], &json["stoa"]), (&"weakens".into(), &STOA.into()));
    let first = &json["settings"][0];
    assert_eq!(first["setting"], "GOPROXY");
    assert_eq!(first["value"], "http://stoa:3000,direct");
    assert_eq!(first["from"], "environment");
    assert_eq!(first["verdict"], "weakens");
    assert_eq!(first["set"], serde_json::json!({"name": "GOPROXY", "value": STOA}));
    assert!(first["says"].as_str().unwrap().contains("git host"));
    assert_eq!(json["set"], serde_json::json!({"GOPROXY": STOA}));
}

#[test]
fn masks() {
    let check = |text: &str, expected: &str| assert_eq!(mask::mask(text), expected);
    check("", "");
    check("https://stoa:3000/go,direct", "https://stoa:3000/go,direct");
    check("http://[::1]:3000|off", "http://[::1]:3000|off");
    check("https://u:p@a, b:p@c|d", "https://***@a, ***@c|d");
    check("https://token@a/b?c=d", "https://***@a/b?***");
    check("https://u:p/w@a", "https://***@a");
    check("https://u:pass,word@a", "https://u:***,***@a");
    check(
        "sum.golang.org+033de0ae+Ac4z//x https://u:p@h",
        "sum.golang.org+033de0ae+Ac4z//x https://***@h",
    );
}

#[test]
fn what_a_failure_means_for_the_go_command() {
    let failure = |class, stage, detail: &str, words: &str| {
        let source = Source::from_url(&Url::parse(STOA).unwrap()).unwrap();
        let text = Some(words.to_owned()).filter(|words| !words.is_empty());
        Failure { text, ..Failure::new(class, stage, &source, detail) }
    };
    let check = |goauth: &str, stoa: &str, failure: Failure, expected: &str| {
        let machine = Machine::of(map(&[("GOAUTH", goauth)]), BTreeMap::new());
        let stoa = Url::parse(stoa).unwrap();
        let (verdict, says) = live::of_failure(&failure, false, &machine, &stoa);
        assert_eq!(verdict, Verdict::Defeats, "{says}");
        assert!(says.contains(expected), "{expected:?} is not in {says:?}");
    };
    let denied = || failure(ErrorClass::Denied, Stage::Http, "http 401", "who are you?");
    check(
        "",
        "https://stoa",
        denied(),
        "http 401: who are you?. It wants a login that fits, in the netrc file: machine stoa",
    );
    check("off", "https://stoa", denied(), "GOAUTH=off");
    check("", "http://stoa", denied(), "over https alone");
    let unknown = "tls: the certificate is from an unknown authority";
    let unknown = failure(ErrorClass::Unavailable, Stage::Tls, unknown, "");
    check("", "https://stoa", unknown, "SSL_CERT_FILE");
    let garbage = failure(ErrorClass::Corrupt, Stage::Http, "the answer is not http", "");
    check("", "http://stoa", garbage, "should it be https://?");
    let silent = failure(ErrorClass::Timeout, Stage::Connect, "connect: timeout after 5 s", "");
    check("", "http://stoa", silent, "builds hang there");
    let broken = failure(ErrorClass::Unavailable, Stage::Http, "http 502", "");
    check("", "http://stoa", broken, "http 502");
}

#[tokio::test]
async fn a_module_cache_that_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs_err::write(&file, "").unwrap();
    let check = async |modcache: &Path, expected: &[&str]| {
        let modcache = modcache.to_str().unwrap();
        // Nobody is asked, and there is no go command.
        let env = map(&[("GOPROXY", "off"), ("GOMODCACHE", modcache), ("PATH", "/nowhere")]);
        let report = examine(None, &env, dir.path()).await;
        assert_eq!(troubles(&report.settings), expected, "{modcache}");
    };
    check(&dir.path().join("a/b/c"), &["defeats GOPROXY"]).await;
    check(&file, &["defeats GOPROXY", "defeats GOMODCACHE"]).await;
    check(&file.join("below"), &["defeats GOPROXY", "defeats GOMODCACHE"]).await;
}
