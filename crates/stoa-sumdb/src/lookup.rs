use stoa_module::{H1, ModuleVersion};

use crate::note::parse_decimal;
use crate::{Error, Hash, SignedTreeHead, VerifierKey, record_hash};

/// A database's answer about one module version, with its signature verified.
///
/// The record itself is proven only when its [hash](Lookup::record_hash) is the one that
/// [`Proven`](crate::Proven) has for its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    pub id: u64,
    /// Lines of the form of go.sum, each with its newline.
    pub record: String,
    pub signed: SignedTreeHead,
}

/// What a record says about one module version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHashes {
    pub zip: Option<H1>,
    pub go_mod: Option<H1>,
}

/// Where a database has the record of a module version, relative to it: `lookup/PATH@VERSION`.
pub fn lookup_path(module: &ModuleVersion) -> String {
    format!("lookup/{}@{}", module.path().escaped(), module.version().escaped())
}

impl Lookup {
    /// Reads `ID`, the record, a blank line and a signed note; verifies the note's signature.
    pub fn open(body: &[u8], key: &VerifierKey) -> Result<Lookup, Error> {
        let malformed = Error::MalformedLookup;
        let text = std::str::from_utf8(body).map_err(|_| malformed("not UTF-8"))?;
        let (id, rest) = text.split_once('\n').ok_or(malformed("no record"))?;
        let id = parse_decimal(id).ok_or(malformed("a malformed record id"))?;
        let end = rest.find("\n\n").ok_or(malformed("no blank line after the record"))?;
        let (record, note) = (&rest[..=end], &rest[end + 2..]);
        if record.contains(|c: char| c < ' ' && c != '\n') {
            return Err(malformed("a control character"));
        }
        let signed = SignedTreeHead::open(note.as_bytes(), key)?;
        if id >= signed.head.size {
            return Err(Error::RecordOutsideTree { id, size: signed.head.size });
        }
        Ok(Lookup { id, record: record.to_owned(), signed })
    }

    /// The hash that the tree must have at the record's id.
    pub fn record_hash(&self) -> Hash {
        record_hash(self.record.as_bytes())
    }

