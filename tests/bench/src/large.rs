//! Large zips: how soon the first byte of a cold one comes, and what many clients of one cost in memory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use crate::data::Data;
use crate::load::{self, Arrival, Until};
use crate::measure::median;
use crate::report::{Promise, milliseconds};
use crate::server::{Kind, Server};
use crate::upstream::Upstream;

/// What a public proxy takes to begin an answer, and the bandwidth to it.
const DELAY: Duration = Duration::from_millis(100);
const BANDWIDTH: u64 = 50_000_000;
const TIMES: usize = 3;

const STREAMED: u64 = 50_000_000;
const LARGEST: u64 = 200_000_000;
const CLIENTS: usize = 256;

/// What is promised: how much later than from the upstream itself the first byte comes, and memory in MiB.
const LATER: f64 = 1.3;
const PEAK: f64 = 128.0;

#[derive(Debug)]
pub(crate) struct Large {
    upstream: Arrival,
    stoa: Arrival,
    /// MiB; and answers that were not right.
    peak: f64,
    wrong: u64,
}

pub(crate) async fn measure(stoa: &Path, data: &Arc<Data>) -> anyhow::Result<Large> {
    let upstream = Upstream::start(&data.store_dir())?;
    let kind = Kind::stoa(stoa, data);
    let zip = data.large_zip(STREAMED)?;
    println!(
        "stoa: a cold zip of {} MB, from an upstream with {BANDWIDTH} B/s",
        STREAMED / 1_000_000
    );
    upstream.pace(DELAY, BANDWIDTH).await?;
    let (mut own, mut through) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        own.push(load::arrival(upstream.url(), zip).await?);
        let server = Server::start(&kind, upstream.url()).await?;
        // As the go command does: the go.mod was read before the zip is wanted.
        let (status, _) = load::get(server.url(), &zip.replace(".zip", ".mod")).await?;
        if !status.is_success() {
            bail!("{zip}: its go.mod is answered {status}");
        }
        through.push(load::arrival(server.url(), zip).await?);
    }
    let arrival = |all: &[Arrival]| Arrival {
        first: median(all.iter().map(|it| it.first).collect()),
        whole: median(all.iter().map(|it| it.whole).collect()),
        bytes: all[0].bytes,
    };
    let (own, through) = (arrival(&own), arrival(&through));
    drop(upstream);

    println!("stoa: {CLIENTS} clients, everything cold with a zip of {} MB", LARGEST / 1_000_000);
    let upstream = Upstream::start(&data.store_dir())?;
    let server = Server::start(&kind, upstream.url()).await?;
    let largest = data.large_zip(LARGEST)?;
    let mut paths = vec![largest.clone(); CLIENTS / 16];
    paths.extend(data.paths.iter().cloned());
    let pass = load::pass(server.url(), paths.into(), CLIENTS, Until::Once, None).await?;
    let wrong = pass.failed + pass.different;
    Ok(Large { upstream: own, stoa: through, peak: server.peak(), wrong })
}

impl Large {
    pub(crate) fn summary() -> String {
        format!(
            "large zips: the upstream begins after {} ms and sends {} MB/s; the median of {TIMES}",
            DELAY.as_millis(),
            BANDWIDTH / 1_000_000
        )
    }

    fn later(&self) -> f64 {
        self.stoa.first.as_secs_f64() / self.upstream.first.as_secs_f64()
    }

    pub(crate) fn promises(&self) -> Vec<Promise> {
        let later = self.later();
        vec![
            Promise {
                text: format!(
                    "the first byte of a cold zip of {} MB at most {LATER} times as late as from the upstream itself: {later:.2}",
                    STREAMED / 1_000_000
                ),
                holds: later <= LATER,
            },
            Promise {
                text: format!(
                    "peak at most {PEAK} MiB with {CLIENTS} clients and a zip of {} MB: {:.1}, {} wrong",
                    LARGEST / 1_000_000,
                    self.peak,
                    self.wrong
                ),
                holds: self.peak <= PEAK && self.wrong == 0,
            },
        ]
    }

    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let row = |name: &str, of: fn(&Arrival) -> Duration| {
            let (upstream, stoa) = (of(&self.upstream), of(&self.stoa));
            let times = stoa.as_secs_f64() / upstream.as_secs_f64();
            let text = |it| format!("{:.1}", milliseconds(it));
            vec![name.to_owned(), text(upstream), text(stoa), format!("{times:.2}")]
        };
        let head = ["", "upstream", "stoa", "stoa ÷ upstream"].map(str::to_owned).to_vec();
        vec![
            head,
            row("cold zip of 50 MB, first byte, ms", |it| it.first),
            row("cold zip of 50 MB, all of it, ms", |it| it.whole),
        ]
    }
}
