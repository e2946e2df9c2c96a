//! The settings file: which one, and its TOML as located values.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistakes::{Collector, Origin};
use super::places::{Places, read_text};
use super::table::{self, SECTIONS, SETTINGS, Setting};
use super::value::Raw;
use super::{credential, route, suggest};
use crate::cli;

/// What a settings file says, so far as it can be understood.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) values: BTreeMap<&'static str, (Raw, Origin)>,
    pub(super) routes: Vec<Entry>,
    pub(super) credentials: Vec<Entry>,
}

/// One `[[route]]` or `[[upstream.credential]]`; it holds only known fields.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) origin: Origin,
    pub(super) fields: BTreeMap<&'static str, (Raw, Origin)>,
}

/// Names the settings file: `--config`, `STOA_CONFIG`, or the first of the usual two that is
/// there. Its text is read at once, so that it cannot go in between.
pub(super) fn read(
    args: &cli::Settings,
    places: &Places<'_>,
    system: &Path,
    out: &mut Collector,
) -> Option<(PathBuf, String)> {
    let named = args.config.as_deref().map(|path| (path, Origin::Flag("--config"))).or_else(|| {
        let path = places.env("STOA_CONFIG")?;
        Some((path, Origin::Environment("STOA_CONFIG".to_owned())))
    });
    if let Some((name, origin)) = named {
        let text = places.path(name).and_then(|path| read_text(&path).map_err(|e| e.to_string()));
        return match text {
            Ok(text) => Some((PathBuf::from(name), text)),
            Err(err) => {
                out.mistake(origin, "", err);
                None
            }
        };
    }
    for usual in [Path::new("stoa.toml"), system] {
        let Ok(path) = places.path(&usual.to_string_lossy()) else { continue };
        match read_text(&path) {
            Ok(text) => return Some((usual.to_owned(), text)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            // `sudo -u stoa stoa …` in a directory that this user may not look into: not its settings.
            Err(_) if usual != system && is_out_of_sight(&path) => {}
            Err(err) => {
                let origin = Origin::File { path: usual.to_owned(), line: 1 };
                out.mistake(origin, "", err.to_string());
                return None;
            }
        }
    }
    None
}

/// Whether the file cannot even be looked for; one that is there and cannot be read is another matter.
fn is_out_of_sight(path: &Path) -> bool {
    fs_err::metadata(path).is_err_and(|err| err.kind() == io::ErrorKind::PermissionDenied)
}

/// Understands the text of the file at `path`. When it is not TOML, every place that is wrong is
/// reported and its values are left aside: what is left of them may not be what was meant.
pub(super) fn parse(path: &Path, text: &str, out: &mut Collector) -> Document {
    let mut reader = Reader { path, text, out, document: Document::default() };
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        reader.root(root.get_ref());
    }
    // One slip makes the parser stumble several times over the same line.
    let mut lines = BTreeMap::new();
    for error in errors {
        let line = reader.line(error.span().map_or(0, |span| span.start));
        lines.entry(line).or_insert(error);
    }
    for (line, error) in lines {
        let origin = reader.origin_at(line);
        reader.out.mistake(origin, "", format!("not TOML: {}", error.message()));
    }
    reader.document
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    out: &'a mut Collector,
    document: Document,
}

impl Reader<'_> {
    fn line(&self, offset: usize) -> usize {
        1 + self.text.get(..offset).unwrap_or(self.text).matches('\n').count()
    }

    fn origin_at(&self, line: usize) -> Origin {
        Origin::File { path: self.path.to_owned(), line }
    }

    fn origin<T>(&self, spanned: &Spanned<T>) -> Origin {
        self.origin_at(self.line(spanned.span().start))
    }

    fn root(&mut self, root: &DeTable<'_>) {
        for (name, value) in root {
            let origin = self.origin(name);
            let name: &str = name.get_ref();
            if name == "route" {
                self.document.routes = self.entries(name, value, route::FIELDS, origin);
            } else if !SECTIONS.iter().any(|(section, _)| *section == name) {
                let problem = unknown_at_root(name);
                self.out.mistake(origin, name, problem);
            } else if let DeValue::Table(section) = value.get_ref() {
                self.section(name, section);
            } else {
                self.out.mistake(origin, name, format!("is a section: write [{name}]"));
            }
        }
    }

    fn section(&mut self, section: &str, values: &DeTable<'_>) {
        for (name, value) in values {
            let origin = self.origin(name);
            let key = format!("{section}.{}", name.get_ref());
            if key == "upstream.credential" {
                self.document.credentials = self.entries(&key, value, credential::FIELDS, origin);
            } else if let Some(setting) = table::find(&key) {
                self.document.values.insert(setting.key, (raw(value.get_ref()), origin));
            } else {
                let problem = unknown_in(section, name.get_ref());
                self.out.mistake(origin, key, problem);
            }
        }
    }

    /// The tables of a `[[key]]`.
    fn entries(
        &mut self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        fields: &[(&'static str, &str)],
        origin: Origin,
    ) -> Vec<Entry> {
        let mut entries = Vec::new();
        let items: &[Spanned<DeValue<'_>>] = match value.get_ref() {
            DeValue::Array(items) => items,
            _ => std::slice::from_ref(value),
        };
        for item in items {
            let DeValue::Table(table) = item.get_ref() else {
                self.out.mistake(origin.clone(), key, format!("write [[{key}]]"));
                continue;
            };
            if !matches!(value.get_ref(), DeValue::Array(_)) {
                let problem = format!("there may be several: write [[{key}]], not [{key}]");
                self.out.mistake(origin.clone(), key, problem);
            }
            let mut entry = Entry { origin: self.origin(item), fields: BTreeMap::new() };
            for (name, value) in table {
                let origin = self.origin(name);
                let name: &str = name.get_ref();
                let known = fields.iter().map(|(field, _)| *field);
                if let Some(field) = known.clone().find(|field| *field == name) {
                    entry.fields.insert(field, (raw(value.get_ref()), origin));
                } else {
                    let problem = format!("unknown key{}", meant(suggest::nearest(name, known)));
                    self.out.mistake(origin, format!("{key}.{name}"), problem);
                }
            }
            entries.push(entry);
        }
        entries
    }
}

fn unknown_at_root(name: &str) -> String {
    let sections = SECTIONS.iter().map(|(section, _)| *section).chain(["route"]);
    if let Some(section) = suggest::nearest(name, sections) {
        return format!("unknown section; did you mean {section}?");
    }
    // `listen = ":80"` without its section, or a section of a key's name.
    let known = SETTINGS.iter().find(|setting| setting.name() == name);
    format!("unknown key{}", meant(known.map(|setting| setting.key)))
}

fn unknown_in(section: &str, name: &str) -> String {
    let elsewhere = SETTINGS.iter().find(|setting| setting.name() == name);
    let here = SETTINGS.iter().filter(|setting| setting.section() == section);
    let here = || suggest::nearest(name, here.map(Setting::name).chain(["credential"]));
    let near = elsewhere
        .map(|setting| setting.key.to_owned())
        .or_else(|| here().map(|name| format!("{section}.{name}")));
    format!("unknown key{}", meant(near.as_deref()))
}

pub(super) fn meant(word: Option<&str>) -> String {
    word.map_or_else(
        || "; `stoa config reference` lists all".to_owned(),
        |word| format!("; did you mean {word}?"),
    )
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or(Raw::Other("a number of that length"), Raw::Integer),
        DeValue::Boolean(value) => Raw::Bool(*value),
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
        DeValue::Array(items) => items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map_or(Raw::Other("a list of other things than texts"), Raw::List),
    }
}

#[cfg(test)]
mod tests;
