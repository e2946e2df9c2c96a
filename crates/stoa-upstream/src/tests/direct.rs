//! `direct` as a source like others: by paths, into memory and into files.

use std::ffi::OsString;
use std::time::Duration;

use stoa_module::{ErrorClass, ModulePath, ModuleVersion, Sha256, ZipLimits, check_zip};
use stoa_testkit::{GitRemotes, require_git};

use super::settings;
use crate::{Bounds, Client, Environment, Failure, GitSettings, Settings, Source, Use};

struct World {
    remotes: GitRemotes,
    client: Client,
    _directory: tempfile::TempDir,
}

const BOUNDS: Bounds = Bounds { header: Duration::from_secs(20), max_bytes: 1 << 20 };

impl World {
    fn new(remotes: GitRemotes) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = (OsString::from("PATH"), std::env::var_os("PATH").unwrap());
        let led =
            remotes.environment().into_iter().map(|(name, value)| (name.into(), value.into()));
        let environment: Environment = led.chain([path]).collect();
        let git = GitSettings { refs_min_interval: Duration::ZERO, ..GitSettings::default() };
        let git_dir = Some(directory.path().join("git"));
        let settings = Settings { git_dir, environment, git, ..settings() };
        Self { remotes, client: Client::new(settings).unwrap(), _directory: directory }
    }

    async fn get(&self, path: &str) -> Result<String, Failure> {
        let got = self.client.get(&Source::Direct, Use::Modules, path, &BOUNDS, "").await?;
        Ok(String::from_utf8(got.to_vec()).unwrap())
    }
}

#[tokio::test]
async fn every_file_of_a_module() {
    if !require_git() {
        return;
    }
    let world = World::new(GitRemotes::of_fixtures());
    assert_eq!(world.get("github.com/ex/r/@v/list").await.unwrap(), "v1.0.0\nv1.0.1\n");
    let info = world.get("github.com/ex/r/@latest").await.unwrap();
    assert!(info.starts_with(r#"{"Version":"v1.0.1","#), "{info}");
    let info = world.get("github.com/ex/r/@v/v1.0.0.info").await.unwrap();
    assert!(info.starts_with(r#"{"Version":"v1.0.0","#), "{info}");
    let go_mod = world.get("github.com/ex/r/@v/v1.0.0.mod").await.unwrap();
    assert!(go_mod.starts_with("module github.com/ex/r\n"), "{go_mod}");
    let file = fs_err::tokio::File::from_parts(tempfile::tempfile().unwrap().into(), "a zip");
    let path = "github.com/ex/r/@v/v1.0.0.zip";
    let download =
        world.client.download(&Source::Direct, Use::Modules, path, &BOUNDS, "", &file).await;
    let downloaded = download.unwrap();
    let mut zip = file.into_parts().0.into_std().await;
    let module = ModuleVersion::parse("github.com/ex/r@v1.0.0").unwrap();
    check_zip(zip.try_clone().unwrap(), &module, &ZipLimits::default()).unwrap();
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut zip).unwrap();
    std::io::Read::read_to_end(&mut zip, &mut bytes).unwrap();
    assert_eq!(downloaded.sha256, Sha256::of(&bytes));
    assert_eq!(downloaded.bytes, bytes.len() as u64);
}

#[tokio::test]
async fn failures_name_what_can_be_done() {
    if !require_git() {
        return;
    }
    let world = World::new(GitRemotes::of_fixtures());
    let check = async |path: &str, class: ErrorClass, says: &str, has_hint: bool| {
        let failure = world.get(path).await.unwrap_err();
        assert_eq!(failure.class, class, "{path}: {failure}");
        assert!(failure.to_string().starts_with("direct: "), "{path}: {failure}");
        assert!(failure.to_string().contains(says), "{path}: {failure}");
        assert_eq!(failure.hint.is_some(), has_hint, "{path}: {failure:?}");
    };
    check("github.com/ex/r/@v/v9.9.9.info", ErrorClass::NotFound, "unknown revision v9.9.9", true)
        .await;
    check("github.com/ex/r/@v/a%b.info", ErrorClass::NotFound, "unknown revision a%b", true).await;
    check("github.com/ex/none/@v/list", ErrorClass::NotFound, "no such repository", true).await;
    check("github.com/ex/@v/list", ErrorClass::NotFound, "invalid github.com import path", false)
        .await;
    check("sumdb/sum.golang.org/supported", ErrorClass::Invalid, "impossible", false).await;
    check("github.com/ex/r/@v/list/x", ErrorClass::Invalid, "impossible", false).await;
}

#[tokio::test]
async fn who_looks_anew_sees_what_was_pushed() {
    if !require_git() {
        return;
    }
    let world = World::new(GitRemotes::new());
    world.remotes.init("m");
    world.remotes.write("m", "go.mod", "module github.com/ex/m\n");
    world.remotes.commit("m", 1_700_000_000);
    world.remotes.git("m", &["tag", "v1.0.0"]);
    assert_eq!(world.get("github.com/ex/m/@v/list").await.unwrap(), "v1.0.0\n");
    world.remotes.git("m", &["tag", "v1.1.0"]);
    assert_eq!(world.get("github.com/ex/m/@v/list").await.unwrap(), "v1.0.0\n");
    world.client.look_anew(&ModulePath::parse("github.com/ex/other").unwrap()).await;
    assert_eq!(world.get("github.com/ex/m/@v/list").await.unwrap(), "v1.0.0\n");
    world.client.look_anew(&ModulePath::parse("github.com/ex/m").unwrap()).await;
    assert_eq!(world.get("github.com/ex/m/@v/list").await.unwrap(), "v1.0.0\nv1.1.0\n");
    // A version that is asked for by its name is looked for at once.
    world.remotes.git("m", &["tag", "v1.2.0"]);
    assert!(world.get("github.com/ex/m/@v/v1.2.0.info").await.unwrap().contains("v1.2.0"));
}
