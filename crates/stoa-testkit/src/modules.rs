use std::collections::BTreeMap;
use std::io::{Cursor, Write as _};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use stoa_module::{H1, Sha256, Version, semver};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::Answer;

/// The modules an upstream has, written as one text:
///
/// ```text
/// -- ex.com/hello@v1.0.0/go.mod --
/// module ex.com/hello
/// -- ex.com/hello@v1.0.0/hello.go --
/// package hello
/// -- ex.com/hello@main.info --
/// {"Version":"v1.0.1-0.20240102030405-0123456789ab","Time":"2024-01-02T03:04:05Z"}
/// -- ex.com/hello@latest --
/// not JSON
/// ```
///
/// `MODULE@VERSION/FILE` is a file of a version, of which its `.info`, `.mod` and `.zip` are made; a
/// version without a `go.mod` has the made-up one at `.mod` alone, as in Go. `MODULE@REV.EXT`,
/// `MODULE@list` and `MODULE@latest` are answers verbatim, in place of the made one or where there is
/// none, such as for branches.
#[derive(Debug, Clone, Default)]
pub struct Modules {
    /// By path, then by version.
    versions: BTreeMap<String, BTreeMap<String, Arc<Files>>>,
    /// By the decoded path of the URL, with its leading slash.
    bodies: BTreeMap<String, Bytes>,
}

#[derive(Debug, Default)]
struct Files {
    files: BTreeMap<String, Bytes>,
    zip: OnceLock<Bytes>,
}

impl Modules {
    /// Panics on a text that is not of the form above.
    #[track_caller]
    pub fn parse(text: &str) -> Modules {
        let mut modules = Modules::default();
        let mut files: BTreeMap<&str, BTreeMap<String, Bytes>> = BTreeMap::new();
        for (name, content) in parse_txtar(text) {
            let (module, rest) =
                name.split_once('@').unwrap_or_else(|| panic!("no version in {name:?}"));
            match rest.split_once('/') {
                Some((version, file)) => {
                    let module_version = &name[..=module.len() + version.len()];
                    let files = files.entry(module_version).or_default();
                    files.insert(file.to_owned(), content.into());
                }
                None if rest == "latest" => {
                    modules = modules.with_body(&format!("{module}/@latest"), content);
                }
                None if rest == "list" || rest.contains('.') => {
                    modules = modules.with_body(&format!("{module}/@v/{rest}"), content);
                }
                None => panic!("{name:?} is neither a file of a version nor an answer"),
            }
        }
        for (module_version, files) in files {
            modules = modules.with_files(module_version, files);
        }
        modules
    }

    /// One more version, of these files.
    #[track_caller]
    pub fn with<N: Into<String>, C: Into<Vec<u8>>>(
        self,
        module_version: &str,
        files: impl IntoIterator<Item = (N, C)>,
    ) -> Modules {
        let files = files.into_iter().map(|(name, it)| (name.into(), Bytes::from(it.into())));
        self.with_files(module_version, files.collect())
    }

    fn with_files(mut self, module_version: &str, files: BTreeMap<String, Bytes>) -> Modules {
        let (path, version) = split(module_version);
        let files = Arc::new(Files { files, zip: OnceLock::new() });
        self.versions.entry(path.to_owned()).or_default().insert(version.to_owned(), files);
        self
    }

    /// An answer verbatim, by `MODULE/@v/FILE` or `MODULE/@latest`; capitals are escaped here.
    pub fn with_body(mut self, file: &str, body: impl Into<Vec<u8>>) -> Modules {
        self.bodies.insert(format!("/{}", escape(file)), body.into().into());
        self
    }

    /// All of both; where they differ, the other's.
    pub fn merge(mut self, other: Modules) -> Modules {
        for (path, versions) in other.versions {
            self.versions.entry(path).or_default().extend(versions);
        }
        self.bodies.extend(other.bodies);
        self
    }

    /// Every `MODULE@VERSION` that is made of files.
    pub fn module_versions(&self) -> impl Iterator<Item = String> {
        self.versions
            .iter()
            .flat_map(|(path, it)| it.keys().map(move |version| format!("{path}@{version}")))
    }

    #[track_caller]
    fn files(&self, module_version: &str) -> &Arc<Files> {
        let (path, version) = split(module_version);
        self.versions
            .get(path)
            .and_then(|versions| versions.get(version))
            .unwrap_or_else(|| panic!("no {module_version} among these modules"))
    }

    /// The honest `.zip`, the same bytes each time.
    #[track_caller]
    pub fn zip(&self, module_version: &str) -> Bytes {
        let files = self.files(module_version);
        let make = || {
            let entries = files.files.iter();
            let entries = entries.map(|(name, it)| (format!("{module_version}/{name}"), it));
            zip_of(entries).into()
        };
        files.zip.get_or_init(make).clone()
    }

    /// The honest `.mod`.
    #[track_caller]
    pub fn go_mod(&self, module_version: &str) -> Bytes {
        let made_up = || format!("module {}\n", split(module_version).0).into();
        self.files(module_version).files.get("go.mod").cloned().unwrap_or_else(made_up)
    }

