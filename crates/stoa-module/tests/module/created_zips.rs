//! Module zips made from the archive of a tree.

use std::io::Cursor;

use stoa_module::{CreateZipError, EntryProblem, ModuleVersion, ZipLimits, check_zip, create_zip};

use crate::zip_writer::{Archive, Entry};
use crate::zips::module;

/// As `git archive` marks it: made on Unix, with the mode of a link.
fn link(name: &str) -> Entry {
    Entry::stored(name, b"a.go").with(|entry| entry.attributes = 0o120_777 << 16)
}

fn archive(names: &[&str]) -> Archive {
    let prefix = |name: &str| format!("prefix/{name}");
    let entry = |name: &&str| match name.split_once('=') {
        Some((name, text)) => Entry::deflated(&prefix(name), text.as_bytes()),
        None if name.ends_with('@') => link(&prefix(&name[..name.len() - 1])),
        None => Entry::stored(&prefix(name), b""),
    };
    Archive::of(names.iter().map(entry))
}

fn create(
    archive: &[u8],
    subdir: &str,
    license: Option<&[u8]>,
    limits: &ZipLimits,
) -> Result<Vec<u8>, CreateZipError> {
    let mut zip = Vec::new();
    create_zip(Cursor::new(archive), subdir, license, &module(), &mut zip, limits)?;
    Ok(zip)
}

/// The names in a zip, which keeps all rules.
fn names(zip: &[u8]) -> Vec<String> {
    check_zip(Cursor::new(zip), &module(), &ZipLimits::default()).expect("a good zip");
    let mut names = Vec::new();
    let prefix = format!("{}/", module());
    // Each name stands once in front of its data and once in the directory, which is the end.
    let mut at = zip.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap_or(zip.len());
    while zip[at..].starts_with(b"PK\x01\x02") {
        let length = usize::from(u16::from_le_bytes([zip[at + 28], zip[at + 29]]));
        let name = std::str::from_utf8(&zip[at + 46..at + 46 + length]).expect("UTF-8");
        names.push(name.strip_prefix(&prefix).expect("the prefix").to_owned());
        at += 46 + length;
    }
    names
}

#[test]
fn what_is_left_out() {
    let check = |files: &[&str], subdir: &str, expected: &[&str]| {
        let zip = create(&archive(files).bytes(), subdir, None, &ZipLimits::default());
        assert_eq!(names(&zip.expect("a zip")), expected, "{files:?}");
    };
    check(&[""], "", &[]);
    check(&["", "go.mod", "a.go", "sub/", "sub/b.go"], "", &["go.mod", "a.go", "sub/b.go"]);
    check(
        &["", "link@", "a.go", ".hg_archival.txt", "sub/.hg_archival.txt"],
        "",
        &["a.go", "sub/.hg_archival.txt"],
    );
    // Other modules, but not by the name of a link.
    check(
        &["", "a/go.mod", "a/b/c.go", "a.go", "x/GO.MOD", "x/y", "l/go.mod@", "l/z"],
        "",
        &["a.go", "l/z"],
    );
    check(&["", "sub/", "sub/a.go", "sub/v2/go.mod", "sub/v2/b.go"], "sub", &["a.go"]);
    check(&["", "sub/", "sub/a.go", "subway/b.go"], "sub", &["a.go"]);
    let tree = [
        "vendor/top.go",
        "vendor/modules.txt",
        "vendor/a/a.go",
        "pkg/vendor/vendor.go",
        "pkg/vendor/foo/foo.go",
        "x/vendor/modules.txt",
    ];
    let with = |go_mod: &'static str| [&["", go_mod], &tree[..]].concat();
    check(
        &with("go.mod=module m\ngo 1.23\n"),
        "",
        &["go.mod", "vendor/top.go", "vendor/modules.txt"],
    );
    check(
        &with("go.mod=module m\ngo 1.24rc1\n"),
        "",
        &["go.mod", "vendor/top.go", "pkg/vendor/vendor.go", "x/vendor/modules.txt"],
    );
    // A name that is bad, where nobody looks at it.
    check(&["", "vendor/a/aux.go", "a/go.mod", "a/con", "b.go"], "", &["b.go"]);
}

