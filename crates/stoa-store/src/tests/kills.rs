//! Two hundred kills, one after the other: at every step of a commit and of a flush, and at any time.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
};

use tokio::task::JoinSet;

use super::{
    kill::{DIR, STEP, child, wait_until_free},
    *,
};
use crate::killpoint::{Step, arm_later};

const KILLS: usize = 200;
/// On one directory; then it is looked at as a whole, and another one is taken.
const EACH: usize = 20;
const WORKERS: usize = 3;
/// Versions of each worker: nobody commits for ever.
const ROUNDS: usize = 40;

/// What the process of one kill commits.
fn versions_of(kill: usize) -> Vec<ModuleVersion> {
    let each = |round: usize| {
        (0..WORKERS).map(move |worker| {
            module(&format!("example.com/m{}@v1.{kill}.{}", round % 3, round * WORKERS + worker))
        })
    };
    (0..ROUNDS).flat_map(each).collect()
}

/// `KILL STEP TIMES`: commits, and flushes all the while, until it has passed the step so often; a dash is no step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_and_flushes_until_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let text = std::env::var(STEP).unwrap();
    let words: Vec<_> = text.split(' ').collect();
    let flush_interval = Duration::from_millis(4);
    let store = Store::open(Options { flush_interval, ..Options::new(dir) }).await.unwrap();
    let step = Step::ALL.into_iter().chain(Step::FLUSH).find(|one| format!("{one:?}") == words[1]);
    if let Some(step) = step {
        arm_later(step, words[2].parse().unwrap());
    }
    let all = versions_of(words[0].parse().unwrap());
    let mut tasks = JoinSet::new();
    for worker in 0..WORKERS {
        let (store, all) = (store.clone(), all.clone());
        tasks.spawn(async move {
            for one in all.iter().skip(worker).step_by(WORKERS) {
                for artifact in Artifact::ALL {
                    commit(&store, one, artifact).await;
                    println!("done {one} {}", artifact.extension());
                }
            }
        });
    }
    tasks.join_all().await;
    // Of a step of a flush some are still to come.
    loop {
        commit(&store, &all[0], Artifact::Info).await;
        let answered = store.flush().await;
        answered.unwrap();
    }
}

#[tokio::test]
async fn two_hundred_kills() {
    let steps: Vec<_> = Step::ALL.into_iter().chain(Step::FLUSH).collect();
    let mut at_steps = BTreeSet::new();
    for first in (0..KILLS).step_by(EACH) {
        let place = Place::in_memory();
        let mut all = Vec::new();
        for kill in first..first + EACH {
            let at_step = kill % 3 != 2;
            let arming = if at_step {
                let step = steps[(kill - kill / 3) % steps.len()];
                at_steps.insert(format!("{step:?}"));
                // A flush passes by less often than a commit.
                let times = if Step::FLUSH.contains(&step) { 1 + kill % 3 } else { 1 + kill % 17 };
                format!("{kill} {step:?} {times}")
            } else {
                format!("{kill} - 0")
            };
            let done = run_until_killed(&place, &arming, (!at_step).then_some(1 + kill * 7 % 60));
            let versions = versions_of(kill);
            check(&place, &arming, &done, &versions, kill % 2 == 0).await;
            all.extend(versions);
        }
        let store = place.open().await;
        assert_agreement(&place, &store, &all).await;
    }
    assert_eq!(at_steps.len(), steps.len(), "{at_steps:?}");
}

/// Gives what was said to be done. `lines`: kills it from here after so many.
fn run_until_killed(
    place: &Place,
    arming: &str,
    lines: Option<usize>,
) -> BTreeSet<(ModuleVersion, Artifact)> {
    let mut child = child("kills::commits_and_flushes_until_killed", place, arming);
    let output = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut done = BTreeSet::new();
    for line in output.map_while(Result::ok) {
        // The test harness's own words may stand before it on the line.
        let Some(at) = line.find("done ") else { continue };
        let mut words = line[at..].split(' ').skip(1);
        // A line may be torn, too.
        let one = words.next().and_then(|one| ModuleVersion::parse(one).ok());
        let artifact = words.next().and_then(Artifact::from_extension);
        done.extend(one.zip(artifact));
        if lines.is_some_and(|lines| done.len() >= lines) {
            child.kill().unwrap();
        }
    }
    assert_eq!(child.wait().unwrap().signal(), Some(9), "{arming}");
    done
}

async fn check(
    place: &Place,
    arming: &str,
    done: &BTreeSet<(ModuleVersion, Artifact)>,
    versions: &[ModuleVersion],
    stops_cleanly: bool,
) {
    let store = place.open().await;
    assert_eq!(place.temporaries(), 0, "{arming}: leftovers");
    for (one, artifact) in done {
        let bytes = served(&store, one, *artifact).await;
        assert_eq!(bytes, Some(body(one, *artifact)), "{arming}: {one}{artifact} was done");
    }
    // First bytes win, whatever the process died of.
    if let Some((one, artifact)) = done.iter().find(|(_, artifact)| *artifact != Artifact::Info) {
        let other = record(*artifact, b"other");
        let refused = commit_as(&store, one, *artifact, b"other", other).await;
        assert!(matches!(refused, Err(Error::Conflict { .. })), "{arming}");
    }
    // Nothing of the others is torn either, and it is a hit if it has an entry.
    for one in versions {
        let sidecar = store.sidecar(one).await.unwrap();
        for artifact in Artifact::ALL {
            let is_recorded = sidecar.as_ref().is_some_and(|it| it.of(artifact).is_some());
            let bytes = served(&store, one, artifact).await;
            assert_eq!(bytes.is_some(), is_recorded, "{arming}: {one}{artifact}");
        }
    }
    if stops_cleanly {
        store.close().await;
    } else {
        drop(store);
        wait_until_free(place).await;
    }
}
