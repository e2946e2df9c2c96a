use super::*;
use crate::direct::refs::Listing;

const A: &str = "a3ab0831a0ed9ce3aa2155c5c30627b07f94166a";

fn place(path: &str, root: &str, subdirectory: &str) -> Result<Place, String> {
    Place::new(&ModulePath::parse(path).unwrap(), root, subdirectory)
}

fn refs(tags: &[&str]) -> Refs {
    let mut listing = Listing::new(100);
    for tag in tags {
        listing.take(format!("{A}\trefs/tags/{tag}\n").as_bytes()).unwrap();
    }
    listing.finish()
}

#[test]
fn places() {
    let check = |path, root, subdirectory, directory: &str, files: &[&str], pseudo: &str| {
        let place = place(path, root, subdirectory).unwrap();
        assert_eq!(place.directory, directory, "{path}");
        assert_eq!(place.go_mod_files(), files, "{path}");
        assert_eq!(place.pseudo_tag_prefix(), pseudo, "{path}");
    };
    check("ex.com/r", "ex.com/r", "", "", &["go.mod"], "");
    check("ex.com/r/v2", "ex.com/r", "", "", &["go.mod", "v2/go.mod"], "v2.");
    check("ex.com/r/v2", "ex.com/r/v2", "", "", &["go.mod"], "v2.");
    check("ex.com/r/a/b", "ex.com/r", "", "a/b", &["a/b/go.mod"], "a/b/");
    check("ex.com/r/a/v3", "ex.com/r", "", "a", &["a/go.mod", "a/v3/go.mod"], "a/v3.");
    check("gopkg.in/r.v2", "gopkg.in/r.v2", "", "", &["go.mod"], "v2.");
    check("ex.com/d", "ex.com/d", "sub/dir", "sub/dir", &["sub/dir/go.mod"], "sub/dir/");
    check("ex.com/d/v2", "ex.com/d", "s", "s", &["s/go.mod", "s/v2/go.mod"], "s/v2.");
    check("ex.com/d/x", "ex.com/d", "./s//t/.", "x/s/t", &["x/s/t/go.mod"], "x/s/t/");
    // A repository that is called v123 is one of major version 123.
    check("github.com/ex/v123", "github.com/ex/v123", "", "", &["go.mod"], "v123.");
    for (path, root, subdirectory) in [
        ("ex.com/rr", "ex.com/r", ""),
        ("ex.com/r", "ex.com/r/x", ""),
        ("ex.com/r/v2", "ex.com/r/v", ""),
        ("ex.com/r", "ex.com/r", "../x"),
    ] {
        assert!(place(path, root, subdirectory).is_err(), "{path} in {root} {subdirectory}");
    }
}

#[test]
fn where_a_module_is() {
    let check =
        |path: &str, plain: Option<&str>, major: Option<&str>, expected: Result<&str, &str>| {
            let place = place(path, "ex.com/r", "").unwrap();
            let go_mods =
                GoMods { plain: plain.map(str::as_bytes), major: major.map(str::as_bytes) };
            match (place.find(go_mods, "rev"), expected) {
                (Ok(found), Ok(expected)) => {
                    assert_eq!(found.directory, expected, "{path} {plain:?} {major:?}");
                }
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
                (found, _) => panic!("{path} {plain:?} {major:?}: {found:?}"),
            }
        };
    let (v0, v2) = ("module ex.com/r\n", "module ex.com/r/v2\n");
    check("ex.com/r", None, None, Ok(""));
    check("ex.com/r", Some(v0), None, Ok(""));
    check("ex.com/r", Some("module elsewhere.com/x\n"), None, Ok(""));
    check("ex.com/r", Some("module gopkg.in/x.v3\n"), None, Ok(""));
    check("ex.com/r", Some("module gopkg.in/x.v1\n"), None, Ok(""));
    check("ex.com/r", Some(v2), None, Err("is for another major version"));
    check("ex.com/r", Some("// nothing\n"), None, Err("has no module path at"));
    check("ex.com/r/s", None, None, Err("there is no ex.com/r/s/go.mod"));
    check("ex.com/r/s", Some(v0), None, Ok("s"));
    check(
        "ex.com/r/v2",
        None,
        None,
        Err("there is neither ex.com/r/go.mod nor one in its directory v2"),
    );
    check("ex.com/r/v2", Some(v0), None, Err("does not end in /v2, and there is no v2/go.mod, at"));
    check("ex.com/r/v2", Some(v2), None, Ok(""));
    check("ex.com/r/v2", None, Some(v2), Ok("v2"));
    check("ex.com/r/v2", Some(v0), Some(v2), Ok("v2"));
    check("ex.com/r/v2", Some(v2), Some(v2), Err("both have .../v2"));
    check("ex.com/r/v2", Some(v2), Some(v0), Err("v2/go.mod has the module path"));
    check("ex.com/r/v2", Some("module gopkg.in/x.v2-unstable\n"), None, Err("does not end in /v2"));
    check("ex.com/r/v2", Some("module gopkg.in/x.v2\n"), None, Ok(""));
}

