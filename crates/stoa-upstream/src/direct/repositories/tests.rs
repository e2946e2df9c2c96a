use super::*;
use crate::direct::tests::Access;

/// Some refs, whose names have some bytes each.
fn refs(count: usize, name: usize) -> Arc<Refs> {
    let mut listing = refs::Listing::new(count);
    let (hash, name) = ("a3ab0831a0ed9ce3aa2155c5c30627b07f94166a", "x".repeat(name));
    for at in 0..count {
        listing.take(format!("{hash}\trefs/tags/{at}{name}\n").as_bytes()).unwrap();
    }
    Arc::new(listing.finish())
}

#[test]
fn what_is_idle_has_a_bound() {
    let directory = tempfile::tempdir().unwrap();
    let settings = GitSettings { max_idle: 4, ..GitSettings::default() };
    let mut repositories = Repositories::new(directory.path(), settings, []).unwrap();
    Arc::get_mut(&mut repositories.inner).unwrap().idle_bytes = 10_000;
    let open = |name: &str, last: Option<Arc<Refs>>, complete: Option<Arc<Refs>>| {
        let (url, root) = (format!("https://{name}"), name.to_owned());
        let code = CodeRoot { url, root, subdir: String::new() };
        let repository = repositories.open(&code, Arc::new(Access::default())).unwrap();
        lock(&repository.remote.listed).last = last.map(|refs| (Instant::now(), Ok(refs)));
        *lock(&repository.remote.complete) = complete;
        repository
    };
    let known = || {
        let remotes = lock(&repositories.inner.remotes);
        let mut known: Vec<_> =
            remotes.values().map(|remote| remote.url["https://".len()..].to_owned()).collect();
        known.sort();
        known.concat()
    };
    // In use, it is no idle one, and counts for none.
    let used = open("a", Some(refs(10, 5_000)), None);
    for (name, last, complete) in
        [("b", Some(refs(1, 100)), None), ("c", Some(refs(10, 500)), None), ("d", None, None)]
    {
        drop(open(name, last, complete));
    }
    assert_eq!(known(), "abcd");
    // One list twice is one.
    let list = refs(10, 300);
    drop(open("e", Some(list.clone()), Some(list)));
    assert_eq!(known(), "abcde");
    // `c` has 5,000 bytes of names, and `e` 3,000; `b` is older than `c`.
    drop(open("f", Some(refs(1, 1_000)), Some(refs(1, 1_000))));
    assert_eq!(known(), "abcdef");
    drop(open("g", None, None));
    assert_eq!(known(), "adefg");
    // Too many, though small.
    drop(open("h", None, None));
    drop(open("i", None, None));
    assert_eq!(known(), "aefghi");
    drop(used);
    drop(open("j", None, None));
    assert_eq!(known(), "fghij");
}
