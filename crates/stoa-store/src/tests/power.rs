//! What a power cut can leave, made by hand: names that never reached the disk, and bytes of files that are not synced.

use super::*;

/// What was done to the disk, and what is a hit after it.
#[tokio::test]
async fn what_a_power_cut_leaves_is_found_and_healed() {
    async fn check(what: &str, cut: impl Fn(&Layout, &ModuleVersion), expected: &str) {
        let place = Place::new();
        let (a, b) = (module("example.com/a@v1.0.0"), module("example.com/a@v1.1.0"));
        let store = place.open().await;
        commit_all(&store, &a).await;
        commit_all(&store, &b).await;
        // A store that is closed before leaves no mark.
        store.index_completed().await;
        store.close().await;
        cut(&place.layout(), &a);
        fs_err::remove_file(place.layout().clean_mark()).unwrap();

        let store = place.open().await;
        assert_eq!(hits(&store, &a).await, expected, "{what}");
        assert_eq!(hits(&store, &b).await, "imz", "{what}");
        let listed = versions(&store, "example.com/a").await;
        assert_eq!(listed.contains(&"v1.0.0".to_owned()), expected.starts_with("im"), "{what}");
        // What the sidecar says is counted, whether or not the file is there; everything else agrees.
        store.index_completed().await;
        commit_all(&store, &a).await;
        assert_eq!(hits(&store, &a).await, "imz", "{what}");
        assert_agreement(&place, &store, &[a, b]).await;
    }
    let files = |layout: &Layout, module: &ModuleVersion| layout.version(module).unwrap();
    let remove = |path: PathBuf| fs_err::remove_file(path).unwrap();
    let write = |path: PathBuf, text: &str| fs_err::write(path, text).unwrap();

    check("nothing", |_, _| (), "imz").await;
    check("no sidecar", |l, m| remove(files(l, m).sidecar()), "---").await;
    check("no .mod", |l, m| remove(files(l, m).artifact(Artifact::Mod)), "i-z").await;
    check("no .zip", |l, m| remove(files(l, m).artifact(Artifact::Zip)), "im-").await;
    check("an empty .zip", |l, m| write(files(l, m).artifact(Artifact::Zip), ""), "im-").await;
    check("no .ziphash", |l, m| remove(files(l, m).zip_hash()), "imz").await;
    check("an empty .ziphash", |l, m| write(files(l, m).zip_hash(), ""), "imz").await;
    check("no list", |l, m| remove(l.list(m.path()).unwrap()), "imz").await;
    check("an empty list", |l, m| write(l.list(m.path()).unwrap(), ""), "imz").await;
    let zeros = |l: &Layout, m: &ModuleVersion| write(l.list(m.path()).unwrap(), "\0\0\0\0\0\0\0");
    check("a list of zeros", zeros, "imz").await;
    let more = |l: &Layout, m: &ModuleVersion| {
        write(l.list(m.path()).unwrap(), "v1.0.0\nv1.1.0\nv1.2.0\n");
    };
    check("a list of more than there is", more, "imz").await;
    check("an older list", |l, m| write(l.list(m.path()).unwrap(), "v1.1.0\n"), "imz").await;
    check("a torn sidecar", |l, m| write(files(l, m).sidecar(), "{\"stoa\":1,\"mo"), "---").await;
    let older = |l: &Layout, m: &ModuleVersion| {
        let text = fs_err::read(files(l, m).sidecar()).unwrap();
        let mut sidecar: Sidecar = serde_json::from_slice(&text).unwrap();
        sidecar.set(Artifact::Zip, None);
        fs_err::write(files(l, m).sidecar(), serde_json::to_vec(&sidecar).unwrap()).unwrap();
        remove(files(l, m).zip_hash());
    };
    check("an older sidecar", older, "im-").await;
    let module_gone = |l: &Layout, m: &ModuleVersion| {
        for path in [files(l, m).sidecar(), files(l, m).artifact(Artifact::Info)] {
            remove(path);
        }
    };
    check("half a version", module_gone, "---").await;
}