#[test]
fn tags_as_versions() {
    let tags = [
        "v0.1.0",
        "v1.0.0",
        "v1.0.0+meta",
        "v1.1",
        "v1.2.0-rc.1",
        "v2.0.0",
        "v2.1.0",
        "v3.0.0",
        "v2.0.0+incompatible",
        "v10.0.0",
        "s/v1.0.0",
        "s/v2.0.0",
        "v1.0.1-0.20240101000000-abcdefabcdef",
        "release",
    ];
    let check = |path: &str, root: &str, fitting: &[&str], higher: &[&str]| {
        let tagged = place(path, root, "").unwrap().tagged(&refs(&tags));
        let text = |list: &[Version]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(&tagged.fitting), fitting, "{path}");
        assert_eq!(text(&tagged.higher), higher, "{path}");
    };
    check(
        "ex.com/r",
        "ex.com/r",
        &["v0.1.0", "v1.0.0", "v1.2.0-rc.1"],
        &["v2.0.0", "v2.1.0", "v3.0.0", "v10.0.0"],
    );
    check("ex.com/r/v2", "ex.com/r", &["v2.0.0", "v2.1.0"], &[]);
    check("ex.com/r/s", "ex.com/r", &["v1.0.0"], &[]);
    check("ex.com/r/s/v2", "ex.com/r", &["v2.0.0"], &[]);
    check("gopkg.in/r.v2", "gopkg.in/r.v2", &["v2.0.0", "v2.1.0"], &[]);
    check("gopkg.in/r.v2-unstable", "gopkg.in/r.v2-unstable", &[], &[]);

    let tagged = place("ex.com/r", "ex.com/r", "").unwrap().tagged(&refs(&tags));
    assert_eq!(tagged.retracting().unwrap().as_str(), "v1.0.0");
    let highest: Vec<_> = tagged.highest_of_majors().into_iter().cloned().collect();
    assert_eq!(
        highest.iter().map(Version::as_str).collect::<Vec<_>>(),
        ["v2.1.0", "v3.0.0", "v10.0.0"]
    );
    let all = tagged.with_incompatible(&[&highest[0], &highest[2]]);
    let all: Vec<_> = all.iter().map(Version::as_str).collect();
    assert_eq!(
        all,
        [
            "v0.1.0",
            "v1.0.0",
            "v1.2.0-rc.1",
            "v2.0.0+incompatible",
            "v2.1.0+incompatible",
            "v10.0.0+incompatible"
        ]
    );
}

#[test]
fn bases_by_rank() {
    let id = |text: &str| ObjectId::parse(text).unwrap();
    let b = "bbaab31090cb8dc2c1b991f377bd260450f5e054";
    let list = [("v1.0.0", A), ("v1.10.0", b), ("v1.2.0", A), ("v1.2.0-rc1", b)];
    let bases =
        Bases::new(list.iter().map(|(version, at)| ((*version).to_owned(), id(at))).collect());
    assert_eq!(bases.ranks(), [(id(b), 0), (id(A), 1)].into());
    assert_eq!(bases.version(0), Some("v1.10.0"));
    assert_eq!(bases.version(1), Some("v1.2.0"));
}
