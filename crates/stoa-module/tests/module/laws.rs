//! Laws that hold between things: what is built is read back as it was, and what reads in two ways reads alike. The rules
//! about one kind of thing alone are in its own room.

use std::cmp::Ordering;
use std::fmt::Write as _;

use proptest::prelude::*;
use stoa_module::{
    Artifact, ErrorClass, GoMod, H1, Info, ModulePath, ModuleVersion, Patterns, Query, Request,
    Sha256, Version, check_file_path, latest_of, module_line, parse_list, path_match, render_list,
    semver,
};

use crate::zip_writer::{Archive, Entry};
use crate::zips::{check_bytes, full};

fn paths() -> impl Strategy<Value = ModulePath> {
    let text = "[a-z]{1,3}\\.[a-z]{1,3}(/[A-Za-z0-9._~-]{1,4}){0,3}(/v([2-9]|[1-9][0-9]))?";
    text.prop_filter_map("a module path", |text| ModulePath::parse(&text).ok())
}

fn versions() -> impl Strategy<Value = Version> {
    let number = "(0|[1-9][0-9]{0,2})";
    let text = format!(
        "v{number}\\.{number}\\.{number}(-([A-Za-z][A-Za-z0-9-]{{0,3}}|{number})(\\.(0|[1-9]|[a-zA-Z-]{{1,2}})){{0,2}})?(\\+incompatible)?"
    );
    let text = proptest::string::string_regex(&text).expect("a regular expression");
    text.prop_filter_map("a version", |text| Version::parse(&text).ok())
}

fn module_versions() -> impl Strategy<Value = ModuleVersion> {
    (paths(), versions()).prop_filter_map("a version of the module", |(path, version)| {
        ModuleVersion::new(path, version).ok()
    })
}

fn queries() -> impl Strategy<Value = Query> {
    "[A-Za-z0-9._~-]{1,10}".prop_filter_map("a query", |text| Query::parse(&text).ok())
}

/// Some characters of a path as `%XX`, which means the same.
fn percent_encoded(path: &str, choice: &[bool]) -> String {
    let mut out = String::new();
    for (at, byte) in path.bytes().enumerate() {
        if byte != b'/' && choice[at % choice.len()] {
            _ = write!(out, "%{byte:02X}");
        } else {
            out.push(char::from(byte));
        }
    }
    out
}

/// The numbers, the identifiers before `+`, by the rules of semver.org as they are written there.
fn plain_compare(v: &str, w: &str) -> Ordering {
    fn parts(version: &str) -> (Vec<u64>, Option<Vec<String>>) {
        let version = version.trim_start_matches('v').split('+').next().unwrap_or_default();
        let (numbers, pre) = match version.split_once('-') {
            Some((numbers, pre)) => (numbers, Some(pre.split('.').map(str::to_owned).collect())),
            None => (version, None),
        };
        (numbers.split('.').map(|number| number.parse().expect("short numbers")).collect(), pre)
    }
    fn identifiers(a: &str, b: &str) -> Ordering {
        match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => a.cmp(b),
        }
    }
    let ((v_numbers, v_pre), (w_numbers, w_pre)) = (parts(v), parts(w));
    v_numbers.cmp(&w_numbers).then_with(|| match (v_pre, w_pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(v), Some(w)) => {
            let differing =
                v.iter().zip(&w).map(|(a, b)| identifiers(a, b)).find(|order| order.is_ne());
            differing.unwrap_or_else(|| v.len().cmp(&w.len()))
        }
    })
}

