//! Hosts of an [`Internet`](stoa_testkit::Internet) as git and go see them.

use std::process::Command;

use stoa_testkit::{
    Access, Answer, Certificate, FakeUpstream, Fault, Go, Modules, Reach, require_git, require_go,
};

use crate::client::{HOST, remotes, world};

#[test]
fn repositories_are_cloned_and_what_was_asked_is_seen() {
    if !require_git() {
        return;
    }
    let (remotes, internet, _host, git) = world();
    git.ok(&["clone", "-q", "https://git.corp.example.com/r/lib.git", "a"]);
    assert_eq!(git.read("a/lib.go"), "package lib\n");
    assert_eq!((internet.clones(), internet.ls_remotes()), (1, 1));
    assert_eq!(internet.hosts_asked(), ["git.corp.example.com:443"]);
    let requests = internet.requests(HOST);
    let lines: Vec<_> = requests.iter().map(|it| format!("{} {}", it.method, it.target)).collect();
    assert_eq!(
        lines,
        [
            "GET /r/lib.git/info/refs?service=git-upload-pack",
            "POST /r/lib.git/git-upload-pack",
            "POST /r/lib.git/git-upload-pack",
        ]
    );
    assert!(requests[0].header("user-agent").unwrap().starts_with("git/"));
    assert_eq!(requests[0].header("git-protocol"), Some("version=2"));
    assert_eq!(requests[0].header("authorization"), None);

    // Without `.git`, from a bare repository, and in the oldest protocol.
    git.ok(&["clone", "-q", "https://git.corp.example.com/r/lib", "b"]);
    git.ok(&[
        "-c",
        "protocol.version=0",
        "clone",
        "-q",
        "https://git.corp.example.com/r/bare",
        "c",
    ]);
    git.ok(&["clone", "-q", "http://git.corp.example.com/r/bare.git", "d"]);
    assert_eq!(git.read("c/lib.go"), git.read("d/lib.go"));
    assert_eq!((internet.clones(), internet.ls_remotes()), (4, 4));
    assert!(internet.hosts_asked().contains(&"git.corp.example.com:80".to_owned()));

    internet.forget_requests();
    let url = "https://git.corp.example.com/r/lib";
    assert!(git.ok(&["ls-remote", url]).contains("refs/tags/v1.2.0"));
    git.ok(&["-c", "protocol.version=0", "ls-remote", url]);
    git.ok(&["-C", "a", "fetch", "-q"]);
    assert_eq!((internet.clones(), internet.ls_remotes()), (0, 3));
    remotes.write("lib", "more.go", "package lib\n");
    remotes.commit("lib", 1_700_000_001);
    git.ok(&["-C", "a", "pull", "-q"]);
    assert_eq!((internet.clones(), internet.ls_remotes()), (1, 4));

    git.fails(&["clone", "-q", "https://git.corp.example.com/r/none"], "not found");
    git.fails(&["clone", "-q", "https://git.corp.example.com/r/../lib"], "not found");
    git.fails(&["-C", "a", "push", "-q", "origin", "HEAD:new"], "403");
    assert_eq!(internet.clones(), 1);
}

#[test]
fn only_the_right_credential_opens() {
    if !require_git() {
        return;
    }
    let (remotes, internet, host, git) = world();
    remotes.init("secret");
    remotes.commit("secret", 1_700_000_000);
    let access = Access::basic("me", "pass").or(Access::token("t0ken").hiding("/r/secret", 404));
    let host = host.access("/r", access).page("/open", Answer::text(200, "open\n"));
    let clone = |who: &str, name: &str| {
        let url = format!("https://{who}git.corp.example.com/r/{name}");
        let bearer =
            format!("http.extraHeader=Authorization: Bearer {}", who.trim_end_matches('@'));
        let extra = ["-c", &*bearer];
        let extra: &[&str] = if who.starts_with("bearer") { &extra } else { &[] };
        let to = tempfile::tempdir().unwrap();
        let clone = ["clone", "-q", &url, to.path().to_str().unwrap()];
        git.run(&[extra, &clone].concat())
    };
    let check = |who: &str, name: &str, expected: Option<&str>| {
        let output = clone(who, name);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), expected.is_none(), "{who}{name}: {stderr}");
        assert!(stderr.contains(expected.unwrap_or_default()), "{who}{name}: {stderr}");
    };
    check("", "lib", Some("could not read Username"));
    check("me:wrong@", "lib", Some("Authentication failed"));
    check("me:t0ke@", "lib", Some("Authentication failed"));
    assert_eq!((internet.clones(), internet.ls_remotes()), (0, 0));
    check("me:pass@", "lib", None);
    check("me:pass@", "secret", None);
    check("oauth2:t0ken@", "lib", None);
    check("oauth2:t0ken@", "secret", Some("not found"));
    check("oauth2:t0ken@", "secret.git", Some("not found"));
    assert_eq!(internet.clones(), 3);
    let seen = internet.requests(HOST);
    let seen = seen.iter().filter_map(|it| it.header("authorization")).next_back().unwrap();
    assert_eq!(seen, "Basic b2F1dGgyOnQwa2Vu");

    host.access("/r", Access::token("other").refusing_with(404));
    check("me:pass@", "lib", Some("not found"));
    let bearer = "http.extraHeader=Authorization: Bearer other";
    git.ok(&["-c", bearer, "ls-remote", "https://git.corp.example.com/r/secret"]);
}

