//! A recording of real answers: what the go command asks for when it downloads all that a module needs, and what a public
//! proxy answers, kept for runs without a network.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;
use stoa_module::{Artifact, ModuleVersion};

use crate::data::file_of;
use crate::server::{Kind, Server};

/// How this machine reaches the network, which the recording server must know too.
const NETWORK: [&str; 5] =
    ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Makes `DIR/store` and `DIR/paths.txt`, through a stoa whose log says what was asked and whose store holds the answers.
pub(crate) async fn record(stoa: &Path, dir: &Path, module: &str) -> anyhow::Result<()> {
    if dir.join("paths.txt").exists() {
        bail!("{} holds a recording already", dir.display());
    }
    let upstream =
        Command::new("go").args(["env", "GOPROXY"]).output().context("the go command")?;
    let upstream = String::from_utf8(upstream.stdout)?.trim().to_owned();
    let mut environment: Vec<(String, String)> = NETWORK
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
        .collect();
    environment.push(("STOA_LOG_FORMAT".to_owned(), "json".to_owned()));
    environment.push(("STOA_LOG_LEVEL".to_owned(), "info".to_owned()));
    let gosumdb = "sum.golang.org".to_owned();
    let kind = Kind::Stoa { program: stoa.to_owned(), gosumdb, environment };
    let server = Server::start(&kind, &upstream).await?;
    println!("recording what {module} needs, from {upstream}");
    download(module, server.url())?;

    let (mut seen, mut paths) = (BTreeSet::new(), Vec::new());
    let store = server.store_dir().join("cache/download");
    for line in server.whole_log()?.lines() {
        let Some(path) = immutable_path(line).filter(|path| seen.insert(path.clone())) else {
            continue;
        };
        let place = |root: &Path| file_of(root, &path);
        let (Some(from), Some(to)) = (place(&store), place(&dir.join("store"))) else { continue };
        if let Some(parent) = to.parent() {
            fs_err::create_dir_all(parent)?;
        }
        // Of a tile that was cut from a wider one there is no file, and the upstream of the benchmark cuts it too.
        if from.is_file() {
            fs_err::copy(from, to)?;
        }
        paths.push(path);
    }
    if paths.is_empty() {
        bail!("nothing was asked for; the server's log:\n{}", server.log());
    }
    fs_err::write(dir.join("paths.txt"), paths.join("\n"))?;
    println!("{} paths in {}", paths.len(), dir.display());
    Ok(())
}

/// As a developer without anything in the module cache.
fn download(module: &str, proxy: &str) -> anyhow::Result<()> {
    let work = tempfile::Builder::new().prefix("stoa-record-").tempdir()?;
    fs_err::write(work.path().join("go.mod"), "module recording.example\n\ngo 1.21\n")?;
    for arguments in [&["get", module][..], &["mod", "download", "all"]] {
        let status = Command::new("go")
            .args(arguments)
            .current_dir(work.path())
            .envs([("GOPROXY", proxy), ("GOFLAGS", "-modcacherw"), ("GOTOOLCHAIN", "local")])
            .envs([("GOPRIVATE", ""), ("GONOPROXY", ""), ("GOSUMDB", "sum.golang.org")])
            .env("GOPATH", work.path().join("go"))
            .env("GOMODCACHE", work.path().join("cache"))
            .stdin(Stdio::null())
            .status()?;
        if !status.success() {
            bail!("go {}: {status}", arguments.join(" "));
        }
    }
    Ok(())
}

/// Of a line of the log that tells of a whole answer that never changes.
fn immutable_path(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("target") != "access" || line.get("status").and_then(Value::as_u64) != Some(200) {
        return None;
    }
    let artifact = match text("kind") {
        "info" => Artifact::Info,
        "mod" => Artifact::Mod,
        "zip" => Artifact::Zip,
        "sumdb" => return Some(text("url.path").to_owned()),
        _ => return None,
    };
    let name = format!("{}@{}", text("module.path"), text("module.version"));
    let module = ModuleVersion::parse(&name).ok()?;
    Some(format!("/{}", module.escaped_file(artifact)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_line_of_the_log_asks_for() {
        #[track_caller]
        fn check(line: &str, expected: Option<&str>) {
            assert_eq!(immutable_path(line).as_deref(), expected, "{line}");
        }
        let module = r#""module.path":"example.com/A","module.version":"v1.0.0""#;
        check(
            &format!(r#"{{"target":"access","status":200,"kind":"zip",{module}}}"#),
            Some("/example.com/!a/@v/v1.0.0.zip"),
        );
        check(
            r#"{"target":"access","status":200,"kind":"sumdb","url.path":"/sumdb/s/tile/8/0/000"}"#,
            Some("/sumdb/s/tile/8/0/000"),
        );
        check(&format!(r#"{{"target":"access","status":404,"kind":"zip",{module}}}"#), None);
        check(&format!(r#"{{"target":"access","status":200,"kind":"list",{module}}}"#), None);
        check(r#"{"target":"stoa"}"#, None);
        check("go: downloading", None);
    }
}
