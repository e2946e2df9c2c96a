//! The server as systemd starts it: with sockets that are bound already, and somebody who wants to hear of it.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::fixtures::client;
use crate::listen::{logged, over_unix};
use crate::stoa::{Setup, Stoa};

/// The server with these sockets as its descriptors 3 and 4, by these variables; `$$` is its process id.
fn activated(
    setup: &Setup,
    first: impl Into<OwnedFd>,
    second: impl Into<OwnedFd>,
    variables: &str,
) -> Command {
    let sockets = format!("exec 3<&0 4<&1 0</dev/null 1>/dev/null; export {variables}");
    let mut command = setup.after(&sockets);
    command.stdin(Stdio::from(first.into())).stdout(Stdio::from(second.into()));
    command
}

async fn status(url: &str) -> u16 {
    client().get(url).send().await.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn passed_sockets_come_instead_of_those_of_the_settings() {
    // An address that cannot be bound: it is not tried.
    let setup = Setup::new().env("STOA_LISTEN", "192.0.2.1:1");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", tcp.local_addr().unwrap());
    let path = setup.scratch().join("passed.sock");
    let unix = UnixListener::bind(&path).unwrap();
    // Who connects before the server runs is answered when it does.
    let early = tokio::spawn(client().get(format!("{url}/healthz")).send());
    let command = activated(&setup, tcp, unix, "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=a:b");
    let stoa = setup.try_start_by(command).unwrap();
    assert_eq!(early.await.unwrap().unwrap().status(), 200);
    assert_eq!(stoa.url, url);
    over_unix(&path, "healthz", &[]).await.ok();
    assert_eq!(stoa.stop().0.code(), Some(0));
    assert!(path.exists(), "its file is not ours");
}

#[tokio::test]
async fn a_passed_socket_called_admin_is_for_the_pages() {
    let setup = Setup::new();
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (protocol, admin) = (bind(), bind());
    let at_admin = format!("http://{}", admin.local_addr().unwrap());
    let variables = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=stoa.socket:admin";
    let stoa = setup.try_start_by(activated(&setup, protocol, admin, variables)).unwrap();
    for (path, at_stoa, at_other) in [("healthz", 404, 200), ("ex.com/m/@v/list", 404, 404)] {
        assert_eq!(status(&format!("{}/{path}", stoa.url)).await, at_stoa, "{path}");
        assert_eq!(status(&format!("{at_admin}/{path}")).await, at_other, "{path}");
    }
}

#[test]
fn what_is_passed_to_another_process_or_is_no_listener_is_not_used() {
    let socket = || TcpListener::bind("127.0.0.1:0").unwrap();
    let start = |setup: &Setup, first: OwnedFd, variables: &str| -> Result<Stoa, String> {
        setup.try_start_by(activated(setup, first, socket(), variables))
    };
    let passed = socket();
    let address = passed.local_addr().unwrap().to_string();
    for others in ["LISTEN_PID=1 LISTEN_FDS=2", "LISTEN_FDS=2", "LISTEN_PID=$$"] {
        let stoa = start(&Setup::new(), passed.try_clone().unwrap().into(), others).unwrap();
        assert_ne!(stoa.address(), address, "{others}");
    }
    let file = || OwnedFd::from(tempfile::tempfile().unwrap());
    let pair = UnixDatagram::pair().unwrap().0;
    let connected = std::net::TcpStream::connect(&address).unwrap();
    for (first, variables, words) in [
        (file(), "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=x", "socket 0 (x) of systemd: "),
        (pair.into(), "LISTEN_PID=$$ LISTEN_FDS=1", "socket 0 () of systemd: "),
        (connected.into(), "LISTEN_PID=$$ LISTEN_FDS=1", "it does not listen"),
        (file(), "LISTEN_PID=$$ LISTEN_FDS=4000000000", "no count"),
        (file(), "LISTEN_PID=$$ LISTEN_FDS=-1", "no count"),
        (socket().into(), "LISTEN_PID=$$ LISTEN_FDS=5", "socket 2 () of systemd: "),
    ] {
        let log = start(&Setup::new(), first, variables).unwrap_err();
        assert!(log.starts_with("stoa: ") && log.contains(words), "{words}: {log}");
    }
}

#[tokio::test]
async fn systemd_is_told_of_readiness_life_and_the_end() {
    let setup = Setup::new();
    let path = setup.scratch().join("notify.sock");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let setup = setup.env("NOTIFY_SOCKET", path.display()).env("WATCHDOG_USEC", 200_000);
    let stoa = setup.start();
    let next = async || {
        let mut message = vec![0; 4096];
        let received = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut message));
        let length = received.await.expect("a message").unwrap();
        message.truncate(length);
        String::from_utf8(message).unwrap()
    };
    let mut told = Vec::new();
    // Readiness, and signs of life that go on.
    while told.iter().filter(|message| **message == "WATCHDOG=1\n").count() < 4 {
        told.push(next().await);
    }
    let ready = format!("READY=1\nSTATUS=listening on {}\n", stoa.url);
    assert_eq!(told.iter().filter(|message| **message == ready).count(), 1, "{told:?}");
    assert_eq!(stoa.stop().0.code(), Some(0));
    loop {
        match next().await.as_str() {
            "WATCHDOG=1\n" => {}
            other => {
                assert_eq!(other, "STOPPING=1\nSTATUS=finishing what is being sent\n");
                break;
            }
        }
    }
}

#[tokio::test]
async fn without_systemd_nobody_is_told_and_one_that_is_gone_is_no_harm() {
    let setup = Setup::new().env("NOTIFY_SOCKET", "/nowhere/at/all").env("WATCHDOG_USEC", "soon");
    let stoa = setup.start();
    logged(&stoa, &["systemd cannot be told"]).await;
    stoa.get("healthz").await.ok();
    assert_eq!(stoa.stop().0.code(), Some(0));
}
