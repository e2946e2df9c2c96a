//! `stoa doctor` in networks where something is wrong: each verdict about the way to a host, provoked for real.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Output};

use rustix::net::{AddressFamily, SocketType};
use stoa_testkit::{
    Access, Answer, Authority, Certificate, FakeUpstream, Fault, Internet, Port, Request,
    SshServer, TlsFront, require_git, require_sshd, zip_of,
};

use crate::direct_net::{CORP, Net};
use crate::direct_world::settings;
use crate::doctor::{Diagnosis, diagnose};
use crate::fixtures::modules;
use crate::stoa::Setup;

const LIB: &str = "ex.com/lib@v1.0.0";

/// A server's settings with this one source.
fn only(source: impl ToString) -> Setup {
    Setup::new().goproxy(source)
}

/// Ports that do something else than they should: each in a thread, since some are waited for.
#[test]
fn ports() {
    std::thread::scope(|scope| {
        let check = |port: Port, scheme: &'static str, code: &'static str, words: &'static str| {
            scope.spawn(move || {
                let found = diagnose(&only(format!("{scheme}://{}", port.address())), &[LIB]);
                found.is(code, words);
                assert_eq!(found.report["verdict"]["stops"], true);
                let took = found.report["took_ms"].as_u64().unwrap();
                assert!(took < 60_000, "{took}");
            });
        };
        check(Port::refusing(), "http", "refused", "tcp");
        check(Port::filtered(), "http", "filtered", "tcp");
        check(Port::mute(), "http", "header-timeout", "http");
        check(Port::mute(), "https", "tls-failed", "tls");
        check(Port::closing(), "http", "reset", "http");
        check(Port::saying("SSH-2.0-OpenSSH_9.2\r\n"), "http", "not-http", "SSH-2.0");
        check(Port::saying("SSH-2.0-OpenSSH_9.2\r\n"), "https", "not-tls", "SSH-2.0");
        check(
            Port::endless("HTTP/1.1 200 OK\r\n", "x-more: and more\r\n"),
            "http",
            "endless",
            "http",
        );
    });
    // A nonsense name, and one that nobody has.
    diagnose(&only("http://no-such-host.invalid"), &[LIB])
        .is("name-not-resolved", "no-such-host.invalid");
    // The wrong port of one that is well.
    let upstream = FakeUpstream::start(modules());
    diagnose(&only(format!("https://{}", upstream.address())), &[LIB]).is("not-tls", "");
}

#[test]
fn certificates() {
    let authority = Authority::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(file.path(), authority.pem()).unwrap();
    let check = |certificate: Certificate, code: &str, words: &str| {
        let upstream = FakeUpstream::start(modules());
        let front = TlsFront::start(&upstream, &authority, certificate);
        let setup = only(front.url());
        let toml = format!("[upstream]\nca-files = [\"{}\"]\n", file.path().display());
        diagnose(&settings(setup, toml), &[LIB]).is(code, words);
        // No name was told to whoever that is.
        let asked = upstream.request_lines();
        let trusted = certificate == Certificate::Good;
        assert!(trusted || !asked.iter().any(|line| line.contains("ex.com")), "{asked:?}");
    };
    check(Certificate::Good, "healthy", "");
    check(Certificate::Expired, "certificate-expired", "tls");
    check(Certificate::NotYetValid, "certificate-not-yet-valid", "4000");
    check(Certificate::SelfSigned, "unknown-authority", "tls");
    check(Certificate::OtherAuthority, "unknown-authority", "authority");
    check(Certificate::OtherName, "wrong-name", "tls");
    // A megabyte of them.
    let upstream = FakeUpstream::start(modules());
    let front = TlsFront::start(&upstream, &authority, Certificate::LongChain);
    assert_ne!(diagnose(&only(front.url()), &[LIB]).code(), "healthy");
}

/// A process in this network.
fn inside(internet: &Internet, setup: Setup) -> Setup {
    internet.environment().iter().fold(setup, |setup, (key, value)| setup.env(key, value))
}

