use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::connecting::Names;
use super::server::{Authority, Do, Server, head, ok, reply};
use super::{get, settings, short};
use crate::{Client, ProxyEnvironment, Settings};

fn through(http: Option<String>, https: Option<String>, no: &str) -> Settings {
    let proxy = ProxyEnvironment { http, https, no: Some(no.to_owned()) };
    Settings { proxy, ..settings() }
}

#[tokio::test]
async fn http_is_asked_of_the_proxy() {
    let proxy = Server::start(|_, _| ok(b"by proxy")).await;
    let server = Server::start(|_, _| ok(b"directly")).await;
    let url = proxy.url().replace("://", "://user:pass@");
    let client = Client::new(through(Some(url), None, "direct.test")).unwrap();

    assert_eq!(get(&client, "http://module.test/go").await.unwrap(), "by proxy");
    let asked = proxy.asked().pop().unwrap();
    assert_eq!(asked.line(), "GET http://module.test/go/example.com/m/@v/list HTTP/1.1");
    assert_eq!(asked.header("host"), Some("module.test"));
    assert_eq!(asked.header("proxy-authorization"), Some("Basic dXNlcjpwYXNz"));
    assert_eq!(asked.header("via"), Some("1.1 stoa-test"));
    // Loopback never goes through the proxy, whatever NO_PROXY says.
    assert_eq!(get(&client, &server.url()).await.unwrap(), "directly");
    assert_eq!(server.asked()[0].header("proxy-authorization"), None);
    let failure = get(&client, "http://localhost:1").await.unwrap_err();
    assert_eq!(short(&failure), "unavailable connect 3: connect: connection refused");
    assert_eq!(proxy.asked().len(), 1);
}

#[tokio::test]
async fn https_goes_through_a_tunnel() {
    let authority = Authority::new();
    let server = Server::start_tls(&authority, |_, _| ok(b"in secret")).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://user:pass@{}", listener.local_addr().unwrap());
    let target = server.addr();
    let tunnel = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut server = TcpStream::connect(target).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        String::from_utf8(head).unwrap()
    });
    let ca = authority.file();
    let settings =
        Settings { ca_files: vec![ca.path().to_owned()], ..through(None, Some(proxy), "") };
    let client = Client::new(settings).unwrap();
    assert_eq!(get(&client, "https://upstream.test").await.unwrap(), "in secret");
    assert_eq!(server.asked()[0].header("proxy-authorization"), None);
    drop(client);
    let head = tunnel.await.unwrap();
    assert!(head.starts_with("CONNECT upstream.test:443 HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains("\r\nproxy-authorization: basic "), "{head}");
}

#[tokio::test]
async fn https_through_a_socks_proxy() {
    let authority = Authority::new();
    let server = Server::start_tls(&authority, |_, _| ok(b"in secret")).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("socks5://{}", listener.local_addr().unwrap());
    let target = server.addr();
    let tunnel = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut greeting = [0; 2];
        client.read_exact(&mut greeting).await.unwrap();
        let mut methods = vec![0; usize::from(greeting[1])];
        client.read_exact(&mut methods).await.unwrap();
        client.write_all(b"\x05\x00").await.unwrap();
        let mut request = [0; 5];
        client.read_exact(&mut request).await.unwrap();
        assert_eq!(request[..4], *b"\x05\x01\x00\x03", "to a name, for the proxy to look up");
        let mut name = vec![0; usize::from(request[4]) + 2];
        client.read_exact(&mut name).await.unwrap();
        client.write_all(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00").await.unwrap();
        let mut server = TcpStream::connect(target).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        name
    });
    let ca = authority.file();
    let settings =
        Settings { ca_files: vec![ca.path().to_owned()], ..through(None, Some(proxy), "") };
    let client = Client::new(settings).unwrap();
    assert_eq!(get(&client, "https://upstream.test").await.unwrap(), "in secret");
    drop(client);
    assert_eq!(tunnel.await.unwrap(), b"upstream.test\x01\xbb");
}

#[tokio::test]
async fn failures_name_the_proxy() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let url = format!("http://{addr}");
    let client = Client::new(through(Some(url.clone()), Some(url), "")).unwrap();
    for target in ["http://module.test", "https://module.test"] {
        let failure = get(&client, target).await.unwrap_err();
        let expected = format!("connect: connection refused (through the proxy {addr})");
        assert_eq!(short(&failure), format!("unavailable connect 3: {expected}"));
    }

    let client = Client::with_resolver(
        through(Some("proxy.invalid:3128".to_owned()), None, ""),
        Arc::new(Names(addr)),
    )
    .unwrap();
    let failure = get(&client, "http://module.test").await.unwrap_err();
    assert_eq!(
        short(&failure),
        "unavailable dns 1: dns: Name or service not known (through the proxy proxy.invalid:3128)"
    );
}

#[tokio::test]
async fn a_proxy_that_refuses_the_tunnel() {
    let check = async |status: u16, expected: &str| {
        let proxy = Server::start(move |asked, _| {
            assert_eq!(asked.line(), "CONNECT module.test:443 HTTP/1.1");
            vec![Do::Send(head(status, "Content-Length: 0\r\n")), Do::Close]
        })
        .await;
        let client = Client::new(through(None, Some(proxy.url()), "")).unwrap();
        let failure = get(&client, "https://module.test").await.unwrap_err();
        let expected = format!("{expected} (through the proxy {})", proxy.addr());
        assert_eq!(short(&failure), format!("unavailable connect 1: {expected}"));
    };
    check(407, "connect: outgoing proxy: proxy authorization required").await;
    check(403, "connect: outgoing proxy: unsuccessful").await;
    let proxy = Server::start(|_, _| reply(407, "", b"")).await;
    let client = Client::new(through(Some(proxy.url()), None, "")).unwrap();
    let failure = get(&client, "http://module.test").await.unwrap_err();
    assert_eq!(short(&failure), "unavailable http 1: http 407");
}
