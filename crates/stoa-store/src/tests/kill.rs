//! kill -9 at every step of a commit, and anywhere. The test binary runs itself as the process that dies.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
};

use tokio::task::JoinSet;

use super::*;
use crate::killpoint::{Step, arm};

pub(super) const DIR: &str = "STOA_STORE_TEST_DIR";
pub(super) const STEP: &str = "STOA_STORE_TEST_STEP";

/// Runs one test of this binary as another process.
pub(super) fn child(test: &str, place: &Place, step: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("tests::{test}"), "--nocapture"])
        .env(DIR, place.path())
        .env(STEP, step)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The store of the child's parent; none in the run of all tests.
async fn child_store() -> Option<Store> {
    let dir = std::env::var_os(DIR)?;
    let mut options = Options::new(dir);
    if std::env::var(STEP).unwrap().ends_with(SYNCED) {
        options.flush_interval = Duration::ZERO;
    }
    Some(Store::open(options).await.unwrap())
}

/// The child waits for the disk at each commit.
const SYNCED: &str = " synced";

/// `ARTIFACT STEP`: commits `.info`, `.mod` and `.zip` in this order and dies at a step of one of them.
#[tokio::test]
async fn dies_at_a_step() {
    let Some(store) = child_store().await else { return };
    let text = std::env::var(STEP).unwrap();
    let (artifact, step) = text.trim_end_matches(SYNCED).split_once(' ').unwrap();
    let one = victim();
    for each in Artifact::ALL {
        let step = Step::ALL.into_iter().find(|known| format!("{known:?}") == step).unwrap();
        arm((each.extension() == artifact).then_some(step));
        commit(&store, &one, each).await;
    }
}

fn victim() -> ModuleVersion {
    module("github.com/Victim/a@v1.0.0-RC1")
}

#[tokio::test]
async fn a_kill_at_every_step_leaves_nothing_torn() {
    let mut killed = 0;
    for (number, artifact) in Artifact::ALL.into_iter().enumerate() {
        for step in Step::ALL {
            for is_clean in [true, false] {
                killed += u32::from(check_kill(number, artifact, step, is_clean).await);
            }
        }
    }
    assert_eq!(killed, 2 * (3 * 8 - 2));
}

/// `is_clean`: whether the process that dies found the mark of a clean stop, and so believed the `list` on disk.
async fn check_kill(number: usize, artifact: Artifact, step: Step, is_clean: bool) -> bool {
    let place = Place::new();
    // Another version is there from before.
    let store = place.open().await;
    let older = module("github.com/Victim/a@v0.9.0");
    let one = victim();
    commit_all(&store, &older).await;
    store.index_completed().await;
    store.close().await;
    if !is_clean {
        fs_err::remove_file(place.layout().clean_mark()).unwrap();
    }

    // Each step of each artifact in both ways.
    let is_synced = (number + step as usize).is_multiple_of(2) == is_clean;
    let way = if is_synced { SYNCED } else { "" };
    let arming = format!("{} {step:?}{way}", artifact.extension());
    let what = format!("{arming}, clean before: {is_clean}");
    let status = child("kill::dies_at_a_step", &place, &arming).wait_with_output().unwrap().status;
    let died = status.signal() == Some(9);
    assert!(died || status.success(), "{what}: {status}");
    // Only the .mod completes the pair that a list needs.
    let is_passed_by = step == Step::ListRenamed && artifact != Artifact::Mod;
    assert_eq!(died, !is_passed_by, "{what}");

    // What a file:// client sees before anybody repairs anything: nothing torn, nothing listed that is not there.
    let published = place.published();
    for each in Artifact::ALL {
        if let Some(bytes) = published.get(&one.escaped_file(each)) {
            assert_eq!(*bytes, body(&one, each), "{what}");
        }
    }
    let list = String::from_utf8_lossy(&published["github.com/!victim/a/@v/list"]);
    if list.contains("RC1") {
        assert!(published.contains_key(&one.escaped_file(Artifact::Info)), "{what}");
        assert!(published.contains_key(&one.escaped_file(Artifact::Mod)), "{what}");
    }

    let store = place.open().await;
    assert_eq!(place.temporaries(), 0, "{what}: leftovers");
    // Asked at once, before the pass over everything had time, too.
    let listed = versions(&store, "github.com/Victim/a").await;
    let is_committed = step as u8 >= Step::SidecarRenamed as u8;
    let committed = if died { number + usize::from(is_committed) } else { 3 };
    assert_eq!(listed.contains(&"v1.0.0-RC1".to_owned()), committed >= 2, "{what}");
    let expected = ["---", "i--", "im-", "imz"][committed];
    assert_eq!(hits(&store, &one).await, expected, "{what}");
    assert_agreement(&place, &store, &[older.clone(), one.clone()]).await;
    // The next commits work, whatever lies there.
    commit_all(&store, &one).await;
    assert_eq!(hits(&store, &one).await, "imz", "{what}");
    assert_agreement(&place, &store, &[older, one]).await;
    store.close().await;
    died
}