#[test]
fn what_spoils_a_zip() {
    let check = |files: &[&str], expected: &str| {
        let error = create(&archive(files).bytes(), "", None, &ZipLimits::default());
        match error {
            Err(error) => assert!(error.to_string().contains(expected), "{files:?}: {error}"),
            Ok(zip) => panic!("{files:?}: {:?}", names(&zip)),
        }
    };
    check(&["", "aux.go"], "\"aux.go\" in the repository: its name is not allowed");
    check(&["", "README", "readme"], "differs from \"README\" in case alone");
    check(&["", "a/x", "A/y"], "in case alone");
    check(&["", "K", "\u{212a}"], "in case alone");
    check(&["", "a", "a/b"], "both a file and a directory");
    check(&["", "a", "a"], "more than one entry");
    check(&["", "GO.MOD"], "lower-case name");
    check(&["", "a/../b"], "nothing but dots");
    check(&["", "a//b"], "has an empty element");
    // Links are left out, but only after their names were looked at.
    check(&["", "con@"], "its name is not allowed");
    check(&["", "a.go", "A.go@"], "in case alone");
    let bytes =
        Archive::of([Entry::stored("prefix/x", b"").with(|e| e.name = b"prefix/\xff".to_vec())]);
    let error = create(&bytes.bytes(), "", None, &ZipLimits::default()).expect_err("not UTF-8");
    assert!(
        matches!(error, CreateZipError::File { problem: EntryProblem::Name(_), .. }),
        "{error}"
    );
}

#[test]
fn limits() {
    let files = archive(&["", "go.mod=module m\n", "LICENSE=free", "a.go=package a"]).bytes();
    let check = |limits: ZipLimits, expected: &str| {
        let error = create(&files, "", None, &limits).expect_err("too large");
        assert!(error.to_string().contains(expected), "{error}");
    };
    let all = ZipLimits::default;
    check(ZipLimits { max_uncompressed_bytes: 21, ..all() }, "more than 21 bytes of files");
    check(ZipLimits { max_go_mod_bytes: 8, ..all() }, "more than 8 bytes in go.mod");
    check(ZipLimits { max_license_bytes: 3, ..all() }, "more than 3 bytes in LICENSE");
    check(ZipLimits { max_zip_bytes: 400, ..all() }, "more than 400 bytes as a zip");
    assert!(
        create(&files, "", None, &ZipLimits { max_uncompressed_bytes: 22 + 5, ..all() }).is_ok()
    );
}

#[test]
fn the_license_of_the_root() {
    let text = "free ".repeat(100);
    let check = |files: &[&str], expected: &[&str]| {
        let archive = archive(files).bytes();
        let zip = create(&archive, "sub", Some(text.as_bytes()), &ZipLimits::default());
        assert_eq!(names(&zip.expect("a zip")), expected, "{files:?}");
    };
    check(&["", "sub/", "sub/a.go"], &["a.go", "LICENSE"]);
    check(&["", "sub/a.go", "sub/LICENSE=mine"], &["a.go", "LICENSE"]);
    check(&["", "sub/a.go", "sub/COPYING"], &["a.go", "COPYING", "LICENSE"]);
    // There is one, although it is left out.
    check(&["", "sub/a.go", "sub/LICENSE@"], &["a.go"]);
    let archive = archive(&["", "sub/License"]).bytes();
    let error = create(&archive, "sub", Some(b"free"), &ZipLimits::default()).expect_err("two");
    assert!(error.to_string().contains("in case alone"), "{error}");
}

#[test]
fn broken_archives() {
    let good = archive(&["", "a.go=package a", "go.mod=module m\n"]).bytes();
    for end in 0..good.len() {
        let error = create(&good[..end], "", None, &ZipLimits::default()).expect_err("torn");
        assert!(matches!(error, CreateZipError::Archive(_)), "{error}");
    }
    for names in [&["a"][..], &["a/b", "c/d"]] {
        let bytes = Archive::of(names.iter().map(|name| Entry::stored(name, b""))).bytes();
        let error = create(&bytes, "", None, &ZipLimits::default()).expect_err("no prefix");
        assert!(matches!(error, CreateZipError::Archive(_)), "{error}");
    }
}

/// More than the plain record at the end can count.
#[test]
fn many_files() {
    let names: Vec<String> = (0..70_000).map(|at| format!("prefix/{at}")).collect();
    let bytes = Archive::of(names.iter().map(|name| Entry::stored(name, b""))).bytes();
    let zip = create(&bytes, "", None, &ZipLimits::default()).expect("a zip");
    let module: ModuleVersion = module();
    let checked = check_zip(Cursor::new(zip), &module, &ZipLimits::default()).expect("a good zip");
    assert_eq!(checked.files, 70_000);
}
