//! `/metrics`: what Prometheus reads, and what must not be read there.

use std::collections::{BTreeMap, BTreeSet};

use crate::fixtures::{World, client};
use crate::stoa::Stoa;

/// The samples of a scrape by name and labels, after a check of the text's form.
pub async fn scrape(stoa: &Stoa) -> BTreeMap<String, f64> {
    let response = stoa.get("metrics").await;
    assert_eq!(response.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(response.header("cache-control"), "no-store");
    let text = String::from_utf8(response.ok()).unwrap();
    let mut samples = BTreeMap::new();
    let mut types = BTreeMap::new();
    for line in text.lines() {
        if let Some(meta) = line.strip_prefix("# TYPE ") {
            let (name, kind) = meta.split_once(' ').unwrap();
            assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None, "{name} twice");
        } else if !line.starts_with("# HELP ") {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            let family = types.iter().find(|(family, kind)| {
                let suffix = name.strip_prefix(family.as_str());
                match kind.as_str() {
                    "counter" => suffix == Some("") && name.ends_with("_total"),
                    "gauge" => suffix == Some(""),
                    "histogram" => matches!(suffix, Some("_bucket" | "_sum" | "_count")),
                    _ => false,
                }
            });
            assert!(family.is_some(), "{line}: a sample without a type");
            let before = samples.insert(sample.to_owned(), value.parse().unwrap());
            assert_eq!(before, None, "{sample} twice");
        }
    }
    samples
}

#[tokio::test]
async fn requests_are_counted_by_kind_and_outcome() {
    let world = World::new();
    let stoa = world.setup().start();
    let before = scrape(&stoa).await;
    assert!(!before.contains_key("stoa_requests_total{kind=\"mod\",outcome=\"miss\"}"));
    let body = stoa.get("ex.com/lib/@v/v1.0.0.mod").await.ok();
    for _ in 0..3 {
        stoa.get("ex.com/lib/@v/v1.0.0.mod").await.ok();
    }
    stoa.get("ex.com/none/@v/v1.0.0.mod").await.refused(404, "not found");
    stoa.get("ex.com/lib/@v/list").await.ok();
    // A request is counted when its answer is gone, which is a moment after the client has it.
    let mut after = scrape(&stoa).await;
    while !after.contains_key("stoa_requests_total{kind=\"list\",outcome=\"miss\"}") {
        after = scrape(&stoa).await;
    }
    let check = |sample: &str, expected: f64| {
        assert_eq!(after.get(sample), Some(&expected), "{sample} in {after:#?}");
    };
    check("stoa_requests_total{kind=\"mod\",outcome=\"miss\"}", 1.0);
    check("stoa_requests_total{kind=\"mod\",outcome=\"hit\"}", 3.0);
    check("stoa_requests_total{kind=\"mod\",outcome=\"not_found\"}", 1.0);
    check("stoa_requests_total{kind=\"list\",outcome=\"miss\"}", 1.0);
    assert!(
        after["stoa_requests_total{kind=\"other\",outcome=\"ok\"}"] >= 1.0,
        "the scrape before"
    );
    check("stoa_request_duration_seconds_count{kind=\"mod\",outcome=\"hit\"}", 3.0);
    check("stoa_request_duration_seconds_bucket{le=\"+Inf\",kind=\"mod\",outcome=\"hit\"}", 3.0);
    // This very scrape.
    check("stoa_requests_in_progress", 1.0);
    check("stoa_flights{kind=\"file\"}", 0.0);
    let sent = after["stoa_sent_bytes_total{kind=\"mod\"}"];
    assert!(sent > 4.0 * body.len() as f64, "the text of the refusal counts, too: {sent}");
    // One .mod, one absence, one list; each upstream by its host and use.
    let host = world.upstream.address();
    let upstream = |outcome: &str| {
        format!(
            "stoa_upstream_requests_total{{host=\"{host}\",use=\"modules\",outcome=\"{outcome}\"}}"
        )
    };
    check(&upstream("ok"), 2.0);
    check(&upstream("absent"), 1.0);
    check(&upstream("refused"), 0.0);
    let breaker = |state: &str| {
        format!("stoa_upstream_breaker{{host=\"{host}\",use=\"modules\",state=\"{state}\"}}")
    };
    check(&breaker("closed"), 1.0);
    check(&breaker("open"), 0.0);
    check("stoa_verifications_total{result=\"verified\"}", 1.0);
    check("stoa_verifications_total{result=\"mismatch\"}", 0.0);
    assert!(after["stoa_store_memory_bytes"] > 100.0);
    assert!(after["process_resident_memory_bytes"] > 1e6);
    assert!(after["process_start_time_seconds"] > 1.7e9);
    assert!(after["process_open_fds"] > 3.0);
    check(&format!("stoa_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0);
}

#[tokio::test]
async fn no_label_holds_what_a_client_sent() {
    let world = World::new();
    let stoa = world.setup().start();
    stoa.get("ex.com/lib/@v/v1.0.0.zip").await.ok();
    stoa.get("ex.com/secret/@v/v9.9.9.mod").await.refused(404, "not found");
    stoa.get("ex.com/secret/@v/secret.xyz").await.refused(404, "not found");
    stoa.get("sumdb/secret.example.com/supported").await.refused(404, "checksum database");
    client().post(format!("{}/secret", stoa.url)).send().await.unwrap();
    let samples = scrape(&stoa).await;
    let text = format!("{samples:?}");
    assert!(!text.contains("secret") && !text.contains("ex.com"), "{text}");
    let words = |label: &str| {
        let of = |sample: &String| {
            let rest = sample.split(&format!("{label}=\"")).nth(1)?;
            rest.split('"').next().map(str::to_owned)
        };
        samples.keys().filter_map(of).collect::<BTreeSet<String>>()
    };
    // Of requests, of flights, and of git's commands.
    let kinds = "answer file mod other sumdb verification zip info local remote"
        .split(' ')
        .map(str::to_owned);
    assert!(words("kind").is_subset(&kinds.collect()), "{:?}", words("kind"));
}

#[tokio::test]
async fn open_metrics_to_those_who_ask_for_it() {
    let world = World::new();
    let stoa = world.setup().start();
    let response = client()
        .get(format!("{}/metrics", stoa.url))
        .header("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        .send()
        .await
        .unwrap();
    assert_eq!(
        response.headers()["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let text = response.text().await.unwrap();
    assert!(text.contains("# TYPE stoa_security_errors counter\n"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}
