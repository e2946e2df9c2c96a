use std::io::{self, Cursor, Read, Seek, SeekFrom};

use proptest::prelude::*;
use stoa_module::{
    CheckedZip, EntryProblem, ErrorClass, H1, ModuleVersion, PathProblem, Sha256, ZipError,
    ZipLimits, check_zip,
};

use crate::zip_writer::{Archive, Entry};

pub(crate) const MODULE: &str = "example.com/m@v1.0.0";

pub(crate) fn module() -> ModuleVersion {
    ModuleVersion::parse(MODULE).expect("a module")
}

pub(crate) fn check_bytes(bytes: &[u8]) -> Result<CheckedZip, ZipError> {
    check_zip(Cursor::new(bytes), &module(), &ZipLimits::default())
}

pub(crate) fn full(name: &str) -> String {
    format!("{MODULE}/{name}")
}

/// A zip with these files, each of which holds its own name.
fn files(names: &[&str]) -> Archive {
    Archive::of(names.iter().map(|name| Entry::deflated(&full(name), name.as_bytes())))
}

#[test]
fn a_good_zip() {
    let go_mod = b"module example.com/m\n";
    for make in [Entry::stored, Entry::deflated, Entry::streamed] {
        let archive =
            Archive::of([make(&full("m.go"), b"package m\n"), make(&full("go.mod"), go_mod)]);
        let checked = check_bytes(&archive.bytes()).expect("a good zip");
        assert_eq!(checked.h1.to_string(), "h1:fCHMqo5ggHEQvwcrsN81zr5orRk5lClR36KRHpfUjKg=");
        assert_eq!((checked.files, checked.uncompressed_bytes), (2, 31));
    }
    let empty = check_bytes(&Archive::default().bytes()).expect("an empty zip");
    assert_eq!(empty.h1.to_string(), "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    assert_eq!((empty.files, empty.uncompressed_bytes), (0, 0));
}

#[test]
fn the_prefix_has_the_unescaped_module() {
    let module = ModuleVersion::parse("github.com/Azure/x@v2.0.0+incompatible").expect("a module");
    let check = |name: &str| {
        let archive = Archive::of([Entry::stored(name, b"")]);
        check_zip(Cursor::new(archive.bytes()), &module, &ZipLimits::default())
    };
    assert!(check("github.com/Azure/x@v2.0.0+incompatible/a.go").is_ok());
    for wrong in [
        "github.com/!azure/x@v2.0.0+incompatible/a.go",
        "github.com/azure/x@v2.0.0+incompatible/a.go",
        "github.com/Azure/x@v2.0.0/a.go",
        "github.com/Azure/x@v2.0.0+incompatible",
        "a.go",
        "",
        "/github.com/Azure/x@v2.0.0+incompatible/a.go",
    ] {
        let error = check(wrong).expect_err(wrong);
        assert!(
            matches!(&error, ZipError::Entry { name, problem: EntryProblem::Prefix(_) } if name == wrong),
            "{error}"
        );
    }
}

#[test]
fn names() {
    #[track_caller]
    fn check(name: &str, expected: Option<EntryProblem>) {
        match (check_bytes(&files(&["x", name]).bytes()), expected) {
            (Ok(_), None) => {}
            (Err(ZipError::Entry { name: found, problem }), Some(expected)) => {
                assert_eq!((found, problem), (full(name), expected));
            }
            (result, expected) => panic!("{name:?}: {result:?}, not {expected:?}"),
        }
    }
    use EntryProblem as P;
    let s = str::to_owned;
    for good in
        ["a.go", "b/d/e.go", ".gitignore", "LICENSE", "é.go", "日本/x y.txt", "x~1", "go.mod"]
    {
        check(good, None);
    }
    check("a/../b.go", Some(P::Name(PathProblem::OnlyDots(s("..")))));
    check("../b.go", Some(P::Name(PathProblem::OnlyDots(s("..")))));
    check("./b.go", Some(P::Name(PathProblem::OnlyDots(s(".")))));
    check("a//b.go", Some(P::Name(PathProblem::EmptyElement)));
    check("/b.go", Some(P::Name(PathProblem::LeadingSlash)));
    check("a//", Some(P::Name(PathProblem::TrailingSlash)));
    check("/", Some(P::Name(PathProblem::Empty)));
    check("a\\b.go", Some(P::Name(PathProblem::Character('\\'))));
    check("aux.go", Some(P::Name(PathProblem::WindowsName(s("aux")))));
    check("a\nb", Some(P::Name(PathProblem::Character('\n'))));
    check("e\u{301}", Some(P::Name(PathProblem::Character('\u{301}'))));
    check("sub/go.mod", Some(P::NestedGoMod));
    check("sub/GO.MOD", Some(P::NestedGoMod));
    check("GO.mod", Some(P::GoModCase));
    check("go.mod.txt", None);
    check("xgo.mod", None);

    let latin1 = Entry::stored("", b"")
        .with(|entry| entry.name = full("caf\u{e9}").chars().map(|c| c as u8).collect());
    let error = check_bytes(&Archive::of([latin1]).bytes()).expect_err("not UTF-8");
    assert_eq!(
        error.to_string(),
        "entry \"example.com/m@v1.0.0/caf\u{fffd}\" of the zip: its name is not allowed: it is not UTF-8"
    );
}

#[test]
fn collisions() {
    #[track_caller]
    fn check(names: &[&str], expected: &str) {
        for order in [names.to_vec(), names.iter().rev().copied().collect()] {
            let found = match check_bytes(&directories_too(&order).bytes()) {
                Ok(_) => "none",
                Err(ZipError::Entry { problem, .. }) => match problem {
                    EntryProblem::CaseCollision(_) => "case",
                    EntryProblem::FileAndDirectory => "both",
                    EntryProblem::Duplicate => "twice",
                    other => panic!("{other}"),
                },
                Err(other) => panic!("{other}"),
            };
            assert_eq!(found, expected, "{order:?}");
        }
    }
    check(&["a", "b", "a.go", "a0"], "none");
    check(&["a.go", "A.go"], "case");
    check(&["x", "a.go", "m/n", "zz", "A.go"], "case");
    check(&["d/a", "D/b"], "case");
    check(&["d/a", "d/e/f", "d.go", "d0", "D/b"], "case");
    check(&["a/b/c/d", "a/B/c/e"], "case");
    check(&["README", "readme/x"], "case");
    check(&["k", "\u{212a}"], "case");
    check(&["x/s/1", "x/\u{17f}/2"], "case");
    check(&["Σ", "ς"], "case");
    check(&["ß", "ss"], "none");
    check(&["é", "E"], "none");
    check(&["a", "a/b"], "both");
    check(&["a", "a!", "a-b", "a.b", "a/b"], "both");
    check(&["a/b", "a/b/c/d"], "both");
    check(&["a", "a/"], "both");
    check(&["a", "a"], "twice");
    check(&["a/b", "c", "a/b"], "twice");
    // Directories may be named, also more than once and beside what lies in them.
    check(&["a/", "a/"], "none");
    check(&["a/", "a/b", "a/c/"], "none");
    check(&["", "a", ""], "none");
    check(&["a/", "A/"], "case");
    check(&["a/", "A/b"], "case");
    check(&["go.mod/", "go.mod/x"], "none");
    check(&["GO.MOD/", "sub/go.mod/"], "none");
}

/// A zip with these names, of which those that end in a slash are directories.
fn directories_too(names: &[&str]) -> Archive {
    Archive::of(names.iter().map(|name| {
        if name.is_empty() || name.ends_with('/') {
            Entry::stored(&full(name), b"")
        } else {
            Entry::deflated(&full(name), name.as_bytes())
        }
    }))
}

#[test]
fn directories_are_hashed_as_empty_files() {
    let checked = check_bytes(&directories_too(&["a/", "a/b", ""]).bytes()).expect("a good zip");
    assert_eq!((checked.files, checked.uncompressed_bytes), (1, 3));
    let empty = *Sha256::of(b"").as_bytes();
    let file = *Sha256::of(b"a/b").as_bytes();
    let names = [full(""), full("a/"), full("a/b")];
    let h1 = H1::of_files(names.iter().map(String::as_str).zip([empty, empty, file]));
    assert_eq!(checked.h1, h1.expect("no newlines"));
    // Go's own tool writes none, and the hash would be another one.
    let plain = check_bytes(&files(&["a/b"]).bytes()).expect("a good zip");
    assert_ne!(plain.h1, checked.h1);
}

#[test]
fn limits() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut ZipLimits), expected: Option<&str>) {
        let entries = [("LICENSE", 6), ("a", 1), ("go.mod", 5), ("sub/LICENSE", 9)]
            .map(|(name, size)| Entry::deflated(&full(name), &vec![b'x'; size]));
        let bytes = Archive::of(entries).bytes();
        let mut limits = ZipLimits::default();
        change(&mut limits);
        let result = check_zip(Cursor::new(&bytes), &module(), &limits);
        let message = result.err().map(|error| {
            assert_eq!(error.class(), ErrorClass::Corrupt);
            error.to_string()
        });
        assert_eq!(message.as_deref(), expected);
    }
    check(|_| {}, None);
    check(|limits| limits.max_uncompressed_bytes = 21, None);
    check(
        |limits| limits.max_uncompressed_bytes = 20,
        Some("the zip has more than 20 bytes of files"),
    );
    check(|limits| limits.max_go_mod_bytes = 5, None);
    check(|limits| limits.max_go_mod_bytes = 4, Some("the zip has more than 4 bytes in go.mod"));
    check(|limits| limits.max_license_bytes = 6, None);
    check(|limits| limits.max_license_bytes = 5, Some("the zip has more than 5 bytes in LICENSE"));
    check(|limits| limits.max_files = 4, None);
    check(|limits| limits.max_files = 3, Some("the zip has more than 3 entries"));
    check(|limits| limits.max_name_bytes = 25, None);
    check(|limits| limits.max_name_bytes = 24, Some("the zip has more than 24 bytes of names"));
    check(|limits| limits.max_zip_bytes = 10, Some("the zip has more than 10 bytes"));
    let defaults = ZipLimits::default();
    assert_eq!(
        (defaults.max_zip_bytes, defaults.max_uncompressed_bytes),
        (524_288_000, 524_288_000)
    );
    assert_eq!((defaults.max_go_mod_bytes, defaults.max_license_bytes), (16_777_216, 16_777_216));
}

