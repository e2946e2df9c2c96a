//! `[[route]]`: a chain of sources for some modules.

use stoa_module::{Patterns, ProxyList};

use super::file::Entry;
use super::kind;
use super::mistakes::{Collector, Origin};
use super::show::quote;

/// The fields of a `[[route]]` and what they are.
pub(super) const FIELDS: &[(&str, &str)] = &[
    ("pattern", "The modules it is for, as in GOPRIVATE"),
    ("goproxy", "Where they come from, as in GOPROXY; off refuses them"),
];

/// The sources of some modules. The first route whose pattern matches wins.
#[derive(Debug, Clone)]
pub struct Route {
    pub pattern: Patterns,
    pub goproxy: ProxyList,
    pub origin: Origin,
}

impl Route {
    /// The route as it is written, without secrets.
    pub(super) fn shown(&self) -> [(&'static str, String); 2] {
        [
            ("pattern", quote(&self.pattern.to_string())),
            ("goproxy", quote(&self.goproxy.to_string())),
        ]
    }
}

pub(super) fn read(entries: &[Entry], out: &mut Collector) -> Vec<Route> {
    entries.iter().filter_map(|entry| route(entry, out)).collect()
}

fn route(entry: &Entry, out: &mut Collector) -> Option<Route> {
    let mut field = |name: &'static str| {
        if let Some((raw, origin)) = entry.fields.get(name) {
            let text = if name == "pattern" { raw.list().map(|l| l.join(",")) } else { raw.text() };
            return Some((text, origin.clone()));
        }
        out.mistake(entry.origin.clone(), format!("route.{name}"), "is missing");
        None
    };
    let pattern = field("pattern");
    let goproxy = field("goproxy");
    let pattern = pattern.and_then(|(text, origin)| {
        let parsed = text.and_then(|text| kind::patterns(&text)).and_then(|patterns| {
            if patterns.is_empty() { Err("matches no module".to_owned()) } else { Ok(patterns) }
        });
        parsed.map_err(|problem| out.mistake(origin, "route.pattern", problem)).ok()
    });
    let goproxy = goproxy.and_then(|(text, origin)| {
        let parsed = text.and_then(|text| kind::proxy_list(&text));
        parsed.map_err(|problem| out.mistake(origin, "route.goproxy", problem)).ok()
    });
    Some(Route { pattern: pattern?, goproxy: goproxy?, origin: entry.origin.clone() })
}
