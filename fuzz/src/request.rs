//! The path of a request: what is read is written again, and names nothing outside of its place.

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use stoa_module::{
    ErrorClass, ModulePath, ModuleVersion, Query, Request, Version, check_file_path,
};

pub fn check(data: &[u8]) {
    // As hyper hands it on, what is not ASCII is percent-encoded; the parser must not rely on it.
    let Ok(raw) = std::str::from_utf8(data) else { return };
    let read = Request::parse(raw);
    match &read {
        Ok(request) => {
            let written = write(request);
            assert_eq!(Request::parse(&written).as_ref(), Ok(request), "{written:?}");
            names_a_place(request);
        }
        Err(error) => {
            assert_eq!(error.class(), ErrorClass::Invalid);
            assert!(!error.to_string().is_empty());
        }
    }
    // A text without percent signs is what it says.
    if !raw.contains('%')
        && let Some(path) = raw.strip_prefix('/')
    {
        let encoded = format!("/{}", percent_encode(path.as_bytes(), NON_ALPHANUMERIC));
        assert_eq!(Request::parse(&encoded), read, "{encoded:?}");
    }
}

/// The request as the go command sends it, but for the percent signs.
fn write(request: &Request) -> String {
    let path = match request {
        Request::Sumdb { rest } => format!("sumdb/{rest}"),
        _ => file(request),
    };
    format!("/{}", path.replace('%', "%25"))
}

/// Where it lies in a download cache; nowhere in the case of a checksum database.
fn file(request: &Request) -> String {
    match request {
        Request::List(path) => format!("{}/@v/list", path.escaped()),
        Request::Latest(path) => format!("{}/@latest", path.escaped()),
        Request::Query { path, query } => format!("{}/@v/{}.info", path.escaped(), query.escaped()),
        Request::Artifact { module, artifact } => module.escaped_file(*artifact),
        Request::Sumdb { .. } => String::new(),
    }
}

/// The file of a request is a relative path whose elements every file system can have.
fn names_a_place(request: &Request) {
    let Some(path) = request.path() else { return };
    assert_eq!(ModulePath::parse(path.as_str()).as_ref(), Ok(path));
    assert_eq!(ModulePath::parse_escaped(&path.escaped()).as_ref(), Ok(path));
    assert_eq!(format!("{}{}", path.prefix(), path.path_major().as_str()), path.as_str());
    match request {
        Request::Artifact { module, .. } => {
            let version = module.version();
            assert_eq!(Version::parse(version.as_str()).as_ref(), Ok(version));
            assert_eq!(ModuleVersion::parse(&module.to_string()).as_ref(), Ok(module));
            assert!(path.path_major().allows(version.as_str()));
        }
        Request::Query { query, .. } => {
            assert_eq!(Query::parse_escaped(&query.escaped()).as_ref(), Ok(query));
            // What is a version of this module is an artifact, and nothing else is.
            let version = Version::parse(query.as_str()).ok();
            assert_eq!(version.and_then(|it| ModuleVersion::new(path.clone(), it).ok()), None);
        }
        _ => {}
    }
    let file = file(request);
    assert_eq!(check_file_path(&file), Ok(()), "{file:?}");
    assert!(file.split('/').all(|element| element.len() <= 255 && !matches!(element, "." | "..")));
    // No two names differ in case alone once they are escaped.
    assert!(!file.bytes().any(|byte| byte.is_ascii_uppercase()), "{file:?}");
}

pub fn seeds() -> Vec<Vec<u8>> {
    crate::texts(&[
        "/github.com/!azure/azure-sdk-for-go/v2/@v/v2.1.0-!r!c1.info",
        "/github.com/%21azure/x/@v/v0.0.0-20240202030405-bbaab31090cb.zip",
        "/gopkg.in/yaml.v3/@v/v3.0.1.mod",
        "/gopkg.in/a/b.v2-unstable/@v/list",
        "/golang.org/x/text/@latest",
        "/ex.com/m/@v/main.info",
        "/ex.com/m/@v/v2.0.0+incompatible.info",
        "/ex.com/m/@v/feature%2fx.info",
        "/sumdb/sum.golang.org/tile/8/0/x001/234.p/5",
        "/sumdb/sum.golang.org/lookup/rsc.io/quote@v1.5.2",
        "/ex.com/a/@v/b/@v/v1.0.0.info",
    ])
}
