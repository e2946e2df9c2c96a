//! What only a network of one's own shows: resolvers, and addresses that swallow what is sent to them.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;

use super::{AMPLE, BRIEF, check, examine};
use crate::Client;
use crate::dns::{Addrs, Name, Resolve, Resolving};
use crate::examine::Step;
use crate::tests::client;
use crate::tests::server::{Server, ok};
use crate::tests::settings;

const INSIDE: &str = "STOA_TEST_NAMESPACE";

/// Whether this process is in a namespace of its own. If not, runs the test in one, after a shell has prepared it.
fn is_inside(test: &str, prepare: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let is_root = rustix::process::geteuid().is_root();
    let unshare = || {
        let mut unshare = Command::new("unshare");
        if !is_root {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare.args(["--net", "--mount"]);
        unshare
    };
    let able = unshare().args(["ip", "link", "set", "lo", "up"]).output();
    if !able.is_ok_and(|output| output.status.success()) {
        let required = std::env::var_os("STOA_REQUIRE_NETNS").is_some_and(|it| it == "1");
        assert!(!required, "no network namespace can be made with unshare and ip");
        eprintln!("SKIPPED: no network namespace can be made with unshare and ip");
        return false;
    }
    let script =
        format!("set -e; ip link set lo up; {prepare}; exec \"$0\" --exact \"$1\" --nocapture");
    let name = format!("tests::examine::namespace::{test}");
    let output = unshare()
        .args(["sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let (said, erred) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{erred}");
    false
}

fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(test);
    // A look-up cannot be cancelled, and need not be waited for.
    runtime.shutdown_background();
}

/// The only nameserver is on loopback.
const RESOLVER: &str = "file=$(mktemp); printf 'nameserver 127.0.0.1\\noptions timeout:1 attempts:1\\n' > $file; \
                        mount --bind $file /etc/resolv.conf; rm $file";

#[test]
fn a_resolver_that_never_answers() {
    if !is_inside("a_resolver_that_never_answers", RESOLVER) {
        return;
    }
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).unwrap();
    block_on(async {
        let examined = examine(&client(), "https://proxy.golang.org/", BRIEF).await;
        let words =
            "no answer about proxy.golang.org in 400 ms (system resolver, nameserver 127.0.0.1)";
        check(&examined, "name:resolver-silent", &[(Step::Name, words)]);
        let mut question = [0; 512];
        assert!(silent.recv(&mut question).unwrap() > 12, "it was asked");
        // The C library gives up before we do.
        let examined = examine(&client(), "https://proxy.golang.org/", AMPLE).await;
        let words = "proxy.golang.org: Temporary failure in name resolution (";
        check(&examined, "name:resolver-silent", &[(Step::Name, words)]);
    });
}

#[test]
fn a_resolver_that_knows_no_such_name() {
    if !is_inside("a_resolver_that_knows_no_such_name", RESOLVER) {
        return;
    }
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).unwrap();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = server.recv_from(&mut question) {
            // A response without answers: no such name.
            question[2] |= 0x80;
            question[3] = 0x83;
            server.send_to(&question[..length], from).unwrap();
        }
    });
    block_on(async {
        let examined = examine(&client(), "https://nowhere.invalid/", AMPLE).await;
        let words = "(system resolver, nameserver 127.0.0.1)";
        check(&examined, "name:name-not-resolved", &[(Step::Name, words)]);
        let server = Server::start(|_, _| ok(b"found")).await;
        let url = format!("http://localhost:{}", server.addr().port());
        let examined = examine(&client(), &url, AMPLE).await;
        check(&examined, "name tcp credential http", &[(Step::Name, "(hosts file)")]);
    });
}

/// A link whose other end is nobody.
const SWALLOWING: &str = "ip link add x0 type veth peer name x1; ip link set x0 up; ip link set x1 up; \
                          ip addr add 192.0.2.1/24 dev x0; ip -6 addr add 2001:db8::1/64 dev x0 nodad; \
                          ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:01 dev x0; \
                          ip -6 neigh add 2001:db8::2 lladdr 02:00:00:00:00:01 dev x0";

/// The addresses of every name.
#[derive(Debug)]
struct Fixed(&'static [&'static str]);

impl Resolve for Fixed {
    fn resolve(&self, _: Name) -> Resolving {
        let found: Vec<SocketAddr> =
            self.0.iter().map(|it| SocketAddr::new(it.parse().unwrap(), 0)).collect();
        Box::pin(async move { Ok(Box::new(found.into_iter()) as Addrs) })
    }
}

#[test]
fn addresses_that_swallow() {
    if !is_inside("addresses_that_swallow", SWALLOWING) {
        return;
    }
    block_on(async {
        let server = Server::start(|_, _| ok(b"found")).await;
        let url = format!("http://upstream.test:{}", server.addr().port());
        let at = |addresses| Client::with_resolver(settings(), Arc::new(Fixed(addresses))).unwrap();
        let step = std::time::Duration::from_secs(2);
        let examined = examine(&at(&["2001:db8::2", "127.0.0.1"]), &url, step).await;
        let words = [(Step::Tcp, "no answer in 2 s; 127.0.0.1:")];
        check(&examined, "name tcp:black-holed-ipv6 credential http", &words);
        let examined = examine(&at(&["2001:db8::2", "192.0.2.2"]), &url, BRIEF).await;
        check(&examined, "name tcp:filtered", &[(Step::Tcp, "no answer in 400 ms; ")]);
        // No way at all: no machine of this network has one there.
        let examined = examine(&at(&["2001:db9::1", "127.0.0.1"]), &url, AMPLE).await;
        let words = [(Step::Tcp, "network unreachable"), (Step::Tcp, "has no IPv6")];
        check(&examined, "name tcp credential http", &words);
        let examined = examine(&at(&["198.51.100.1"]), &url, AMPLE).await;
        check(&examined, "name tcp:unreachable", &[(Step::Tcp, "unreachable")]);
    });
}
