//! The client against servers that refuse, stall, lie and lead astray, all on loopback.

mod answers;
mod bounds;
mod breakers;
mod connecting;
mod credentials;
mod direct;
mod directory;
mod examine;
mod http2;
mod names;
mod outgoing_proxy;
mod redirects;
mod resume;
mod server;

use std::time::Duration;

use bytes::Bytes;
use url::Url;

use crate::{Bounds, Client, Failure, Settings, Source, Use};

/// Long enough that no healthy request on loopback meets it.
const AMPLE: Bounds = Bounds { header: Duration::from_secs(20), max_bytes: 1 << 20 };

fn settings() -> Settings {
    Settings {
        connect_timeout: Duration::from_secs(10),
        stall_timeout: Duration::from_secs(10),
        backoff: Duration::from_millis(1),
        instance_id: "test".to_owned(),
        user_agent: "stoa/test".to_owned(),
        ..Settings::default()
    }
}

fn client() -> Client {
    Client::new(settings()).unwrap()
}

fn source(url: &str) -> Source {
    Source::from_url(&Url::parse(url).unwrap()).unwrap()
}

async fn get(client: &Client, url: &str) -> Result<Bytes, Failure> {
    client.get(&source(url), Use::Modules, "example.com/m/@v/list", &AMPLE, "").await
}

/// What failed, as `class stage tries: detail`.
fn short(failure: &Failure) -> String {
    let Failure { class, stage, tries, detail, .. } = failure;
    format!("{} {stage} {tries}: {detail}", class.as_str())
}
