use std::time::Duration;

use stoa_testkit::{GitRemotes, require_git};

use super::Direct;
use crate::direct::GitSettings;
use crate::direct::room::RECENT;

#[tokio::test]
async fn what_nobody_used_lately_makes_room() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::of_fixtures();
    let settings = GitSettings { max_total_bytes: 0, ..GitSettings::default() };
    let direct = Direct::new(&remotes, settings);
    let version = stoa_module::Version::parse("v1.0.0").unwrap();
    let first = direct.module("github.com/ex/r");
    first.info(&version).await.unwrap();
    let second = direct.module("github.com/ex/m123");
    second.info(&version).await.unwrap();
    let inner = &direct.repositories.inner;
    let count = || inner.stored().len();
    assert_eq!(count(), 2);
    // What was used a moment ago stays, and what is in use.
    inner.make_room(RECENT);
    assert_eq!(count(), 2);
    inner.make_room(Duration::ZERO);
    assert_eq!(count(), 2);
    drop(first);
    // Tasks that the answer did not wait for use it a little longer.
    for _ in 0..100 {
        inner.make_room(Duration::ZERO);
        if count() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(count(), 1);
    second.info(&version).await.unwrap();
    // It comes back when somebody wants it.
    direct.module("github.com/ex/r").info(&version).await.unwrap();
    assert_eq!(count(), 2);
}
