//! `upstream.hedge`: who is asked beside whom, and whose answer is taken.

use std::time::Duration;

use stoa_testkit::{FakeUpstream, Fault, Gate, zip_of};

use crate::fixtures::{BASE, World, bounded, modules};
use crate::listen::logged;
use crate::stoa::{Setup, Stoa};

const ZIP: &str = "ex.com/lib/@v/v1.0.0.zip";

/// Two upstreams with the same modules; the first passes the database on.
struct Two {
    world: World,
    other: FakeUpstream,
}

impl Two {
    fn new() -> Self {
        Self { world: World::new(), other: FakeUpstream::start(modules()) }
    }

    fn first(&self) -> &FakeUpstream {
        &self.world.upstream
    }

    fn setup(&self, separator: &str) -> Setup {
        let chain = format!("{}{separator}{}", self.first().url(), self.other.url());
        self.world
            .setup()
            .goproxy(chain)
            .env("STOA_UPSTREAM_HEDGE", "50ms")
            .env("STOA_UPSTREAM_TRIES", "1")
            // Nothing here ends because it takes too long.
            .env("STOA_UPSTREAM_FILE_TIMEOUT", "15s")
            .env("STOA_UPSTREAM_LIST_TIMEOUT", "15s")
            .env("STOA_UPSTREAM_ALTERNATIVE_TIMEOUT", "15s")
    }

    /// The zip, while `meanwhile` goes on.
    async fn zip(&self, stoa: &Stoa, meanwhile: impl Future<Output = ()>) {
        let (reply, ()) = tokio::join!(bounded(stoa.get(ZIP)), meanwhile);
        assert!(reply.ok() == modules().zip("ex.com/lib@v1.0.0"));
    }
}

async fn came_from(stoa: &Stoa, source: &FakeUpstream) {
    let line = logged(stoa, &["answered", "kind=\"zip\""]).await;
    assert!(line.contains(&format!("source=\"{}", source.url())), "{line}");
}

#[tokio::test]
async fn the_next_one_answers_for_one_that_does_not() {
    let two = Two::new();
    let gate = Gate::new();
    two.first().fault("*.zip", Fault::gate(&gate));
    let stoa = two.setup("|").start();
    two.zip(&stoa, async {}).await;
    came_from(&stoa, &two.other).await;
    assert_eq!((two.first().count("*.zip"), two.other.count("*.zip")), (1, 1));
}

#[tokio::test]
async fn the_first_one_may_still_be_the_faster() {
    let two = Two::new();
    let (gate, other) = (Gate::new(), Gate::new());
    two.first().fault("*.zip", Fault::gate(&gate));
    two.other.fault("*.zip", Fault::gate(&other));
    let stoa = two.setup("|").start();
    let both = async {
        tokio::join!(gate.wait_for_held(1), other.wait_for_held(1));
        gate.open();
    };
    two.zip(&stoa, both).await;
    came_from(&stoa, two.first()).await;
}

/// A comma asks the next one when this one has not got it, and the user may have meant just that; and without the setting
/// nobody is asked twice.
#[tokio::test]
async fn nobody_is_asked_beside_one_before_a_comma_or_by_default() {
    for (separator, hedge) in [(",", "1ms"), ("|", "off")] {
        let two = Two::new();
        let gate = Gate::new();
        two.first().fault("*.zip", Fault::gate(&gate));
        let stoa = two.setup(separator).env("STOA_UPSTREAM_HEDGE", hedge).start();
        let held = async {
            gate.wait_for_held(1).await;
            // Many times the setting.
            tokio::time::sleep(Duration::from_millis(200)).await;
            gate.open();
        };
        two.zip(&stoa, held).await;
        assert_eq!(two.other.count("*"), 0);
    }
}

