use stoa_testkit::{Answer, Internet, Port};

use super::{AMPLE, BRIEF, check, examine};
use crate::examine::Step;
use crate::tests::settings;
use crate::{Client, ProxyEnvironment, Settings};

fn through(proxy: &str, internet: Option<&Internet>) -> Client {
    let proxy = Some(proxy.to_owned());
    let proxy = ProxyEnvironment { http: proxy.clone(), https: proxy, no: None };
    let ca_files = internet.map(Internet::ca_file).into_iter().collect();
    Client::new(Settings { ca_files, proxy, ..settings() }).unwrap()
}

#[tokio::test]
async fn what_a_proxy_says() {
    let internet = Internet::start();
    internet.host("module.test").page("/", Answer::text(200, "ok"));
    let client = through(&internet.proxy_url(), Some(&internet));
    let examined = examine(&client, "https://module.test/", AMPLE).await;
    let words = [
        (Step::Name, "for the outgoing proxy, which looks module.test up itself"),
        (Step::OutgoingProxy, "tunnel to module.test:443: HTTP/1.1 200"),
        (Step::Http, "HTTP/1.1 200"),
    ];
    check(&examined, "name tcp outgoing-proxy tls credential http", &words);
    let examined = examine(&client, "http://module.test/", AMPLE).await;
    let words = [(Step::OutgoingProxy, "is asked for it, without a tunnel")];
    check(&examined, "name tcp outgoing-proxy credential http", &words);
    let examined = examine(&client, "https://nowhere.test/", AMPLE).await;
    let words = [(Step::OutgoingProxy, "no such host: nowhere.test")];
    check(&examined, "name tcp outgoing-proxy:proxy-refuses", &words);

    internet.wants_password("me", "hunter2");
    let examined = examine(&client, "https://module.test/", AMPLE).await;
    let words = [(Step::OutgoingProxy, "its address in the settings has none")];
    check(&examined, "name tcp outgoing-proxy:proxy-wants-password", &words);
    let examined = examine(&client, "http://module.test/", AMPLE).await;
    let expected = "name tcp outgoing-proxy credential http:proxy-wants-password";
    check(&examined, expected, &[(Step::Http, "407")]);
    let with = |pair: &str| {
        through(&internet.proxy_url().replace("://", &format!("://{pair}@")), Some(&internet))
    };
    let examined = examine(&with("me:wrong"), "https://module.test/", AMPLE).await;
    let words = [(Step::OutgoingProxy, "the one of its address is not accepted")];
    check(&examined, "name tcp outgoing-proxy:proxy-wants-password", &words);
    assert!(!format!("{examined:?}").contains("wrong"), "{examined:?}");
    let examined = examine(&with("me:hunter2"), "https://module.test/", AMPLE).await;
    check(&examined, "name tcp outgoing-proxy tls credential http", &[]);
    assert!(!format!("{examined:?}").contains("hunter2"), "{examined:?}");
}

#[tokio::test]
async fn proxies_that_are_none() {
    let check = async |port: &Port, scheme: &str, expected: &str, stage: Step, words: &str| {
        let client = through(&port.url(scheme), None);
        let step = if expected.contains("timeout") { BRIEF } else { AMPLE };
        let examined = examine(&client, "https://module.test/", step).await;
        check(&examined, expected, &[(stage, words)]);
    };
    let refused = "name tcp outgoing-proxy:proxy-refuses";
    check(&Port::refusing(), "http", "name tcp:refused", Step::Tcp, "refused").await;
    let silent = "name tcp outgoing-proxy:header-timeout";
    check(&Port::mute(), "http", silent, Step::OutgoingProxy, "no answer of the proxy").await;
    let banner = Port::saying("220 mail.test ESMTP\r\n");
    let words = "the proxy does not speak http: 220 mail.test ESMTP";
    check(&banner, "http", refused, Step::OutgoingProxy, words).await;
    check(&Port::closing(), "http", refused, Step::OutgoingProxy, "closed the connection").await;
    let not_tls = "name tcp outgoing-proxy:not-tls";
    check(&banner, "https", not_tls, Step::OutgoingProxy, "does not speak TLS").await;
    let socks = "name tcp outgoing-proxy credential http:header-timeout";
    check(&Port::mute(), "socks5", socks, Step::OutgoingProxy, "speaks socks").await;
}