/// Declared sizes are added up before anything is read, so that they cannot overflow either.
#[test]
fn declared_sizes_count() {
    let wide = |size: u64| {
        Entry::stored(&full("wide"), b"").with(|entry| {
            entry.size = u32::MAX;
            entry.extra = [&[1, 0, 8, 0], &size.to_le_bytes()[..]].concat();
        })
    };
    for size in [524_288_001, u64::from(u32::MAX), 1 << 63, u64::MAX] {
        let archive = Archive::of([Entry::stored(&full("a"), b"x"), wide(size)]);
        let error = check_bytes(&archive.bytes()).expect_err("too large");
        assert_eq!(error.to_string(), "the zip has more than 524288000 bytes of files");
    }
}

/// A bomb says that it is small. It is stopped after one buffer, not after it has been inflated.
#[test]
fn bombs_are_not_inflated() {
    let text = vec![0; 64 << 20];
    let bomb = Entry::deflated(&full("bomb"), &text).with(|entry| entry.size = 10);
    let bytes = Archive::of([bomb]).bytes();
    let mut reader = Counting { inner: Cursor::new(bytes), read: 0 };
    let error = check_zip(&mut reader, &module(), &ZipLimits::default()).expect_err("a bomb");
    assert_eq!(
        error.to_string(),
        "entry \"example.com/m@v1.0.0/bomb\" of the zip: it holds more than the declared 10 bytes"
    );
    assert!(reader.read < 200 << 10, "{} bytes were read", reader.read);
}

