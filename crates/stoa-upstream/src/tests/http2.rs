use std::convert::Infallible;
use std::io::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Version};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use super::server::Authority;
use super::{AMPLE, get, settings, short, source};
use crate::{Client, Settings, Use};

/// Some text, and then perhaps an error, which HTTP/2 tells by a reset of the stream.
struct Said {
    text: Option<&'static str>,
    breaks: bool,
}

impl Body for Said {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Poll::Ready(match self.text.take() {
            Some(text) => Some(Ok(Frame::data(text.into()))),
            None if self.breaks => Some(Err(Error::other("broken"))),
            None => None,
        })
    }
}

#[tokio::test]
async fn is_spoken_where_it_is_offered() {
    let authority = Authority::new();
    let tls = authority.acceptor(&[b"h2", b"http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&connections);
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            seen.fetch_add(1, Ordering::SeqCst);
            let stream = tls.accept(stream).await.unwrap();
            let answer = service_fn(async |request: Request<Incoming>| {
                assert_eq!(request.version(), Version::HTTP_2);
                let breaks = request.uri().path() == "/broken";
                Ok::<_, Infallible>(Response::new(Said { text: Some("over h2"), breaks }))
            });
            tokio::spawn(async move {
                let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = http.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    let file = authority.file();
    let client =
        Client::new(Settings { ca_files: vec![file.path().to_owned()], ..settings() }).unwrap();
    let url = format!("https://{addr}");
    assert_eq!(get(&client, &url).await.unwrap(), "over h2");
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (client, url) = (client.clone(), url.clone());
        asking.spawn(async move { get(&client, &url).await });
    }
    for said in asking.join_all().await {
        assert_eq!(said.unwrap(), "over h2");
    }
    let failure = client.get(&source(&url), Use::Modules, "broken", &AMPLE, "").await.unwrap_err();
    // The reset may overtake the header.
    let shown = short(&failure).replace("body: ", "").replace("body", "http");
    assert!(shown.starts_with("unavailable http 3: stream error received: "), "{failure}");
    // One connection serves them all, and a broken stream does not break it.
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    server.abort();
}