    /// What the record says about exactly this module version.
    ///
    /// Lines about others and hashes of other kinds than `h1:` are not looked at, as in the go
    /// command; a record without any line about the module is an error.
    pub fn hashes(&self, module: &ModuleVersion) -> Result<RecordHashes, Error> {
        let (path, version) = (module.path().as_str(), module.version().as_str());
        let bad_line = || Error::BadRecordLine { module: module.to_string() };
        let mut hashes = RecordHashes { zip: None, go_mod: None };
        for line in self.record.lines() {
            let mut fields = line.split(' ');
            if fields.next() != Some(path) {
                continue;
            }
            let slot = match fields.next().and_then(|it| it.strip_prefix(version)) {
                Some("") => &mut hashes.zip,
                Some("/go.mod") => &mut hashes.go_mod,
                _ => continue,
            };
            let (Some(hash), None) = (fields.next(), fields.next()) else { return Err(bad_line()) };
            if !hash.starts_with("h1:") {
                continue;
            }
            let hash = H1::parse(hash).map_err(|_| bad_line())?;
            if slot.replace(hash).is_some_and(|other| other != hash) {
                return Err(bad_line());
            }
        }
        if hashes.zip.is_none() && hashes.go_mod.is_none() {
            return Err(Error::OtherModule { module: module.to_string() });
        }
        Ok(hashes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
    const QUOTE: &str = "\
rsc.io/quote v1.5.2 h1:w5fcysjrx7yqtD/aO+QwRjYZOKnaM9Uh2b40tElTs3Y=
rsc.io/quote v1.5.2/go.mod h1:LzX7hefJvL54yjefDEDHNONDjII0t9xZLPXsUe+TKr0=
";
    const HEAD: &str = "go.sum database tree
71769961
O0jlIxwRb2vZYS1na726XLlaDCtCqKUVLld+AY32AGA=

\u{2014} sum.golang.org Az3grufbQia/eVmOpUINcw1UBa6rB6ikK2tQHD1unUUvIMEXtMyuoYzc+kL7vaGESkPcmXTD1s5Cu55o14FrOYfragA=
";

    fn open(body: &str) -> Result<Lookup, Error> {
        Lookup::open(body.as_bytes(), &VerifierKey::parse(GO).unwrap())
    }

    fn module(text: &str) -> ModuleVersion {
        ModuleVersion::parse(text).unwrap()
    }

    #[test]
    fn opens_record_942_of_sum_golang_org() {
        let lookup = open(&format!("942\n{QUOTE}\n{HEAD}")).unwrap();
        assert_eq!(lookup.id, 942);
        assert_eq!(lookup.record, QUOTE);
        assert_eq!(lookup.signed.head.size, 71_769_961);
        assert_eq!(lookup.signed.note, HEAD.as_bytes());
        let hashes = lookup.hashes(&module("rsc.io/quote@v1.5.2")).unwrap();
        assert_eq!(
            hashes.zip.unwrap().to_string(),
            "h1:w5fcysjrx7yqtD/aO+QwRjYZOKnaM9Uh2b40tElTs3Y="
        );
        assert_eq!(
            hashes.go_mod.unwrap().to_string(),
            "h1:LzX7hefJvL54yjefDEDHNONDjII0t9xZLPXsUe+TKr0="
        );
    }

    #[test]
    fn refuses_malformed_answers() {
        #[track_caller]
        fn check(body: &str, expected: Error) {
            assert_eq!(open(body), Err(expected), "{body:?}");
        }
        let malformed = Error::MalformedLookup;
        check("", malformed("no record"));
        check("942", malformed("no record"));
        check(&format!("{QUOTE}\n{HEAD}"), malformed("a malformed record id"));
        check(&format!("\n{QUOTE}\n{HEAD}"), malformed("a malformed record id"));
        check(&format!("-1\n{QUOTE}\n{HEAD}"), malformed("a malformed record id"));
        check(&format!("+942\n{QUOTE}\n{HEAD}"), malformed("a malformed record id"));
        check(&format!("0942\n{QUOTE}\n{HEAD}"), malformed("a malformed record id"));
        check(
            &format!("18446744073709551616\n{QUOTE}\n{HEAD}"),
            malformed("a malformed record id"),
        );
        check(&format!("942\n{QUOTE}"), malformed("no blank line after the record"));
        check(
            &format!("942\n{}\n{HEAD}", QUOTE.replace('\n', "\r\n")),
            malformed("a control character"),
        );
        check(&format!("942\r\n{QUOTE}\n{HEAD}"), malformed("a malformed record id"));
        check(
            &format!("942\n{QUOTE}\n"),
            Error::MalformedNote("no blank line before the signatures"),
        );
        check(
            &format!("71769961\n{QUOTE}\n{HEAD}"),
            Error::RecordOutsideTree { id: 71_769_961, size: 71_769_961 },
        );
        assert!(open(&format!("71769960\n{QUOTE}\n{HEAD}")).is_ok());
        assert_eq!(
            Lookup::open(b"942\n\xff\n\n", &VerifierKey::parse(GO).unwrap()),
            Err(malformed("not UTF-8"))
        );
    }

    #[test]
    fn reads_the_lines_of_exactly_this_module() {
        const A: &str = "h1:w5fcysjrx7yqtD/aO+QwRjYZOKnaM9Uh2b40tElTs3Y=";
        const B: &str = "h1:LzX7hefJvL54yjefDEDHNONDjII0t9xZLPXsUe+TKr0=";
        #[track_caller]
        fn check(record: &str, expected: Result<(Option<&str>, Option<&str>), Error>) {
            let record = record.replace("$A", A).replace("$B", B);
            let lookup = open(&format!("1\n{record}\n{HEAD}")).unwrap();
            let hash = |text: &str| H1::parse(text).unwrap();
            let expected = expected
                .map(|(zip, go_mod)| RecordHashes { zip: zip.map(hash), go_mod: go_mod.map(hash) });
            assert_eq!(lookup.hashes(&module("ex.com/M@v1.0.0")), expected, "{record:?}");
        }
        let name = || "ex.com/M@v1.0.0".to_owned();
        let other = || Err(Error::OtherModule { module: name() });
        let bad = || Err(Error::BadRecordLine { module: name() });
        check("ex.com/M v1.0.0 $A\nex.com/M v1.0.0/go.mod $B\n", Ok((Some(A), Some(B))));
        check("ex.com/M v1.0.0/go.mod $B\n", Ok((None, Some(B))));
        check("ex.com/M v1.0.0 $A\n", Ok((Some(A), None)));
        check("ex.com/M v1.0.0 $A\nex.com/M v1.0.0 $A\n", Ok((Some(A), None)));
        check("ex.com/M v1.0.0 h2:x\nex.com/M v1.0.0 $A\n", Ok((Some(A), None)));
        check("ex.com/N v1.0.0 $B\nex.com/M v1.0.0 $A\n", Ok((Some(A), None)));
        check("ex.com/M v1.0.0 $A\nex.com/M v1.0.0 $B\n", bad());
        check("ex.com/M v1.0.0 $A x\n", bad());
        check("ex.com/M v1.0.0 h1:AAAA\n", bad());
        check("ex.com/M v1.0.0\n", bad());
        check("ex.com/M v1.0.0 h2:x\n", other());
        check("ex.com/m v1.0.0 $A\n", other());
        check("ex.com/M v1.0.1 $A\nex.com/M v1.0.1/go.mod $B\n", other());
        check("ex.com/M v1.0.0+incompatible $A\n", other());
        check("ex.com/M v1.0.0/go.sum $A\n", other());
        check("ex.com/M/v2 v1.0.0 $A\n", other());
        check("ex.com/M  v1.0.0 $A\n", other());
        check(" ex.com/M v1.0.0 $A\n", other());
        check("ex.com/M\n", other());
    }

    #[test]
    fn a_lookup_is_asked_for_in_escaped_form() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            assert_eq!(lookup_path(&module(text)), expected);
        }
        check("rsc.io/quote@v1.5.2", "lookup/rsc.io/quote@v1.5.2");
        check(
            "github.com/BurntSushi/toml@v1.0.0-RC1",
            "lookup/github.com/!burnt!sushi/toml@v1.0.0-!r!c1",
        );
        check("ex.com/m@v2.0.0+incompatible", "lookup/ex.com/m@v2.0.0+incompatible");
    }
}