#[test]
fn somebody_in_between() {
    // Opens what is meant for a public host, with an authority that nobody here knows.
    let internet = Internet::start();
    let upstream = FakeUpstream::start(modules());
    internet.host("proxy.golang.org").upstream(&upstream);
    let setup = || inside(&internet, only("https://proxy.golang.org"));
    let found = diagnose(&setup().env("SSL_CERT_FILE", "/dev/null"), &[LIB]);
    assert!(matches!(found.code(), "tls-intercepted" | "no-authorities"), "{:#}", found.report);
    let other = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(other.path(), Authority::new().pem()).unwrap();
    let found = diagnose(&setup().env("SSL_CERT_FILE", other.path().display()), &[LIB]);
    found.is("tls-intercepted", "");
    let asked = upstream.request_lines();
    assert!(!asked.iter().any(|line| line.contains("ex.com")), "{asked:?}");
    // Trusted by the settings, it is seen and no fault.
    let toml = format!("[upstream]\nca-files = [\"{}\"]\n", internet.ca_file().display());
    let trusting = settings(setup().env("SSL_CERT_FILE", other.path().display()), toml);
    let found = diagnose(&trusting, &[LIB]);
    found.is("healthy", "");
    assert!(found.report["places"].to_string().contains("intercepted"), "{:#}", found.report);
    // It does not know the host, and it wants a password.
    let found = diagnose(&inside(&internet, only("https://elsewhere.example")), &[LIB]);
    found.is("proxy-refuses", "502");
    internet.wants_password("me", "secret");
    let found = diagnose(&setup(), &[LIB]);
    found.is("proxy-wants-password", "407");
    let with = internet.proxy_url().replace("http://", "http://me:secret@");
    let found = diagnose(&setup().env("https_proxy", &with).env("HTTPS_PROXY", &with), &[LIB]);
    found.is("healthy", "");
    assert!(!found.report.to_string().contains("secret"), "{:#}", found.report);
}

#[test]
fn which_credential_was_used() {
    let internet = Internet::start();
    let go_mod = "module ex.com/lib\n";
    let zip = zip_of([("ex.com/lib@v1.0.0/go.mod", go_mod)]);
    let has = move |request: &Request| {
        let answer = |content: &[u8]| Some(Answer::new(200, "text/plain", content.to_vec()));
        match request.path.rsplit_once("/@v/")?.1 {
            "list" => answer(b"v1.0.0\n"),
            "v1.0.0.info" => answer(b"{\"Version\":\"v1.0.0\"}"),
            "v1.0.0.mod" => answer(go_mod.as_bytes()),
            "v1.0.0.zip" => answer(&zip),
            _ => None,
        }
    };
    let host = internet.host("goproxy.corp.example.com").pages(has);
    host.access("/", Access::basic("me", "right"));
    let setup = || inside(&internet, only("https://goproxy.corp.example.com"));
    diagnose(&setup(), &[LIB]).is("credential-missing-or-wrong", "401");
    let credential = |password: &str| {
        let toml = format!(
            "[[upstream.credential]]\nprefix = \"https://goproxy.corp.example.com/\"\nusername = \"me\"\npassword = \"{password}\"\n"
        );
        settings(setup(), toml)
    };
    let found = diagnose(&credential("wr0ng-pass"), &[LIB]);
    found.is("credential-missing-or-wrong", "");
    let report = found.report.to_string();
    assert!(report.contains("upstream.credential") && !report.contains("wr0ng-pass"), "{report}");
    diagnose(&credential("right"), &[LIB]).is("healthy", "");
    // From netrc.
    let setup = setup();
    let netrc = setup.scratch().join("netrc");
    fs_err::write(&netrc, "machine goproxy.corp.example.com login me password right\n").unwrap();
    let found = diagnose(&setup.env("NETRC", netrc.display()), &[LIB]);
    found.is("healthy", "");
    assert!(found.report.to_string().contains("netrc"), "{:#}", found.report);
}

#[test]
fn a_clock_that_is_wrong() {
    let (one, other) = (FakeUpstream::start(modules()), FakeUpstream::start(modules()));
    for upstream in [&one, &other] {
        let old = Fault::chunked().header("date", "Sat, 21 Nov 2020 10:00:00 GMT");
        upstream.fault("*", old);
    }
    let setup = only(format!("{}|{}", one.url(), other.url()));
    diagnose(&setup, &[]).is("clock-wrong", "ahead of");
    // One host alone may itself be wrong.
    let found = diagnose(&only(one.url()), &[LIB]);
    found.is("healthy", "");
}

/// Says why nothing is tested, where that is allowed.
fn skip(why: &str) {
    let required = std::env::var_os("STOA_REQUIRE_NETNS").is_some_and(|it| it == "1");
    assert!(!required, "{why}");
    eprintln!("SKIPPED: {why}");
}