struct Counting<R> {
    inner: R,
    read: usize,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read += read;
        Ok(read)
    }
}

impl<R: Seek> Seek for Counting<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

/// A reader that gives a byte or two at a time, is interrupted, and may fail at an offset.
struct Slow {
    inner: Cursor<Vec<u8>>,
    calls: usize,
    fails_at: u64,
}

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.inner.position() >= self.fails_at {
            return Err(io::Error::other("the disk is broken"));
        }
        if self.calls.is_multiple_of(3) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = buffer.len().min(1 + self.calls % 2);
        self.inner.read(&mut buffer[..length])
    }
}

impl Seek for Slow {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

#[test]
fn short_reads_and_failures() {
    let names = ["go.mod", "a/b.go", "z"];
    let archive =
        Archive::of(names.map(|name| Entry::streamed(&full(name), name.repeat(50).as_bytes())));
    let bytes = archive.bytes();
    let whole = check_bytes(&bytes).expect("a good zip");
    let slow = |fails_at| {
        let inner = Cursor::new(bytes.clone());
        check_zip(Slow { inner, calls: 0, fails_at }, &module(), &ZipLimits::default())
    };
    assert_eq!(slow(u64::MAX).expect("the same"), whole);
    for fails_at in [0, 10, 200] {
        let error = slow(fails_at).expect_err("a fault of the disk");
        assert_eq!(error.class(), ErrorClass::Internal);
        let cause = std::error::Error::source(&error).expect("a cause").to_string();
        assert_eq!(
            (error.to_string().as_str(), cause.as_str()),
            ("cannot read the zip", "the disk is broken")
        );
    }
}

#[test]
fn what_is_no_zip() {
    let zeros = vec![0; 100_000];
    for bytes in [&b""[..], b"not found", b"PK\x05\x06", &zeros] {
        let error = check_bytes(bytes).expect_err("no zip");
        assert_eq!(error.class(), ErrorClass::Corrupt);
        assert_eq!(error.to_string(), "not a valid zip file: it has no directory at its end");
    }
    let bytes = files(&["a", "b"]).bytes();
    for end in 0..bytes.len() {
        assert!(check_bytes(&bytes[..end]).is_err(), "cut at {end}");
    }
}

/// Any one bit that is turned over is noticed, or changes nothing that counts.
#[test]
fn every_bit() {
    let archive = Archive::of([
        Entry::stored(&full("a.txt"), b"stored"),
        Entry::deflated(&full("go.mod"), b"module example.com/m\n"),
        Entry::streamed(&full("x/y"), b"streamed streamed"),
    ]);
    let bytes = archive.bytes();
    let whole = check_bytes(&bytes).expect("a good zip");
    let mut noticed = 0;
    for bit in 0..bytes.len() * 8 {
        let mut turned = bytes.clone();
        turned[bit / 8] ^= 1 << (bit % 8);
        match check_bytes(&turned) {
            Err(error) => {
                assert_eq!(error.class(), ErrorClass::Corrupt);
                noticed += 1;
            }
            // A bit in a name makes another name.
            Ok(checked) => assert_eq!(checked.files, whole.files),
        }
    }
    assert!(noticed > bytes.len() * 8 / 4, "{noticed}");
}

proptest! {
    #[test]
    fn no_input_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let _ = check_bytes(&bytes);
        let mut zip = files(&["a", "b/c"]).with(|archive| archive.zip64 = true).bytes();
        for (at, byte) in cuts {
            let at = at.index(zip.len());
            zip[at] = byte;
        }
        let _ = check_bytes(&zip);
    }

    /// What the writer has written is read, whatever the contents.
    #[test]
    fn contents_are_hashed(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..5)) {
        let names: Vec<_> = (0..contents.len()).map(|n| full(&format!("f{n}"))).collect();
        let entries = names.iter().zip(&contents).enumerate().map(|(n, (name, text))| {
            [Entry::stored, Entry::deflated, Entry::streamed][n % 3](name, text)
        });
        let checked = check_bytes(&Archive::of(entries).bytes()).expect("a good zip");
        let sums = contents.iter().map(|text| *Sha256::of(text).as_bytes());
        let h1 = H1::of_files(names.iter().map(String::as_str).zip(sums)).expect("no newlines");
        prop_assert_eq!(checked.h1, h1);
        prop_assert_eq!(checked.files, contents.len() as u64);
    }
}
