//! Answers that are given again as they are: the same as the patient way's, and no longer than they hold.

use stoa_testkit::{FakeSumdb, FakeUpstream, Modules};

use crate::fixtures::{BASE, Reply, World, brief, noise};
use crate::stoa::{Setup, Stoa};

/// What every client sees, without what differs from answer to answer.
fn seen(reply: &Reply) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let headers = reply.headers.iter();
    let mut headers: Vec<_> = headers
        .filter(|(name, _)| !matches!(name.as_str(), "x-request-id" | "date" | "server-timing"))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    (reply.status.as_u16(), headers, reply.body.clone())
}

fn accesses(stoa: &Stoa, outcome: &str) -> usize {
    stoa.log().lines().filter(|line| line.contains("access") && line.contains(outcome)).count()
}

#[tokio::test]
async fn they_are_what_was_answered_before() {
    let world = World::new();
    let stoa = world.setup().start();
    let lookup = format!("sumdb/sum.test.example/lookup/{}", BASE.replace("/@v/", "@"));
    let tile = "sumdb/sum.test.example/tile/8/0/000".to_owned();
    let files = ["info", "mod", "zip"].map(|extension| format!("{BASE}.{extension}"));
    for path in files.into_iter().chain([lookup, tile]) {
        let first = stoa.get(&path).await;
        assert_eq!(first.status, 200, "{path}: {}", first.text());
        // The small files of a zip come behind it, and until then it is looked at anew.
        for _ in 0..20 {
            let again = stoa.get(&path).await;
            assert_eq!(seen(&again), seen(&first), "{path}");
        }
        let id = first.header("x-request-id");
        assert!(!id.is_empty() && id != stoa.get(&path).await.header("x-request-id"), "{id}");
        let given = stoa.get_with(&path, &[("x-request-id", "mine-1")]).await;
        assert_eq!(given.header("x-request-id"), "mine-1");
        // What asks for more than the document.
        let etag = first.header("etag").to_owned();
        let unchanged = stoa.get_with(&path, &[("if-none-match", &etag)]).await;
        assert_eq!((unchanged.status.as_u16(), unchanged.body.len()), (304, 0), "{path}");
        let part = stoa.get_with(&path, &[("range", "bytes=1-3")]).await;
        assert_eq!((part.status.as_u16(), &part.body[..]), (206, &first.body[1..4]), "{path}");
        let head = stoa.head(&path).await;
        assert_eq!(head.header("content-length"), first.body.len().to_string(), "{path}");
        assert!(head.body.is_empty());
    }
    assert!(accesses(&stoa, r#"outcome="hit""#) > 90, "{}", stoa.log());
    assert!(stoa.get(&format!("{BASE}.zip?x=y")).await.status.is_success());
}

#[tokio::test]
async fn a_file_that_is_gone_or_has_another_size_is_fetched_again() {
    let world = World::new();
    let setup = world.setup();
    let stoa = setup.start();
    let path = format!("{BASE}.zip");
    let whole = stoa.get(&path).await.ok();
    for _ in 0..5 {
        assert!(stoa.get(&path).await.ok() == whole);
    }
    let file = setup.data_dir().join("cache/download").join(&path);
    for harm in ["removed", "cut", "lengthened"] {
        match harm {
            "removed" => fs_err::remove_file(&file).unwrap(),
            "cut" => fs_err::write(&file, &whole[..whole.len() - 1]).unwrap(),
            _ => fs_err::write(&file, [&whole[..], b"x"].concat()).unwrap(),
        }
        let asked = world.upstream.count(format!("/{path}"));
        for _ in 0..3 {
            assert!(stoa.get(&path).await.ok() == whole, "{harm}");
        }
        assert_eq!(world.upstream.count(format!("/{path}")), asked + 1, "{harm}");
    }
}

/// More than a socket takes at once, and more than one stand-in.
#[tokio::test]
async fn a_large_file_goes_out_whole_to_many_at_once() {
    let files = [("go.mod", b"module ex.com/large\n".to_vec()), ("noise", noise(5 << 20))];
    let modules = Modules::default().with("ex.com/large@v1.0.0", files);
    let sumdb = FakeSumdb::new("sum.test.example", &modules);
    let upstream = FakeUpstream::start(modules).with_sumdb(&sumdb);
    let setup = brief(Setup::new()).goproxy(upstream.url()).gosumdb(sumdb.verifier_key());
    let stoa = std::sync::Arc::new(setup.start());
    let path = "ex.com/large/@v/v1.0.0.zip";
    let whole = stoa.get(path).await.ok();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (stoa, whole) = (std::sync::Arc::clone(&stoa), whole.clone());
        clients.spawn(async move {
            // One connection for all of them, as the go command has it.
            let client = crate::fixtures::client();
            for turn in 0..6 {
                let small = turn % 2 == 1;
                let url = format!(
                    "{}/{}",
                    stoa.url,
                    if small { "ex.com/large/@v/v1.0.0.mod" } else { path }
                );
                let reply = stoa.send(client.get(url)).await.ok();
                assert!(small || reply == whole);
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
}