#[test]
fn hosts_misbehave() {
    if !require_git() {
        return;
    }
    let (_remotes, internet, host, git) = world();
    let url = "https://git.corp.example.com/r/lib";
    let ls = ["ls-remote", url];
    git.ok(&ls);

    let host = host.fault("*", Fault::status(503).first(1));
    git.fails(&ls, "503");
    git.ok(&ls);

    // Another host's code, by a redirect, which git follows at first contact.
    let elsewhere = "https://git.corp.example.com/r/lib/info/refs?service=git-upload-pack";
    internet.host("old.example.com").fault("/lib/*", Fault::redirect(elsewhere));
    git.ok(&["clone", "-q", "https://old.example.com/lib", "moved"]);
    assert_eq!(internet.requests("old.example.com").len(), 1);

    for kind in [Certificate::OtherAuthority, Certificate::SelfSigned, Certificate::OtherName] {
        host.clone().certificate(kind);
        git.fails(&ls, "certificate");
    }
    let host = host.certificate(Certificate::Good).reach(Reach::Unresolvable);
    git.fails(&ls, "502");
    let host = host.reach(Reach::Served);
    git.ok(&ls);

    // Until the client has enough.
    let slow = ["-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=1", "ls-remote", url];
    let host = host.fault("*", Fault::hang());
    git.fails(&slow, "too slow");
    host.clear_faults();
    let host = host.reach(Reach::Silent);
    let mut impatient = Command::new("timeout");
    impatient.args(["1", "git", "ls-remote", url]).envs(git.env.iter().cloned());
    assert_eq!(impatient.output().unwrap().status.code(), Some(124));
    let host = host.reach(Reach::Served);

    git.fails(&["ls-remote", "https://nowhere.example.com/x"], "502");
    assert!(internet.hosts_asked().contains(&"nowhere.example.com:443".to_owned()));

    // What git says of it, changed on the way.
    host.fault("*/info/refs", Fault::truncate(10));
    git.fails(&ls, "fatal");
}

#[tokio::test]
async fn go_finds_a_module_on_one_host_and_its_code_on_another() {
    if !require_git() || !require_go() {
        return;
    }
    let (_remotes, internet, host, _git) = world();
    host.go_import("team/lib", "git", "https://code.example.com/r/lib");
    let remotes = remotes();
    internet.host("code.example.com").git("r", &remotes);
    let upstream = FakeUpstream::start(Modules::parse(
        "-- ex.com/public@v1.0.0/go.mod --\nmodule ex.com/public\n\
         -- ex.com/public@v1.0.0/public.go --\npackage public\n",
    ));
    internet.host("proxy.public.example").upstream(&upstream);

    let mut go = Go::new()
        .env("GOVCS", "*:git")
        .env("GIT_ALLOW_PROTOCOL", "https")
        .env("GONOSUMDB", "*")
        .env("GOPRIVATE", "*.corp.example.com")
        .goproxy("https://proxy.public.example");
    for (name, value) in internet.environment() {
        go = go.env(&name, value);
    }
    let go = go.project("-- go.mod --\nmodule ex.com/project\n");
    let answer = go.ok(["mod", "download", "-json", "git.corp.example.com/team/lib@v1.2.0"]).await;
    assert!(answer.contains("\"Version\": \"v1.2.0\""), "{answer}");
    go.ok(["mod", "download", "ex.com/public@v1.0.0"]).await;

    let pages = internet.requests(HOST);
    assert_eq!(pages[0].target, "/team/lib?go-get=1");
    assert_eq!(internet.clones(), 1);
    assert_eq!(internet.requests("proxy.public.example"), upstream.requests());
    assert_eq!(upstream.count("*/v1.0.0.zip"), 1);
    assert_eq!(
        internet.hosts_asked(),
        ["code.example.com:443", "git.corp.example.com:443", "proxy.public.example:443"]
    );
}
