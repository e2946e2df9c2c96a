//! `/-/explain/MODULE[@VERSION]`: why it is answered as it is. What there is to say is [`stoa_core::explain`]'s.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::Response;
use http::{Request, StatusCode};
use jiff::Timestamp;
use serde_json::Value;
use stoa_core::explain::{
    Breaker, Checksums, Explained, File, Kept, Road, Routing, Said, Stored, Verdict,
};
use stoa_core::{Error, Subject};
use stoa_module::{ErrorClass, ModulePath, Version};
use tokio::time::timeout;

use crate::http::pages::{self, View};
use crate::http::{App, access_log, error_text};

/// What it takes on a disk that works is a matter of milliseconds.
const PATIENCE: Duration = Duration::from_secs(4);

/// The page.
pub async fn page(
    app: &Arc<App>,
    view: View,
    subject: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response {
    let id = access_log::request_id(&request);
    let error = |class, message, hint: &str| Error {
        class,
        message,
        failures: Vec::new(),
        hint: Some(hint.to_owned()),
        retry_after: None,
    };
    let subject = match subject {
        Ok(Path(text)) => parse(&text),
        Err(_) => Err("the name is no text".to_owned()),
    };
    let subject = match subject {
        Ok(subject) => subject,
        Err(why) => {
            let hint = "ask for /-/explain/MODULE, MODULE@VERSION or MODULE@BRANCH";
            let error = error(ErrorClass::Invalid, why, hint);
            return error_text::respond_with(StatusCode::BAD_REQUEST, &error, &id, true);
        }
    };
    if view == View::Public && app.mirror.is_private(subject.path()) {
        // The same whatever is known of it: who asks here may be anybody.
        let message = format!("{}: private, and not explained here", subject.path());
        let hint = "ask at server.admin-listen, or on the server over its command socket";
        return error_text::respond(&error(ErrorClass::NotFound, message, hint), &id, true);
    }
    // A task of its own: where the disk hangs it keeps its place, so that those who ask again do not take ever more threads.
    let explaining = {
        let (mirror, subject) = (app.mirror.clone(), subject.clone());
        tokio::spawn(async move { mirror.explain(&subject).await })
    };
    let Ok(Ok(explained)) = timeout(PATIENCE, explaining).await else {
        let message = format!("{subject}: not explained within {} s", PATIENCE.as_secs());
        let hint = "the server's disk does not answer, or too many ask";
        return error_text::respond(&error(ErrorClass::Timeout, message, hint), &id, true);
    };
    let explained = if view == View::Public { for_anybody(explained) } else { explained };
    pages::as_wanted(&request, &explained, || text(&explained))
}

/// Of sources only the hosts: paths and directories are nobody's business, and some proxies have a token in them.
fn for_anybody(explained: Explained) -> Explained {
    let Ok(mut value) = serde_json::to_value(&explained) else { return explained };
    let mut sources = BTreeSet::new();
    each_text(&mut value, None, &mut |key, text| {
        if key == Some("source") {
            let name = text.rsplit_once(" through ").map_or(&**text, |(_, name)| name);
            sources.insert(name.to_owned());
        }
    });
    // The longer ones first: one may be the beginning of another.
    let mut sources: Vec<_> = sources.into_iter().collect();
    sources.sort_by_key(|source| std::cmp::Reverse(source.len()));
    each_text(&mut value, None, &mut |_, text| {
        for source in &sources {
            let host = pages::host_of(source);
            // Those who answer may repeat it.
            let behind = source.strip_prefix(&*host).unwrap_or_default();
            if host == *source || behind == "/" {
                continue;
            }
            *text = text.replace(source, &host);
            if behind.len() > 1 {
                *text = text.replace(behind, "");
            }
        }
    });
    serde_json::from_value(value).unwrap_or(explained)
}

/// Every text in it, with the name of its field.
fn each_text(
    value: &mut Value,
    key: Option<&str>,
    see: &mut impl FnMut(Option<&str>, &mut String),
) {
    match value {
        Value::String(text) => see(key, text),
        Value::Array(all) => all.iter_mut().for_each(|one| each_text(one, key, see)),
        Value::Object(fields) => {
            for (key, one) in fields.iter_mut() {
                each_text(one, Some(key), see);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A module's path and version as people write them, or as they are in URLs and on the disk.
fn parse(text: &str) -> Result<Subject, String> {
    if text.is_empty() {
        return Err("no module is named".to_owned());
    }
    let (path, version) = text.split_once('@').map_or((text, None), |(path, v)| (path, Some(v)));
    let wrong = |error: &dyn std::fmt::Display| format!("{text}: {error}");
    let path = if path.contains('!') {
        ModulePath::parse_escaped(path).map_err(|error| wrong(&error))?.to_string()
    } else {
        path.to_owned()
    };
    let version = match version {
        Some(version) if version.contains('!') => {
            Some(Version::parse_escaped(version).map_err(|error| wrong(&error))?.to_string())
        }
        version => version.map(str::to_owned),
    };
    Subject::parse(&version.map_or(path.clone(), |version| format!("{path}@{version}")))
}

/// The width of the names of lines.
const NAME: usize = 10;

/// Stages that took less, in seconds, are for machines.
const LEAST: f64 = 0.0005;

/// Lines of a name and what is to be said about it.
struct Lines(String);

impl Lines {
    fn line(&mut self, name: &str, text: impl AsRef<str>) {
        // What upstreams said is in here.
        let text: String =
            text.as_ref().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let line = format!("{name:<NAME$} {text}");
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }

    fn verdict(&mut self, name: &str, verdict: Option<&Verdict>) {
        let Some(Verdict { class, text, age, stands }) = verdict else { return };
        let stands = if *stands > 0.0 {
            format!("stands for another {}", span(*stands))
        } else {
            "is the answer only while no source answers".to_owned()
        };
        self.line(name, format!("remembered, {class}, {} ago, {stands}: {text}", span(*age)));
    }

    fn said(&mut self, name: &str, said: &[Said]) {
        for Said { source, outcome, at, took, stages, .. } in said {
            let stages = stages.iter().filter(|one| one.seconds >= LEAST);
            let stages: Vec<_> =
                stages.map(|one| format!("{} {}", one.stage, span(one.seconds))).collect();
            let (at, took) = (when(*at), span(*took));
            let mut text = format!("{source} said at {at}: {outcome}, in {took}");
            if !stages.is_empty() {
                let _ = write!(text, " ({})", stages.join(", "));
            }
            self.line(name, text);
        }
    }
}

/// For people.
fn text(explained: &Explained) -> String {
    let Explained { subject, private, offline, routing, checksums, .. } = explained;
    let mut lines = Lines(format!("{subject}\n\n"));
    if *private {
        lines.line("private", "yes: its name goes to nobody who was not named for it");
    }
    if *offline {
        lines.line("offline", "yes: only what is stored is answered");
    }
    for why in &explained.refused {
        lines.line("refused", why);
    }
    route(&mut lines, routing);
    sums(&mut lines, checksums);
    for file in &explained.files {
        stored(&mut lines, file);
    }
    for Kept { asked, kept, verdict, said } in &explained.answers {
        match kept {
            Some(kept) => lines.line(
                asked,
                format!(
                    "{}, from {}, {} old of {} ({})",
                    kept.says,
                    kept.source,
                    span(kept.age),
                    span(kept.ttl),
                    kept.state
                ),
            ),
            None => lines.line(asked, "no answer is kept"),
        }
        lines.verdict(asked, verdict.as_ref());
        lines.said(asked, said);
    }
    if let Some(versions) = &explained.versions {
        let plural = if versions.count == 1 { "" } else { "s" };
        lines.line("stored", format!("{} version{plural}", versions.count));
        for one in &versions.newest {
            let mut text = format!("{} ({})", one.version, one.files.join(", "));
            if !one.unverified.is_empty() {
                let _ = write!(text, ", unverified: {}", one.unverified.join(", "));
            }
            lines.line("", text);
        }
    }
    for rejected in &explained.rejected {
        let kept = if rejected.kept { "" } else { " (too large to be kept)" };
        let (at, path, source) = (when(rejected.at), &rejected.path, &rejected.source);
        lines.line("rejected", format!("{at} from {source}: {}; {path}{kept}", rejected.reason));
    }
    for next in &explained.next {
        lines.line("next", format!("asked for {next}"));
    }
    lines.0
}

fn route(lines: &mut Lines, routing: &Routing) {
    let Routing { rule, route, pattern, chain } = routing;
    let pattern = pattern.as_deref().unwrap_or_default();
    let rule = match (rule.as_str(), route) {
        ("route", Some(n)) => format!("[[route]] {n}, {pattern}"),
        ("gonoproxy", _) => format!("GONOPROXY={pattern}"),
        ("goprivate", _) => format!("GOPRIVATE={pattern}"),
        _ => "no route or pattern names it: upstream.goproxy".to_owned(),
    };
    lines.line("route", rule);
    for (n, link) in chain.iter().enumerate() {
        let then = match link.separator.as_deref() {
            Some("|") => "; the next one if it fails",
            Some(_) => "; the next one if it has not got it",
            None => "",
        };
        let breaker = link.breaker.as_ref().map(breaker).unwrap_or_default();
        lines.line("source", format!("{}. {}{then}{breaker}", n + 1, link.source));
    }
}

fn breaker(breaker: &Breaker) -> String {
    if breaker.state == "closed" {
        return String::new();
    }
    let mut text = format!("; breaker {}", breaker.state);
    let since = breaker.since.map(|since| format!(" since {}", when(since)));
    text.push_str(&since.unwrap_or_default());
    if let Some(reason) = &breaker.reason {
        let _ = write!(text, ": {reason}");
    }
    text
}

fn sums(lines: &mut Lines, checksums: &Checksums) {
    let Checksums { database, exempt, roads, record, verdict, said } = checksums;
    match (database, exempt) {
        (_, Some(exempt)) => lines.line("checksums", format!("exempt by {exempt}")),
        (Some(database), None) => lines.line("checksums", format!("{database} vouches for it")),
        (None, None) => lines.line("checksums", "nobody is asked"),
    }
    for Road { source, through_proxy, passes_on, breaker: of } in roads {
        let what = match (through_proxy, passes_on) {
            (false, _) => "the database itself",
            (true, Some(true)) => "a proxy, which passes it on",
            (true, Some(false)) => "a proxy, which does not pass it on",
            (true, None) => "a proxy, if it passes it on",
        };
        let of = of.as_ref().map(breaker).unwrap_or_default();
        lines.line("road", format!("{source}: {what}{of}"));
    }
    if let Some(record) = record {
        let hash = |hash: &Option<String>| hash.as_deref().unwrap_or("nothing").to_owned();
        let (go_mod, zip) = (hash(&record.go_mod), hash(&record.zip));
        lines.line("record", format!("mod {go_mod}, zip {zip}"));
        lines.line("", &record.path);
    }
    lines.verdict("record", verdict.as_ref());
    lines.said("record", said);
}

fn stored(lines: &mut Lines, File { file, stored, verdict, said }: &File) {
    let name = &format!(".{file}");
    if let Some(stored) = stored {
        let Stored { path, there, size, sha256, h1, state, by, source, first_seen, handed_out } =
            stored;
        let by = by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let what = match (there, handed_out) {
            (false, _) => "lost, its record is kept",
            (true, true) => "stored",
            (true, false) => "stored, not handed out",
        };
        let first_seen = when(*first_seen);
        lines.line(name, format!("{what}: {state}{by}, {size} bytes, from {source}, {first_seen}"));
        lines.line("", path);
        lines.line("", format!("sha256 {sha256}"));
        if let Some(h1) = h1 {
            lines.line("", h1);
        }
    } else {
        lines.line(name, "not stored");
    }
    lines.verdict(name, verdict.as_ref());
    lines.said(name, said);
}

/// To the second, in UTC.
fn when(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// `3 ms`, `1.5 s`, `12 min`, `5 h`.
fn span(seconds: f64) -> String {
    match seconds {
        ..1.0 => format!("{:.0} ms", seconds * 1e3),
        ..120.0 => format!("{seconds:.1} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_people_and_as_urls_write_them() {
        let check = |text: &str, expected: Result<&str, &str>| match parse(text) {
            Ok(subject) => assert_eq!(Ok(subject.to_string().as_str()), expected, "{text}"),
            Err(error) => assert!(expected.is_err_and(|words| error.contains(words)), "{error}"),
        };
        check("ex.com/Upper/Case@v1.0.0", Ok("ex.com/Upper/Case@v1.0.0"));
        check("ex.com/!upper/!case@v1.0.0", Ok("ex.com/Upper/Case@v1.0.0"));
        check("ex.com/m@v1.0.0-!r!c1", Ok("ex.com/m@v1.0.0-RC1"));
        check("ex.com/m@latest", Ok("ex.com/m"));
        check("ex.com/m@feature-one", Ok("ex.com/m@feature-one"));
        check("ex.com/m@feature/one", Err("malformed revision"));
        check("ex.com/!m!!", Err("ex.com/!m!!: "));
        check("ex.com/m@v1!", Err("ex.com/m@v1!: "));
        check("", Err("no module is named"));
        check("@", Err(": "));
        check("../../etc/passwd", Err("passwd: "));
        check("ex.com/m\u{0}", Err(": "));
    }

    #[test]
    fn spans() {
        let check = |seconds, expected: &str| assert_eq!(span(seconds), expected);
        check(0.0, "0 ms");
        check(0.0034, "3 ms");
        check(1.5, "1.5 s");
        check(150.0, "2 min");
        check(7300.0, "2 h");
    }
}