proptest! {
    #[test]
    fn every_request_is_read_back(
        module in module_versions(),
        query in queries(),
        artifact in prop::sample::select(&Artifact::ALL[..]),
        choice in prop::collection::vec(any::<bool>(), 1..7),
    ) {
        let path = module.path().clone();
        let escaped = path.escaped();
        let mut expected = vec![
            (format!("{escaped}/@v/list"), Request::List(path.clone())),
            (format!("{escaped}/@latest"), Request::Latest(path.clone())),
            (module.escaped_file(artifact), Request::Artifact { module: module.clone(), artifact }),
            (format!("sumdb/a.b/lookup/{escaped}"), Request::Sumdb { rest: format!("a.b/lookup/{escaped}") }),
        ];
        // A revision that reads like a version of this module is one.
        let is_version = Version::parse(query.as_str())
            .is_ok_and(|version| ModuleVersion::new(path.clone(), version).is_ok());
        if !is_version {
            let raw = format!("{escaped}/@v/{}.info", query.escaped());
            expected.push((raw, Request::Query { path, query }));
        }
        for (raw, request) in expected {
            prop_assert_eq!(Request::parse(&format!("/{raw}")), Ok(request.clone()), "{}", raw);
            let encoded = format!("/{}", percent_encoded(&raw, &choice));
            prop_assert_eq!(Request::parse(&encoded), Ok(request), "{}", encoded);
        }
    }

    #[test]
    fn no_bytes_make_more_of_a_request_than_there_is(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        // As hyper hands it on: any ASCII, and what is not, percent-encoded.
        let raw = percent_encoding_of(&bytes);
        match Request::parse(&raw) {
            Ok(Request::Sumdb { rest }) => prop_assert!(raw.starts_with("/sumdb/") || raw.contains('%'), "{}", rest),
            Ok(request) => {
                let path = request.path().expect("all others are about a module");
                prop_assert_eq!(ModulePath::parse(path.as_str()), Ok(path.clone()));
            }
            Err(error) => prop_assert_eq!(error.class(), ErrorClass::Invalid),
        }
    }

    #[test]
    fn texts_of_modules_are_read_back(module in module_versions()) {
        prop_assert_eq!(ModuleVersion::parse(&module.to_string()), Ok(module.clone()));
        prop_assert_eq!(ModulePath::parse_escaped(&module.path().escaped()), Ok(module.path().clone()));
        prop_assert_eq!(Version::parse(module.version().as_str()), Ok(module.version().clone()));
        prop_assert!(module.path().path_major().allows(module.version().as_str()));
        for artifact in Artifact::ALL {
            prop_assert_eq!(Artifact::from_extension(artifact.extension()), Some(artifact));
            prop_assert!(check_file_path(&module.escaped_file(artifact).replace('!', "_")).is_ok());
        }
    }

    #[test]
    fn pseudo_versions_are_taken_apart_as_they_were_made(
        major in 0_u32..30, minor in 0_u32..30, patch in 0_u32..30,
        pre in prop::option::of("[a-z]{1,3}(\\.[1-9])?"),
        is_based in any::<bool>(),
        is_incompatible in any::<bool>(),
        seconds in 0_i64..4_000_000_000,
        revision in "[0-9a-f]{12}",
    ) {
        let time = jiff::Timestamp::from_second(seconds).expect("a time of this century");
        let stamp = time.strftime("%Y%m%d%H%M%S");
        // Without a tag there is none that could not fit the path.
        let is_incompatible = is_incompatible && is_based;
        let build = if is_incompatible { "+incompatible" } else { "" };
        // The three forms of the module reference.
        let (text, base) = match (is_based, &pre) {
            (false, _) => (format!("v{major}.0.0-{stamp}-{revision}{build}"), None),
            (true, Some(pre)) => (
                format!("v{major}.{minor}.{patch}-{pre}.0.{stamp}-{revision}{build}"),
                Some(format!("v{major}.{minor}.{patch}-{pre}{build}")),
            ),
            (true, None) => (
                format!("v{major}.{minor}.{}-0.{stamp}-{revision}{build}", patch + 1),
                Some(format!("v{major}.{minor}.{patch}{build}")),
            ),
        };
        let version = Version::parse(&text).expect("a version");
        let pseudo = version.pseudo().expect("a pseudo-version");
        prop_assert!(version.is_pseudo() && version.is_prerelease());
        prop_assert_eq!(version.is_incompatible(), is_incompatible);
        prop_assert_eq!(pseudo.time, time);
        prop_assert_eq!(&pseudo.revision, &revision);
        prop_assert_eq!(&pseudo.base, &base, "{}", text);
        // It lies behind what it is based on, and before the release that would follow.
        if let Some(base) = base {
            prop_assert_eq!(semver::compare(&base, &text), Ordering::Less);
        }
        prop_assert_eq!(semver::compare(&text, &format!("v{major}.{minor}.{}", patch + 1)), Ordering::Less);
        let made = Info::parse(Info::made_from(&version).as_bytes()).expect("an info");
        prop_assert_eq!((made.version, made.time), (version, Some(time)));
    }

    #[test]
    fn the_order_is_that_of_semver(v in versions(), w in versions()) {
        let (v, w) = (v.as_str(), w.as_str());
        prop_assert_eq!(semver::compare(v, w), plain_compare(v, w), "{} {}", v, w);
        let canonical = semver::canonical(v).expect("a version");
        prop_assert_eq!(semver::compare(v, &canonical), Ordering::Equal);
        prop_assert_eq!(semver::canonical(&canonical), Some(canonical));
        prop_assert_eq!(semver::canonical_version(v), Some(v.to_owned()));
        // The parts are the whole.
        let major = semver::major(v).expect("a version");
        let rest = format!("{}{}", semver::prerelease(v), semver::build(v));
        prop_assert!(v.starts_with(major) && v.ends_with(&rest), "{} {} {}", v, major, rest);
    }

    #[test]
    fn a_list_keeps_what_fits_and_nothing_else(
        path in paths(),
        listed in prop::collection::vec(versions(), 0..8),
        junk in prop::collection::vec("[ -~]{0,12}", 0..4),
    ) {
        let fits = |version: &&Version| ModuleVersion::new(path.clone(), (*version).clone()).is_ok();
        let mut body = render_list(&listed);
        for line in &junk {
            _ = write!(body, "x{line}\r\n");
        }
        let read: Vec<_> = parse_list(body.as_bytes(), &path).into_iter().map(|it| it.version).collect();
        prop_assert!(read.iter().all(|version| fits(&version) && listed.contains(version)));
        prop_assert!(listed.iter().filter(fits).all(|version| read.contains(version) || version.is_pseudo()));
        let newest = latest_of(&listed);
        if let Some(newest) = newest {
            // A release before any other, and none that is higher.
            for other in &listed {
                prop_assert!(!newest.is_prerelease() || other.is_prerelease());
                let alike = newest.is_prerelease() == other.is_prerelease()
                    && newest.is_pseudo() == other.is_pseudo();
                prop_assert!(!alike || newest.is_pseudo() || newest >= other, "{} {}", newest, other);
            }
        }
    }

    #[test]
    fn patterns_match_the_elements_that_they_have(
        path in paths(),
        globs in prop::collection::vec("[a-z*?]{1,3}(\\.[a-z*]{1,3})?(/[A-Za-z*?]{1,3}){0,3}/?", 0..4),
    ) {
        let patterns = Patterns::parse(&globs.join(" , ")).expect("patterns");
        let elements: Vec<&str> = path.as_str().split('/').collect();
        let named = globs.iter().map(|glob| glob.trim_end_matches('/')).find(|glob| {
            let wanted = glob.split('/').count();
            wanted <= elements.len()
                && path_match(glob, &elements[..wanted].join("/")) == Ok(true)
        });
        prop_assert_eq!(patterns.find(&path), named);
        prop_assert_eq!(patterns.matches(&path), named.is_some());
        let again = Patterns::parse(&patterns.to_string()).expect("patterns");
        prop_assert_eq!(again.find(&path), named);
        prop_assert_eq!(again.is_empty(), globs.is_empty());
    }

    #[test]
    fn a_name_matches_itself_and_a_star_no_slash(name in "[a-z*?\\[\\]\\\\-]{0,6}", other in "[a-z/]{0,6}") {
        let escaped: String = name.chars().flat_map(|c| ['\\', c]).collect();
        prop_assert_eq!(path_match(&escaped, &name), Ok(true));
        prop_assert_eq!(path_match("*", &other), Ok(!other.contains('/')));
        prop_assert_eq!(path_match(&"?".repeat(other.len()), &other), Ok(!other.contains('/')));
    }

    #[test]
    fn the_lines_of_a_go_mod_are_found_wherever_they_stand(
        path in paths(),
        required in prop::collection::vec(module_versions(), 0..4),
        quoted in any::<bool>(),
        block in any::<bool>(),
        noise in prop::collection::vec("(// [a-z ]{0,9})?", 0..3),
        go in prop::option::of("1\\.[1-9][0-9](\\.[0-9])?"),
    ) {
        let module = if quoted { format!("\"{path}\"") } else { path.to_string() };
        let mut text = noise.iter().flat_map(|line| [line, "
"]).collect::<String>();
        _ = writeln!(text, "module {module} // and so on");
        if let Some(go) = &go {
            _ = write!(text, "\n\tgo   {go}\r\n");
        }
        let lines = required.iter().map(|it| format!("{} {}", it.path(), it.version()));
        if block {
            text += "require (\n";
            lines.for_each(|line| _ = writeln!(text, "\t{line} // indirect"));
            text += ")\n";
        } else {
            lines.for_each(|line| _ = writeln!(text, "require {line}"));
        }
        let read = GoMod::parse_lax(text.as_bytes());
        prop_assert_eq!(read.module.as_deref(), Some(path.as_str()), "{}", text);
        prop_assert_eq!(module_line(text.as_bytes()), Some(path.to_string()));
        prop_assert_eq!(read.go, go);
        let expected: Vec<_> =
            required.iter().map(|it| (it.path().to_string(), it.version().to_string())).collect();
        prop_assert_eq!(read.require, expected, "{}", text);
    }

    #[test]
    fn a_retraction_covers_what_lies_between(low in versions(), high in versions(), version in versions()) {
        let text = format!("module a.b\nretract [{low}, {high}]\n");
        let read = GoMod::parse_lax(text.as_bytes());
        prop_assert_eq!(read.retract.len(), 1, "{}", text);
        let (low, high, version_text) = (low.as_str(), high.as_str(), version.as_str());
        let between = plain_compare(low, version_text).is_le() && plain_compare(version_text, high).is_le();
        prop_assert_eq!(read.retract[0].covers(&version), between);
    }

    #[test]
    fn the_hash_of_files_does_not_know_their_order(
        files in prop::collection::btree_map("[a-zA-Z0-9/._@-]{1,12}", any::<[u8; 8]>(), 0..6),
        rotate in any::<prop::sample::Index>(),
    ) {
        let sums: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), *Sha256::of(text).as_bytes())).collect();
        let mut turned = sums.clone();
        if !turned.is_empty() {
            let by = rotate.index(turned.len());
            turned.rotate_left(by);
        }
        let h1 = H1::of_files(sums.clone()).expect("no newlines");
        prop_assert_eq!(H1::of_files(turned), Ok(h1));
        // One file more is another hash, and a newline in a name could make two lists one.
        let more = sums.iter().copied().chain([("~", [0; 32])]);
        prop_assert_ne!(H1::of_files(more), Ok(h1));
        prop_assert!(H1::of_files(sums.iter().copied().chain([("a\nb", [0; 32])])).is_err());
    }

    /// Whatever is done to a zip: what is accepted holds to the rules, and another reader finds the same in it.
    #[test]
    fn a_damaged_zip_is_refused_or_holds_to_the_rules(
        contents in prop::collection::vec((
            prop::sample::select(&["go.mod", "a.go", "A.go", "d/x", "D/x", "LICENSE", "v/go.mod", "é", "con"][..]),
            prop::collection::vec(any::<u8>(), 0..40),
        ), 0..5),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        length in any::<prop::sample::Index>(),
        is_short in prop::bool::weighted(0.1),
    ) {
        let entries = contents.iter().enumerate().map(|(n, (name, text))| {
            [Entry::stored, Entry::deflated, Entry::streamed][n % 3](&full(name), text)
        });
        let mut bytes = Archive::of(entries).bytes();
        for (at, byte) in cuts {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_short {
            bytes.truncate(length.index(bytes.len()));
        }
        let checked = match check_bytes(&bytes) {
            Ok(checked) => checked,
            Err(error) => {
                prop_assert_eq!(error.class(), ErrorClass::Corrupt);
                return Ok(());
            }
        };
        // The other reader minds a few fields that Go does not look at.
        let Ok(mut archive) = zip::ZipArchive::new(std::io::Cursor::new(&bytes)) else { return Ok(()) };
        let mut sums = Vec::new();
        for at in 0..archive.len() {
            let mut file = archive.by_index(at).expect("an entry for others too");
            let mut text = Vec::new();
            std::io::copy(&mut file, &mut text).expect("its content for others too");
            let name = file.name().expect("a name for others too").into_owned();
            sums.push((name, *Sha256::of(&text).as_bytes()));
        }
        let prefix = full("");
        let mut folded: Vec<String> = Vec::new();
        for (name, _) in &sums {
            let inside = name.strip_prefix(&prefix).expect("every name begins with the module");
            prop_assert!(inside.ends_with('/') || check_file_path(inside).is_ok(), "{}", inside);
            folded.push(inside.to_lowercase());
        }
        folded.sort();
        folded.dedup();
        prop_assert_eq!(folded.len(), sums.len(), "no two names are one where case does not count");
        let h1 = H1::of_files(sums.iter().map(|(name, sum)| (name.as_str(), *sum))).expect("no newlines");
        prop_assert_eq!(checked.h1, h1);
        prop_assert_eq!(checked.files, sums.len() as u64);
    }
}

fn percent_encoding_of(bytes: &[u8]) -> String {
    let mut out = "/".to_owned();
    for &byte in bytes {
        if byte.is_ascii_graphic() {
            out.push(char::from(byte));
        } else {
            _ = write!(out, "%{byte:02x}");
        }
    }
    out
}
