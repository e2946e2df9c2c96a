use stoa_module::Sha256;
use url::Url;

use super::{AMPLE, client, short, source};
use crate::{Bounds, Source, Use};

#[tokio::test]
async fn a_directory() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("a proxy");
    let versions = root.join("github.com/!azure/x/@v");
    fs_err::create_dir_all(&versions).unwrap();
    fs_err::write(versions.join("v1.0.0.info"), "{}").unwrap();
    fs_err::create_dir_all(versions.join("list")).unwrap();
    fs_err::write(parent.path().join("secret"), "no").unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, versions.join("v1.0.0.zip"), rustix::fs::Mode::RUSR)
        .unwrap();
    let url = Url::from_directory_path(&root).unwrap();
    assert!(url.as_str().ends_with("/a%20proxy/"), "{url}");
    let source = Source::from_url(&url).unwrap();
    assert_eq!(source.host(), "file");

    let client = client();
    let bounds = Bounds { max_bytes: 2, ..AMPLE };
    let check = async |path: &str, expected: Result<&'static str, &str>| {
        let outcome = client.get(&source, Use::Modules, path, &bounds, "").await;
        let outcome = outcome.map_err(|failure| short(&failure));
        assert_eq!(outcome, expected.map(Into::into).map_err(str::to_owned), "{path}");
    };
    check("github.com/!azure/x/@v/v1.0.0.info", Ok("{}")).await;
    let absent = Err("not_found local 1: no such file");
    check("github.com/azure/x/@v/v1.0.0.info", absent).await;
    check("github.com/!azure/x/@v/v1.0.0.mod", absent).await;
    check("github.com/!azure/x/@v/v1.0.0.info/x", absent).await;
    check(&"x".repeat(300), absent).await;
    check("github.com/!azure/x/@v/list", Err("not_found local 1: not a file")).await;
    // Opening a pipe would wait for a writer.
    check("github.com/!azure/x/@v/v1.0.0.zip", Err("not_found local 1: not a file")).await;
    let impossible = Err("invalid local 0: impossible file name");
    check("../secret", impossible).await;
    check("github.com/../../secret", impossible).await;
    check("/etc/passwd", impossible).await;
    check("a\0b", impossible).await;
    fs_err::write(versions.join("v1.0.0.info"), "{ }").unwrap();
    let large = Err("corrupt body 1: body: larger than the limit of 2 bytes");
    check("github.com/!azure/x/@v/v1.0.0.info", large).await;

    let file = fs_err::tokio::File::create(parent.path().join("copy")).await.unwrap();
    let path = "github.com/!azure/x/@v/v1.0.0.info";
    let downloaded = client.download(&source, Use::Modules, path, &AMPLE, "", &file).await.unwrap();
    assert_eq!((downloaded.bytes, downloaded.sha256), (3, Sha256::of(b"{ }")));
}

#[test]
fn addresses() {
    let check = |url: &str, shown: &str, host: &str, name: &str| {
        let source = source(url);
        assert_eq!(source.to_string(), shown);
        assert_eq!(format!("{source:?}"), format!("Source({shown})"));
        assert_eq!(source.host(), host);
        assert_eq!(source.name(), name);
    };
    check(
        "https://proxy.golang.org",
        "https://proxy.golang.org",
        "proxy.golang.org",
        "proxy.golang.org",
    );
    check(
        "https://u:p@example.com:8443/go/",
        "https://example.com:8443/go",
        "example.com:8443",
        "example.com:8443/go",
    );
    check("http://token@[::1]:80/", "http://[::1]", "[::1]", "[::1]");
    check("file:///srv/a%20b", "file:///srv/a b", "file", "file:///srv/a b");

    let refused = |url: &str, expected: &str| {
        let error = Source::from_url(&Url::parse(url).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), format!("invalid upstream address {expected}"));
    };
    refused(
        "https://u:p@example.com/?a=b",
        "https://example.com/?...: it must have no query and no fragment",
    );
    refused(
        "https://example.com/#a",
        "https://example.com/#a: it must have no query and no fragment",
    );
    refused("ftp://u:p@example.com", "ftp://example.com/: the scheme must be https, http or file");
    refused("file://host/dir", "file://host/dir: a file URL must be file:/// and an absolute path");
    refused("https://%ff:p@example.com", "https://example.com/: its credentials are not UTF-8");
}