/// `ARTIFACT STEP`: rejects an artifact of the stored victim and dies at a step of that.
#[tokio::test]
async fn dies_while_rejecting() {
    let Some(store) = child_store().await else { return };
    let text = std::env::var(STEP).unwrap();
    let (artifact, step) = text.split_once(' ').unwrap();
    let artifact = Artifact::from_extension(artifact).unwrap();
    arm(Step::ALL.into_iter().find(|known| format!("{known:?}") == step));
    store.reject(&victim(), artifact, note(artifact)).await.unwrap();
}

#[tokio::test]
async fn a_kill_while_rejecting_leaves_all_or_a_miss() {
    let mut killed = 0;
    for (artifact, without) in [(Artifact::Mod, "i-z"), (Artifact::Zip, "im-")] {
        for step in Step::ALL {
            let place = Place::new();
            let store = place.open().await;
            let (older, one) = (module("github.com/Victim/a@v0.9.0"), victim());
            commit_all(&store, &older).await;
            commit_all(&store, &one).await;
            store.index_completed().await;
            store.close().await;
            let arming = format!("{} {step:?}", artifact.extension());
            let child = child("kill::dies_while_rejecting", &place, &arming);
            let status = child.wait_with_output().unwrap().status;
            let died = status.signal() == Some(9);
            assert!(died || status.success(), "{arming}: {status}");
            killed += u32::from(died);

            let store = place.open().await;
            let is_rejected = !died || step as u8 >= Step::SidecarRenamed as u8;
            let expected = if is_rejected { without } else { "imz" };
            assert_eq!(hits(&store, &one).await, expected, "{arming}");
            assert_agreement(&place, &store, &[older.clone(), one.clone()]).await;
            if is_rejected {
                let other = b"other bytes".as_slice();
                let record = record(artifact, other);
                commit_as(&store, &one, artifact, other, record).await.unwrap();
                assert_eq!(served(&store, &one, artifact).await.unwrap(), other, "{arming}");
            }
            store.close().await;
        }
    }
    // A rejection has the steps from the synced sidecar on, without a body's; only the .mod is needed for a list.
    assert_eq!(killed, 2 * 5 - 1);
}

const WORKERS: usize = 4;
const ROUNDS: usize = 400;

fn worker_module(worker: usize, round: usize) -> ModuleVersion {
    // Workers share modules, so that they meet in lists and directories.
    module(&format!("example.com/m{}@v1.{round}.{worker}", round % 3))
}

/// Commits for ever, in several tasks, and says what is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commits_until_killed() {
    let Some(store) = child_store().await else { return };
    let mut tasks = JoinSet::new();
    for worker in 0..WORKERS {
        for artifact in Artifact::ALL {
            let store = store.clone();
            tasks.spawn(async move {
                for round in 0..ROUNDS {
                    let one = worker_module(worker, round);
                    commit(&store, &one, artifact).await;
                    println!("done {one} {}", artifact.extension());
                }
            });
        }
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn a_kill_at_any_moment_loses_no_finished_commit() {
    let place = Place::new();
    let mut done = std::collections::BTreeSet::new();
    // The same directory dies again and again.
    for lines in [1, 17, 60, 150] {
        let mut child = child("kill::commits_until_killed", &place, "");
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        // Who was killed may have said more than was read by then.
        while let Some(Ok(line)) = output.next() {
            // The test harness's own words may stand before it on the line.
            if let Some(at) = line.find("done ") {
                let mut words = line[at..].split(' ').skip(1);
                let (one, artifact) = (words.next().unwrap(), words.next());
                if let Some(artifact) = artifact.and_then(Artifact::from_extension) {
                    done.insert((module(one), artifact));
                }
                seen += 1;
                if seen == lines {
                    child.kill().unwrap();
                }
            }
        }
        assert!(seen >= lines, "the child ended early");
        assert_eq!(child.wait().unwrap().signal(), Some(9));

        let store = place.open().await;
        for (one, artifact) in &done {
            let bytes = served(&store, one, *artifact).await;
            assert_eq!(bytes, Some(body(one, *artifact)), "{one}{artifact} was said to be stored");
        }
        let all: Vec<_> = (0..WORKERS)
            .flat_map(|worker| (0..ROUNDS).map(move |round| worker_module(worker, round)))
            .collect();
        assert_agreement(&place, &store, &all).await;
        let fresh = module(&format!("example.com/fresh@v1.0.{lines}"));
        commit(&store, &fresh, Artifact::Zip).await;
        assert_eq!(hits(&store, &fresh).await, "--z");
        // Of the count below, only the workers' modules are known.
        fs_err::remove_dir_all(place.layout().download().join("example.com/fresh")).unwrap();
        drop(store);
        wait_until_free(&place).await;
    }
}

/// A store that is dropped, not closed, gives the directory free when its writer has ended.
pub(super) async fn wait_until_free(place: &Place) {
    let file = fs_err::OpenOptions::new().write(true).open(place.layout().lock()).unwrap();
    tokio::task::spawn_blocking(move || {
        rustix::fs::flock(file.file(), rustix::fs::FlockOperation::LockExclusive).unwrap();
        // Closing is not enough: a child that another test is just starting shares the open file.
        rustix::fs::flock(file.file(), rustix::fs::FlockOperation::Unlock).unwrap();
    })
    .await
    .unwrap();
}
