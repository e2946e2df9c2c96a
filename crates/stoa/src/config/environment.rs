//! The `STOA_` variables. A name that no setting has is a mistake, because a slip in
//! `STOA_GOPRIVATE` would send private names to a public host.

use std::collections::{BTreeMap, BTreeSet};

use super::file::meant;
use super::mistakes::{Collector, Origin};
use super::suggest;
use super::table::SETTINGS;
use super::value::Raw;

/// What the environment says about each key. An empty variable is not set, as in Go: compose
/// files pass variables on that are not there. `spoken_for` are the variables that credentials name.
pub(super) fn read(
    env: &BTreeMap<String, String>,
    spoken_for: &BTreeSet<String>,
    out: &mut Collector,
) -> BTreeMap<&'static str, (Raw, Origin)> {
    let mut known = BTreeSet::from(["STOA_CONFIG".to_owned()]);
    let mut values = BTreeMap::new();
    for setting in SETTINGS {
        let long = setting.env();
        let short = setting.short.as_ref().map(|short| short.env.to_owned());
        let mut taken: Option<&str> = None;
        for name in short.into_iter().chain([long]) {
            if let Some(value) = env.get(&name).filter(|value| !value.is_empty()) {
                let origin = Origin::Environment(name.clone());
                match taken {
                    None => {
                        taken = Some(value);
                        values.insert(setting.key, (Raw::Text(value.clone()), origin));
                    }
                    Some(other) if other == value => {}
                    Some(_) => {
                        let problem = "is set twice, with different values: remove one of both";
                        out.mistake(origin, setting.key, problem);
                    }
                }
            }
            known.insert(name);
        }
    }
    for (name, value) in env {
        let ours = name.starts_with("STOA_") && !known.contains(name);
        if ours && !spoken_for.contains(name) && !not_a_setting(name, value) {
            let origin = Origin::Environment(name.clone());
            out.mistake(origin, "", unknown(name, &known));
        }
    }
    values
}

/// Variables that others make: switches of the tests, and what Kubernetes sets in each pod for a
/// service called `stoa` or `stoa-…` (`STOA_SERVICE_HOST`, `STOA_PORT_3000_TCP_ADDR`, …).
fn not_a_setting(name: &str, value: &str) -> bool {
    let name = name.strip_prefix("STOA_").unwrap_or(name);
    if name.starts_with("REQUIRE_") || name.starts_with("TEST_") {
        return true;
    }
    let name = format!("_{name}");
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || is_port_link(&name)
        // `STOA_PORT=tcp://10.0.0.1:3000`. A bare number is a person who means STOA_LISTEN.
        || name.ends_with("_PORT") && value.contains("://")
}

/// `_PORT_3000_TCP`, `_PORT_3000_TCP_ADDR`.
fn is_port_link(name: &str) -> bool {
    name.match_indices("_PORT_").any(|(at, prefix)| {
        let rest = &name[at + prefix.len()..];
        let (port, protocol) = rest.split_once('_').unwrap_or((rest, ""));
        port.bytes().all(|b| b.is_ascii_digit())
            && !port.is_empty()
            && ["TCP", "UDP", "SCTP"].iter().any(|p| protocol.starts_with(p))
    })
}

fn unknown(name: &str, known: &BTreeSet<String>) -> String {
    let near = if name == "STOA_PORT" {
        Some("STOA_LISTEN=:3000")
    } else {
        // Without the prefix that all share, or every short name would be near every other.
        let bare = |name: &'_ str| name.trim_start_matches("STOA_").to_owned();
        let candidates: Vec<String> = known.iter().map(|name| bare(name)).collect();
        let near = suggest::nearest(&bare(name), candidates.iter().map(String::as_str));
        let near = near.map(|near| format!("STOA_{near}"));
        known.iter().map(String::as_str).find(|name| Some(*name) == near.as_deref())
    };
    format!("unknown setting{}", meant(near))
}

#[cfg(test)]
mod tests;
