use std::sync::Arc;

use super::connecting::Names;
use super::server::{Authority, Server, ok, redirect, reply};
use super::{AMPLE, client, get, settings, short, source};
use crate::{Client, Settings, Use};

#[tokio::test]
async fn follows_redirects() {
    let client = client();
    for status in [301, 302, 303, 307, 308] {
        let server = Server::start(move |asked, _| match asked.target() {
            "/there/file%20x?sig=a%2Fb" => ok(b"found"),
            _ => reply(status, "Location: ../there/file%20x?sig=a%2Fb#part\r\n", b""),
        })
        .await;
        let body =
            client.get(&source(&server.url()), Use::Modules, "m/list", &AMPLE, "").await.unwrap();
        assert_eq!(body, "found");
        assert_eq!(server.asked()[1].header("via"), Some("1.1 stoa-test"));
        assert_eq!(server.asked()[1].header("referer"), None);
        assert_eq!(server.connections(), 1);
    }
}

#[tokio::test]
async fn follows_at_most_ten() {
    let client = client();
    let check = async |hops: usize, expected: Result<&[u8], &str>| {
        let server = Server::start(move |_, number| {
            if number == hops { ok(b"found") } else { redirect(&format!("/{number}")) }
        })
        .await;
        let outcome = get(&client, &server.url()).await;
        assert_eq!(outcome.as_deref().map_err(short), expected.map_err(str::to_owned));
        assert_eq!(server.asked().len(), hops.min(10) + 1);
    };
    check(10, Ok(b"found")).await;
    check(11, Err("corrupt http 1: more than 10 redirects")).await;
}

#[tokio::test]
async fn refuses_to_go_astray() {
    let client = client();
    let check = async |to: &'static str, expected: &str| {
        let server = Server::start(move |_, _| redirect(to)).await;
        let failure = get(&client, &server.url()).await.unwrap_err();
        assert_eq!(short(&failure), format!("corrupt http 1: {expected}"), "{to}");
    };
    check("/loop", "a redirect loop").await;
    check("", "a redirect loop").await;
    check("ftp://example.com/", "a redirect to something that is no http address").await;
    check("file:///etc/passwd", "a redirect to something that is no http address").await;
    check("http://[::bad", "a redirect to something that is no http address").await;
}

#[tokio::test]
async fn never_from_https_to_http() {
    let authority = Authority::new();
    let file = authority.file();
    let plain = Server::start(|_, _| ok(b"stolen")).await;
    let to = plain.url();
    let secure = Server::start_tls(&authority, move |_, _| redirect(&to)).await;
    let client =
        Client::new(Settings { ca_files: vec![file.path().to_owned()], ..settings() }).unwrap();
    let failure = get(&client, &secure.url()).await.unwrap_err();
    assert_eq!(short(&failure), "corrupt http 1: a redirect from https to http");
    assert_eq!(plain.connections(), 0);
    // The other way is fine.
    let to = secure.url();
    let upgrading = Server::start(move |_, _| redirect(&to)).await;
    let failure = get(&client, &upgrading.url()).await.unwrap_err();
    let there = "a redirect from https to http (redirected to 127.0.0.1)";
    assert_eq!(short(&failure), format!("corrupt http 1: {there}"));
    assert_eq!(secure.asked().len(), 2);
}

#[tokio::test]
async fn a_failure_elsewhere_says_where() {
    let names = Arc::new(Names(([127, 0, 0, 1], 1).into()));
    let client = Client::with_resolver(settings(), names).unwrap();
    let server = Server::start(|_, _| redirect("http://cdn.invalid/x?signature=secret")).await;
    let failure = get(&client, &server.url()).await.unwrap_err();
    let expected = "dns: Name or service not known (redirected to cdn.invalid)";
    assert_eq!(short(&failure), format!("unavailable dns 1: {expected}"));
}

#[tokio::test]
async fn a_private_module_stays_with_its_host() {
    let elsewhere = Server::start(|_, _| ok(b"found")).await;
    let to = elsewhere.url();
    let server = Server::start(move |asked, _| match asked.target() {
        "/here/m" => redirect("/there"),
        "/there" => ok(b"found"),
        _ => redirect(&to),
    })
    .await;
    let client = client();
    let base = source(&server.url());
    assert_eq!(client.get(&base, Use::Modules, "away", &AMPLE, "").await.unwrap(), "found");
    let confined = base.confined();
    assert_eq!(client.get(&confined, Use::Modules, "here/m", &AMPLE, "").await.unwrap(), "found");
    let failure = client.get(&confined, Use::Modules, "away", &AMPLE, "").await.unwrap_err();
    let expected = "denied http 1: redirect of a private module to another host (127.0.0.1)";
    assert_eq!(short(&failure), expected);
    assert_eq!(elsewhere.asked().len(), 1);
}