    /// The honest `.info`. The time of every version that does not say its own is one and the same.
    #[track_caller]
    pub fn info(&self, module_version: &str) -> String {
        self.files(module_version);
        let version = split(module_version).1;
        let pseudo = Version::parse(version).ok().and_then(|version| version.pseudo());
        let time = pseudo.map_or("2024-01-02T03:04:05Z".to_owned(), |it| it.time.to_string());
        format!(r#"{{"Version":"{version}","Time":"{time}"}}"#)
    }

    /// The h1 hash of the honest `.zip`.
    #[track_caller]
    pub fn zip_h1(&self, module_version: &str) -> H1 {
        let files = &self.files(module_version).files;
        let hashes: Vec<_> = files
            .iter()
            .map(|(name, it)| (format!("{module_version}/{name}"), *Sha256::of(it).as_bytes()))
            .collect();
        H1::of_files(hashes.iter().map(|(name, hash)| (name.as_str(), *hash)))
            .unwrap_or_else(|error| panic!("{module_version}: {error}"))
    }

    /// The h1 hash of the honest `.mod`.
    #[track_caller]
    pub fn go_mod_h1(&self, module_version: &str) -> H1 {
        H1::of_go_mod(&self.go_mod(module_version))
    }

    /// What the protocol answers at a decoded path such as `/ex.com/hello/@v/list`.
    pub(crate) fn answer(&self, path: &str) -> Answer {
        if let Some(body) = self.bodies.get(path) {
            return Answer::new(200, content_type(path), body.clone());
        }
        self.made(path).map_or_else(
            || Answer::not_found(&format!("{path}: unknown here")),
            |body| Answer::new(200, content_type(path), body),
        )
    }

    fn made(&self, url_path: &str) -> Option<Bytes> {
        let escaped = url_path.strip_prefix('/')?;
        if let Some(escaped) = escaped.strip_suffix("/@latest") {
            let path = unescape(escaped)?;
            let versions: Vec<_> = self.versions.get(&path)?.keys().collect();
            let latest = versions.iter().max_by(|a, b| {
                // Releases first, then pre-releases, then pseudo-versions.
                let rank = |version: &str| (!is_pseudo(version), !version.contains('-'));
                rank(a).cmp(&rank(b)).then_with(|| semver::compare(a, b))
            })?;
            return Some(self.info(&format!("{path}@{latest}")).into());
        }
        let (escaped, file) = escaped.split_once("/@v/")?;
        let path = unescape(escaped)?;
        let versions = self.versions.get(&path)?;
        if file == "list" {
            let mut tagged: Vec<_> = versions.keys().filter(|it| !is_pseudo(it)).collect();
            tagged.sort_by(|a, b| semver::compare(a, b));
            return Some(tagged.into_iter().flat_map(|it| [it, "\n"]).collect::<String>().into());
        }
        let (version, extension) = file.rsplit_once('.')?;
        let version = unescape(version)?;
        versions.get(&version)?;
        let module_version = format!("{path}@{version}");
        match extension {
            "info" => Some(self.info(&module_version).into()),
            "mod" => Some(self.go_mod(&module_version)),
            "zip" => Some(self.zip(&module_version)),
            _ => None,
        }
    }
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once(['.', '/']) {
        Some((_, "info" | "@latest")) => "application/json",
        Some((_, "zip")) => "application/zip",
        _ => "text/plain; charset=utf-8",
    }
}

fn is_pseudo(version: &str) -> bool {
    Version::parse(version).is_ok_and(|version| version.is_pseudo())
}

#[track_caller]
fn split(module_version: &str) -> (&str, &str) {
    module_version
        .split_once('@')
        .unwrap_or_else(|| panic!("{module_version:?} is not of the form MODULE@VERSION"))
}

/// A zip of these entries: deflated, in the order given, without a time. What an entry is called is
/// not looked at, so that wrong zips can be made too.
pub fn zip_of<N: AsRef<str>, C: AsRef<[u8]>>(entries: impl IntoIterator<Item = (N, C)>) -> Vec<u8> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(DateTime::default());
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        zip.start_file(name.as_ref(), options).expect("a zip in memory takes any name");
        zip.write_all(content.as_ref()).expect("memory can be written");
    }
    zip.finish().expect("memory can be written").into_inner()
}

// The escapes are not those of stoa-module, because what it refuses must be servable here.

pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_uppercase() {
            escaped.push('!');
        }
        escaped.push(c.to_ascii_lowercase());
    }
    escaped
}

pub(crate) fn unescape(escaped: &str) -> Option<String> {
    let mut text = String::with_capacity(escaped.len());
    let mut chars = escaped.chars();
    while let Some(c) = chars.next() {
        match c {
            '!' => {
                text.push(chars.next().filter(char::is_ascii_lowercase)?.to_ascii_uppercase());
            }
            'A'..='Z' => return None,
            c => text.push(c),
        }
    }
    Some(text)
}

