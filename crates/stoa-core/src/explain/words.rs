//! What follows from what is known of a subject: why it is refused or hidden, and who would be asked next.

use stoa_module::{ErrorClass, ModulePath};

use super::{Breaker, Checksums, Explained, File, Kept, Rejected, Stored, Verdict};
use crate::mirror::Mirror;
use crate::policy::{Rule, is_toolchain};

/// Who would be asked.
struct Next<'e> {
    explained: &'e Explained,
    /// The first source of the chain that is asked at all.
    first: &'e str,
    /// Where the record would be looked up.
    road: Option<&'e str>,
}

impl Mirror {
    pub(super) fn refusals(&self, path: &ModulePath, explained: &Explained) -> Vec<String> {
        let mut why = self.refusals_by_name(path);
        for file in &explained.files {
            refusals_of_file(file, explained.offline, &mut why);
        }
        why.extend(standing(explained.checksums.verdict.as_ref()));
        for Kept { asked, kept, verdict, .. } in &explained.answers {
            if kept.is_none() && explained.offline {
                why.push(format!("{asked}: offline, not kept"));
            }
            why.extend(standing(verdict.as_ref()).map(|text| format!("{asked}: {text}")));
        }
        if let Some(Rejected { at, reason, .. }) = explained.rejected.first() {
            let count = explained.rejected.len();
            why.push(format!(
                "in quarantine: {count} of its bodies, the last since {at}: {reason}"
            ));
        }
        why
    }

    /// Whatever is stored of it.
    fn refusals_by_name(&self, path: &ModulePath) -> Vec<String> {
        let mut why = Vec::new();
        if self.inner.policy.refusing_route(path).is_some()
            && let Rule::Route(n, route) = self.inner.policy.rule(path)
        {
            let (n, pattern) = (n + 1, route.pattern.find(path).unwrap_or_default());
            why.push(format!("route {n} ({pattern}) is off: refused, also what is stored (403)"));
        }
        if let Some(reason) = path.impossible() {
            why.push(format!("it can be no module: {reason} (404)"));
        }
        if is_toolchain(path) && self.inner.database.is_none() {
            why.push("GOSUMDB is off, and nobody else vouches for a toolchain (403)".to_owned());
        }
        why
    }

    /// In words, for each part of it that somebody may ask for.
    pub(super) fn asked_next(&self, path: &ModulePath, explained: &Explained) -> Vec<String> {
        if !self.refusals_by_name(path).is_empty() {
            return vec!["nobody: it is refused".to_owned()];
        }
        let Explained { routing, files, answers, .. } = explained;
        let is_asked = |source: &str, breaker: Option<&Breaker>| {
            // Where no probe is planned the next request is the probe.
            let is_left_alone =
                |breaker: &Breaker| breaker.state == "open" && breaker.next_probe.is_some();
            source != "off" && !breaker.is_some_and(is_left_alone)
        };
        let (mut first, mut links) = (None, routing.chain.iter());
        // One that fails without being asked is passed over like one that fails.
        while let (None, Some(link)) = (first, links.next()) {
            if is_asked(&link.source, link.breaker.as_ref()) {
                first = Some(link);
            } else if link.separator.as_deref() != Some("|") {
                break;
            }
        }
        let mut roads = explained.checksums.roads.iter();
        let road = roads.find(|road| {
            road.passes_on != Some(false) && is_asked(&road.source, road.breaker.as_ref())
        });
        let next = Next {
            explained,
            first: first.map_or("nobody: no source of its chain is asked now", |it| &it.source),
            road: road.map(|road| road.source.as_str()),
        };
        let files = files.iter().map(|file| format!(".{}: {}", file.file, next.of_file(file)));
        let answers =
            answers.iter().map(|kept| format!("{}: {}", kept.asked, next.of_answer(kept)));
        files.chain(answers).collect()
    }
}

impl Next<'_> {
    fn of_file(&self, File { file, stored, verdict, .. }: &File) -> String {
        let Checksums { record, exempt, .. } = &self.explained.checksums;
        let is_covered = file != "info" && exempt.is_none() && record.is_none();
        let road = self.road.filter(|_| is_covered);
        match stored {
            Some(Stored { handed_out: true, .. }) => {
                "nobody, it is served from the store".to_owned()
            }
            Some(Stored { there: true, .. }) if !self.explained.offline => {
                format!("for its record {}", road.unwrap_or("nobody"))
            }
            _ => {
                let file = self.of(verdict.as_ref());
                let asks = !file.starts_with("nobody");
                let record =
                    road.filter(|_| asks).map(|road| format!(", and for its record {road}"));
                file + &record.unwrap_or_default()
            }
        }
    }

    fn of_answer(&self, Kept { kept, verdict, .. }: &Kept) -> String {
        let offline = self.explained.offline;
        match kept.as_ref().map(|kept| kept.state.as_str()) {
            Some("young") => "nobody, what is kept is young".to_owned(),
            Some("ageing" | "past") if !offline => {
                format!("{}, behind the answer that is kept", self.first)
            }
            _ => self.of(verdict.as_ref()),
        }
    }

    fn of(&self, verdict: Option<&Verdict>) -> String {
        if self.explained.offline {
            return "nobody: the server is offline".to_owned();
        }
        match verdict.filter(|verdict| verdict.stands > 0.0) {
            Some(verdict) if verdict.class == ErrorClass::NotFound.as_str() => {
                format!("{}, though at a bounded rate while its absence is remembered", self.first)
            }
            Some(_) => "nobody while its verdict stands".to_owned(),
            None => self.first.to_owned(),
        }
    }
}

fn refusals_of_file(file: &File, offline: bool, why: &mut Vec<String>) {
    let File { file, stored, verdict, .. } = file;
    match stored {
        Some(Stored { handed_out: true, state, .. }) => {
            if state == "unverified" {
                why.push(format!(
                    ".{file}: handed out although nobody has vouched for it yet; nobody may keep it"
                ));
            }
            // What was said of it before does not matter any more.
            return;
        }
        Some(Stored { there: false, .. }) => why.push(format!(
            ".{file}: its file is gone, and only the same content may take its place"
        )),
        Some(Stored { state, by, .. }) => {
            let by = by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            why.push(format!(
                ".{file}: withheld until the checksum database vouches for it (it is {state}{by})"
            ));
        }
        None if offline => why.push(format!(".{file}: offline, not stored (404)")),
        None => {}
    }
    why.extend(standing(verdict.as_ref()).map(|text| format!(".{file}: {text}")));
}

/// A verdict that still stands, and for how long.
fn standing(verdict: Option<&Verdict>) -> Option<String> {
    let verdict = verdict.filter(|verdict| verdict.stands > 0.0)?;
    Some(format!("{} (stands for {:.0} s)", verdict.text, verdict.stands.ceil()))
}
