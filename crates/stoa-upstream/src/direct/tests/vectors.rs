use stoa_module::{ErrorClass, H1, Info, Version};
use stoa_testkit::{GIT_VECTORS, GitRemotes, require_git};

use super::{Direct, zip_of};
use crate::direct::GitSettings;
use crate::failure::Fault;

/// `version, h1 of the zip, h1 of go.mod`, by way of the requests that the go command would send.
async fn answer(direct: &Direct, query: &str) -> Result<String, Fault> {
    let (path, revision) = query.split_once('@').unwrap();
    let module = direct.module(path);
    let info = match revision {
        "latest" => module.latest().await?,
        revision => module.query(revision).await?,
    };
    let version = Info::parse(info.as_bytes()).unwrap().version;
    let again = Info::parse(module.info(&version).await?.as_bytes()).unwrap();
    assert_eq!(again, Info::parse(info.as_bytes()).unwrap(), "{query}");
    let go_mod = H1::of_go_mod(&module.go_mod(&version).await?);
    let zip = zip_of(&module, path, &version).await?;
    Ok(format!("{version}\t{}\t{go_mod}", zip.h1))
}

async fn check(direct: &Direct, line: &str) -> Result<(), String> {
    let (query, expected) = line.split_once('\t').unwrap();
    if let Some(path) = query.strip_prefix("list ") {
        let module = direct.module(path);
        let Some(expected) = expected.strip_prefix("latest=") else {
            let list = module.list().await;
            assert_eq!(list.map_err(|failure| failure.class), Err(ErrorClass::NotFound), "{path}");
            return Ok(());
        };
        let latest = module.latest().await.map_err(|failure| failure.to_string())?;
        let latest = Info::parse(latest.as_bytes()).unwrap().version;
        let list = module.list().await.map_err(|failure| failure.to_string())?;
        let list: Vec<&str> = list.lines().collect();
        let found = format!("{latest} list={}", list.join(","));
        return if found == expected { Ok(()) } else { Err(found) };
    }
    match (answer(direct, query).await, expected.strip_prefix("error\t")) {
        (Ok(found), None) if found == expected => Ok(()),
        (Ok(found), _) => Err(found),
        (Err(failure), Some(_)) if failure.class == ErrorClass::NotFound => Ok(()),
        (Err(failure), _) => Err(format!("{:?}: {failure}", failure.class)),
    }
}

/// Every line by itself, as if it were the first that a server is asked.
#[tokio::test(flavor = "multi_thread")]
async fn the_answers_of_the_go_command() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::of_fixtures();
    let mut wrong = Vec::new();
    for line in GIT_VECTORS.lines() {
        let direct = Direct::new(&remotes, GitSettings::default());
        if let Err(found) = check(&direct, line).await {
            wrong.push(format!("{line}\n  found: {found}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// And all in one server, where what one asks has been fetched for another before; from the end, too.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_answers_in_any_order() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::of_fixtures();
    let lines: Vec<&str> = GIT_VECTORS.lines().collect();
    let mut wrong = Vec::new();
    for lines in [lines.clone(), lines.into_iter().rev().collect()] {
        let direct = Direct::new(&remotes, GitSettings::default());
        for line in lines {
            if let Err(found) = check(&direct, line).await {
                wrong.push(format!("{line}\n  found: {found}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn infos_say_what_the_go_command_says() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::of_fixtures();
    let direct = Direct::new(&remotes, GitSettings::default());
    let r = direct.module("github.com/ex/r");
    let version = |text: &str| Version::parse(text).unwrap();
    assert_eq!(
        r.info(&version("v1.0.1")).await.unwrap(),
        r#"{"Version":"v1.0.1","Time":"2024-01-02T03:04:05Z","Origin":{"VCS":"git","URL":"https://github.com/ex/r","Hash":"a3ab0831a0ed9ce3aa2155c5c30627b07f94166a","Ref":"refs/tags/v1.0.1"}}"#
    );
    assert_eq!(
        r.query("main").await.unwrap(),
        r#"{"Version":"v1.1.1-0.20240202030405-bbaab31090cb","Time":"2024-02-02T03:04:05Z","Origin":{"VCS":"git","URL":"https://github.com/ex/r","Hash":"bbaab31090cb8dc2c1b991f377bd260450f5e054","TagSum":"t1:cx5yFWpglPmTfH8gV8cX1rFnLt801q2q/6IXMwjI1UA=","Ref":"refs/heads/main"}}"#
    );
    assert_eq!(
        r.info(&version("v1.1.1-0.20240202030405-bbaab31090cb")).await.unwrap(),
        r#"{"Version":"v1.1.1-0.20240202030405-bbaab31090cb","Time":"2024-02-02T03:04:05Z","Origin":{"VCS":"git","URL":"https://github.com/ex/r","Hash":"bbaab31090cb8dc2c1b991f377bd260450f5e054"}}"#
    );
    assert_eq!(
        direct.module("github.com/ex/leg").latest().await.unwrap(),
        r#"{"Version":"v2.0.0+incompatible","Time":"2024-02-02T03:04:05Z","Origin":{"VCS":"git","URL":"https://github.com/ex/leg","Hash":"8af0f7e95b39bd28537a574cbd12c6d9f0496bea","TagSum":"t1:Q+vlqagrXmgZp5YJU+b8XEa+bPOrwBoll+ETMHCB174=","Ref":"refs/tags/v2.0.0"}}"#
    );
    assert_eq!(
        direct.module("github.com/ex/r/sub/dir").query("main").await.unwrap(),
        r#"{"Version":"v1.2.4-0.20240202030405-bbaab31090cb","Time":"2024-02-02T03:04:05Z","Origin":{"VCS":"git","URL":"https://github.com/ex/r","Subdir":"sub/dir","Hash":"bbaab31090cb8dc2c1b991f377bd260450f5e054","TagPrefix":"sub/dir/","TagSum":"t1:gF+xt8t5Ofb2uHzFqungJRKefEa6xRRvRaz3sHdybMQ=","Ref":"refs/heads/main"}}"#
    );
}