/// The files of a txtar: a line `-- NAME --` begins each; what stands before the first is a comment.
pub(crate) fn parse_txtar(text: &str) -> Vec<(&str, String)> {
    let mut files: Vec<(&str, String)> = Vec::new();
    for line in text.split_inclusive('\n') {
        let name = line.trim().strip_prefix("-- ").and_then(|it| it.strip_suffix(" --"));
        if let Some(name) = name {
            files.push((name.trim(), String::new()));
        } else if let Some((_, content)) = files.last_mut() {
            content.push_str(line);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
-- ex.com/Hello@v1.2.0/go.mod --
module ex.com/Hello

-- ex.com/Hello@v1.2.0/hello.go --
package hello
-- ex.com/Hello@v1.10.0/hello.go --
package hello
-- ex.com/Hello@v1.11.0-RC1/hello.go --
package hello
-- ex.com/Hello@v1.11.1-0.20230405060708-0123456789ab/hello.go --
package hello
-- ex.com/Hello@main.info --
{}
-- ex.com/other@list --
v1.0.0
-- ex.com/pre@v0.1.0-a/x.go --
package x
-- ex.com/pre@v0.0.0-20230405060708-0123456789ab/x.go --
package x
";

    #[test]
    fn answers_are_made_of_the_text() {
        #[track_caller]
        fn check(path: &str, content_type: &str, expected: &str) {
            let answer = Modules::parse(TEXT).answer(path);
            assert_eq!(answer, Answer::new(200, content_type, expected.to_owned()), "{path}");
        }
        let (text, json) = ("text/plain; charset=utf-8", "application/json");
        check("/ex.com/!hello/@v/list", text, "v1.2.0\nv1.10.0\nv1.11.0-RC1\n");
        check(
            "/ex.com/!hello/@latest",
            json,
            r#"{"Version":"v1.10.0","Time":"2024-01-02T03:04:05Z"}"#,
        );
        check(
            "/ex.com/pre/@latest",
            json,
            r#"{"Version":"v0.1.0-a","Time":"2024-01-02T03:04:05Z"}"#,
        );
        check("/ex.com/!hello/@v/v1.2.0.mod", text, "module ex.com/Hello\n\n");
        check("/ex.com/!hello/@v/v1.10.0.mod", text, "module ex.com/Hello\n");
        check("/ex.com/!hello/@v/v1.11.0-!r!c1.mod", text, "module ex.com/Hello\n");
        check(
            "/ex.com/!hello/@v/v1.11.1-0.20230405060708-0123456789ab.info",
            json,
            r#"{"Version":"v1.11.1-0.20230405060708-0123456789ab","Time":"2023-04-05T06:07:08Z"}"#,
        );
        check("/ex.com/!hello/@v/main.info", json, "{}\n");
        check("/ex.com/other/@v/list", text, "v1.0.0\n");
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for path in [
            "/ex.com/Hello/@v/list",
            "/ex.com/hello/@v/list",
            "/ex.com/!hello/@v/v1.3.0.info",
            "/ex.com/!hello/@v/v1.2.0.txt",
            "/ex.com/!hello/@v/other.info",
            "/ex.com/other/@latest",
            "/",
            "",
        ] {
            let answer = Modules::parse(TEXT).answer(path);
            assert_eq!(answer.status, 404, "{path}");
            assert!(answer.body.starts_with(b"not found: "), "{path}");
        }
    }

    #[test]
    fn hashes_are_those_of_go() {
        let files = [("go.mod", "module example.com/m\n"), ("m.go", "package m\n")];
        let modules = Modules::default().with("example.com/m@v1.0.0", files);
        assert_eq!(
            modules.zip_h1("example.com/m@v1.0.0").to_string(),
            "h1:fCHMqo5ggHEQvwcrsN81zr5orRk5lClR36KRHpfUjKg="
        );
        assert_eq!(
            modules.go_mod_h1("example.com/m@v1.0.0").to_string(),
            "h1:flS2VctbRrTv+sBE+VKgxx6hlkMGPVz9MGOmzMYFg3k="
        );
        let again = Modules::default().with("example.com/m@v1.0.0", files);
        assert_eq!(modules.zip("example.com/m@v1.0.0"), again.zip("example.com/m@v1.0.0"));
    }

    #[test]
    fn merging_takes_the_other_where_they_differ() {
        let one = Modules::parse("-- a.b@v1.0.0/x --\n1\n-- a.b@list --\nv1.0.0\n");
        let two = Modules::parse("-- a.b@v1.0.0/x --\n2\n-- a.b@v1.1.0/x --\n2\n");
        let both = one.merge(two.clone());
        assert_eq!(both.zip("a.b@v1.0.0"), two.zip("a.b@v1.0.0"));
        assert_eq!(both.module_versions().collect::<Vec<_>>(), ["a.b@v1.0.0", "a.b@v1.1.0"]);
        assert_eq!(both.answer("/a.b/@v/list").body, "v1.0.0\n");
    }
}