/// Lists differ between sources, and repositories are not asked for nothing.
#[tokio::test]
async fn neither_lists_nor_repositories() {
    let two = Two::new();
    let gate = Gate::new();
    two.first().fault("*/list", Fault::gate(&gate));
    let stoa = two.setup("|").env("STOA_UPSTREAM_HEDGE", "1ms").start();
    let held = async {
        gate.wait_for_held(1).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        gate.open();
    };
    let (reply, ()) = tokio::join!(bounded(stoa.get("ex.com/lib/@v/list")), held);
    assert_eq!(reply.ok(), b"v1.0.0\nv1.1.0\nv1.2.0-rc.1\n");
    assert_eq!(two.other.count("*"), 0);

    let gate = Gate::new();
    two.first().fault("*.zip", Fault::gate(&gate));
    let chain = format!("{}|direct", two.first().url());
    let stoa = two.setup("|").goproxy(chain).env("STOA_UPSTREAM_HEDGE", "1ms").start();
    let held = async {
        gate.wait_for_held(1).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        gate.open();
    };
    two.zip(&stoa, held).await;
    assert!(!stoa.log().contains("is asked too"), "{}", stoa.log());
}

#[tokio::test]
async fn one_that_fails_leaves_it_to_the_other() {
    // The one that was asked later has not got it.
    let two = Two::new();
    let gate = Gate::new();
    two.first().fault("*.zip", Fault::gate(&gate));
    two.other.fault("*.zip", Fault::status(404));
    let stoa = two.setup("|").start();
    let after = async {
        two.other.wait_for_request("*.zip").await;
        gate.open();
    };
    two.zip(&stoa, after).await;
    came_from(&stoa, two.first()).await;
    assert_eq!((two.first().count("*.zip"), two.other.count("*.zip")), (1, 1));

    // The first one fails while the other takes its time.
    let two = Two::new();
    let (gate, other) = (Gate::new(), Gate::new());
    two.first().fault("*.zip", Fault::status(500).with(Fault::gate(&gate)));
    two.other.fault("*.zip", Fault::gate(&other));
    let stoa = two.setup("|").start();
    let after = async {
        tokio::join!(gate.wait_for_held(1), other.wait_for_held(1));
        gate.open();
        other.open();
    };
    two.zip(&stoa, after).await;
    came_from(&stoa, &two.other).await;
    assert_eq!((two.first().count("*.zip"), two.other.count("*.zip")), (1, 1));

    // Both: both are named, each once.
    let two = Two::new();
    let gate = Gate::new();
    two.first().fault("*.zip", Fault::status(500).text("no luck").with(Fault::gate(&gate)));
    two.other.fault("*.zip", Fault::status(404).text("never heard of it"));
    let stoa = two.setup("|").start();
    let after = async {
        two.other.wait_for_request("*.zip").await;
        gate.open();
    };
    let (reply, ()) = tokio::join!(bounded(stoa.get(ZIP)), after);
    reply.refused(502, "no luck");
    let (first, other) = (reply.text().find("no luck"), reply.text().find("never heard of it"));
    assert!(first < other, "{}", reply.text());
    assert_eq!((two.first().count("*.zip"), two.other.count("*.zip")), (1, 1));
}

/// The first answer is no good: the other source is asked after all.
#[tokio::test]
async fn a_first_answer_that_is_refused_is_not_the_last() {
    let two = Two::new();
    let gate = Gate::new();
    two.first().fault("*.zip", Fault::gate(&gate).first(1));
    let forged = zip_of([
        ("ex.com/lib@v1.0.0/go.mod", "module ex.com/lib\n\ngo 1.21\n"),
        ("ex.com/lib@v1.0.0/lib.go", "package worse\n"),
    ]);
    two.other.fault("*.zip", Fault::replace(forged));
    let stoa = two.setup("|").start();
    two.zip(&stoa, async {}).await;
    came_from(&stoa, two.first()).await;
    assert_eq!((two.first().count("*.zip"), two.other.count("*.zip")), (2, 1));
    assert!(stoa.log().contains("SECURITY: checksum mismatch"), "{}", stoa.log());
}

/// Without a time of its own, after what is usual, or a while where that is not known.
#[tokio::test]
async fn what_takes_longer_than_usual() {
    let two = Two::new();
    let stoa = two.setup("|").env("STOA_UPSTREAM_HEDGE", "auto").start();
    for file in [".info", ".mod"] {
        stoa.get(&format!("{BASE}{file}")).await.ok();
    }
    let gate = Gate::new();
    two.first().fault("*.zip", Fault::gate(&gate));
    two.zip(&stoa, async {}).await;
    came_from(&stoa, &two.other).await;
}