/// The command where these files lie over others, which takes root; None where that cannot be done.
fn with_files(setup: &Setup, files: &[(&Path, &str)], more: &str) -> Option<Output> {
    if !rustix::process::geteuid().is_root() {
        skip("only root can lay a file over /etc");
        return None;
    }
    let mounts: Vec<String> = files
        .iter()
        .map(|(from, to)| format!("mount --bind {} {to} || exit 99", from.display()))
        .collect();
    let script = mounts.into_iter().chain(["exec \"$0\" \"$@\"".to_owned()]);
    let script = script.collect::<Vec<_>>().join("; ");
    let doctor = setup.command(&["doctor", "--json", LIB]);
    let mut command = Command::new("unshare");
    command.args(["--mount"]).args(more.split_whitespace()).args(["sh", "-c", &script]);
    command.arg(doctor.get_program()).args(doctor.get_args()).env_clear();
    command.envs(doctor.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("PATH", std::env::var("PATH").unwrap());
    let output = command.output().unwrap();
    if output.stdout.is_empty() {
        skip(&format!("no mount namespace: {}", String::from_utf8_lossy(&output.stderr)));
        return None;
    }
    Some(output)
}

#[test]
fn a_resolver_that_never_answers() {
    let Ok(_socket) = UdpSocket::bind("127.0.0.77:53") else {
        skip("port 53 cannot be had");
        return;
    };
    let setup = only("http://proxy.corp.example.com");
    let resolv = setup.scratch().join("resolv.conf");
    fs_err::write(&resolv, "nameserver 127.0.0.77\n").unwrap();
    let files = [(resolv.as_path(), "/etc/resolv.conf")];
    if let Some(output) = with_files(&setup, &files, "") {
        Diagnosis::of(&output).is("resolver-silent", "127.0.0.77");
    }
}

#[test]
fn a_network_that_is_none() {
    let setup = only("http://192.0.2.1");
    if let Some(output) = with_files(&setup, &[], "--net") {
        Diagnosis::of(&output).is("unreachable", "tcp");
    }
}

/// Its queue is full, so that what comes is dropped.
fn filtered_v6(port: u16) -> Option<(OwnedFd, Vec<std::net::TcpStream>)> {
    let address = SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0));
    let socket = rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None).ok()?;
    rustix::net::bind(&socket, &address).ok()?;
    rustix::net::listen(&socket, 0).ok()?;
    let mut taken = Vec::new();
    let soon = std::time::Duration::from_millis(200);
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, soon) {
        taken.push(stream);
    }
    Some((socket, taken))
}

#[test]
fn ipv6_that_leads_nowhere() {
    let upstream = FakeUpstream::start(modules());
    let port = upstream.address().port();
    let Some(_held) = filtered_v6(port) else {
        eprintln!("SKIPPED: no IPv6 on loopback");
        return;
    };
    let setup = only(format!("http://two.corp.example.com:{port}"));
    let hosts = setup.scratch().join("hosts");
    fs_err::write(&hosts, "::1 two.corp.example.com\n127.0.0.1 two.corp.example.com\n").unwrap();
    if let Some(output) = with_files(&setup, &[(hosts.as_path(), "/etc/hosts")], "") {
        let found = Diagnosis::of(&output);
        found.is("black-holed-ipv6", "[::1]");
        assert_eq!(found.report["verdict"]["stops"], false);
    }
}

#[test]
fn hosts_of_git() {
    if !require_git() {
        return;
    }
    let net = Net::new();
    net.repository("lib", &[("v1.0.0", &[("go.mod", "module git.corp.example.com/lib\n")])]);
    net.host(CORP).go_import("lib", "git", &format!("https://{CORP}/r/lib"));
    let private = || net.setup().env("STOA_GOPRIVATE", CORP);
    let subject = format!("{CORP}/lib@v1.0.0");
    diagnose(&private(), &[&subject]).is("healthy", "");
    assert_eq!(net.proxy.request_lines(), Vec::<String>::new(), "a private name was told");
    diagnose(&private(), &[&format!("{CORP}/lib@v1.7.0")]).is("version-absent", "v1.0.0");
    // Nobody named it, and it asks for a credential.
    net.host(CORP).access("/r", Access::basic("me", "secret"));
    diagnose(&net.setup(), &[&subject]).is("no-route", CORP);
    let found = diagnose(&private(), &[&subject]);
    assert_ne!(found.code(), "healthy", "{:#}", found.report);
}

#[test]
fn hosts_of_ssh() {
    if !require_git() || !require_sshd() {
        return;
    }
    let net = Net::new();
    net.repository("lib", &[("v1.0.0", &[("go.mod", "module git.corp.example.com/lib\n")])]);
    let sshd = SshServer::start(&net.remotes);
    net.internet.host(CORP).go_import("lib", "git", &sshd.url("lib"));
    let with = |key: &Path, known: &Path| {
        let toml = format!(
            "[[upstream.credential]]\nprefix = \"ssh://{}@127.0.0.1:{}/\"\nssh-key-file = \"{}\"\nknown-hosts-file = \"{}\"\n",
            sshd.user(),
            sshd.port(),
            key.display(),
            known.display()
        );
        settings(net.setup(), toml).env("STOA_GOPRIVATE", format!("{CORP},127.0.0.1"))
    };
    let subject = format!("{CORP}/lib@v1.0.0");
    let (key, known) = (sshd.key_file(), sshd.known_hosts_file());
    diagnose(&with(&key, &known), &[&subject]).is("healthy", "");
    diagnose(&with(&sshd.other_key_file(), &known), &[&subject]).is("key-refused", "");
    diagnose(&with(&key, &sshd.other_known_hosts_file()), &[&subject]).is("host-key-unknown", "");
    // Without git.
    let setup = with(&key, &known).env("PATH", "/nowhere");
    diagnose(&setup, &[&subject]).is("git-missing", "");
}
