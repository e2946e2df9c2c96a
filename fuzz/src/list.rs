//! Lists of versions: sorted, each once, only what stands in the body and belongs to the path.

use stoa_module::{ModulePath, ModuleVersion, Version, latest_of, parse_list, render_list};

const PATHS: [&str; 5] =
    ["ex.com/m", "ex.com/m/v2", "gopkg.in/yaml.v3", "gopkg.in/a.v1", "gopkg.in/b.v2-unstable"];

/// The first byte chooses the path; the rest is a body.
pub fn check(data: &[u8]) {
    let Some((&which, body)) = data.split_first() else { return };
    let path = ModulePath::parse(PATHS[usize::from(which) % PATHS.len()]).expect("a path");
    let listed = parse_list(body, &path);
    assert!(listed.is_sorted_by(|a, b| a.version < b.version), "{listed:?}");
    let versions: Vec<Version> = listed.iter().map(|it| it.version.clone()).collect();
    let text = String::from_utf8_lossy(body);
    let words: Vec<&str> =
        text.split('\n').filter_map(|line| line.split_whitespace().next()).collect();
    for version in &versions {
        assert!(words.contains(&version.as_str()), "{version}");
        assert!(ModuleVersion::new(path.clone(), version.clone()).is_ok());
    }
    // And nothing that belongs to it is left out.
    for word in words {
        let fits = Version::parse(word)
            .ok()
            .filter(|v| ModuleVersion::new(path.clone(), v.clone()).is_ok());
        assert!(fits.is_none_or(|version| versions.contains(&version)), "{word}");
    }

    let rendered = render_list(&versions);
    let again: Vec<_> =
        parse_list(rendered.as_bytes(), &path).into_iter().map(|it| it.version).collect();
    assert_eq!(again, versions);
    let mut lines: Vec<&[u8]> = body.split(|&byte| byte == b'\n').collect();
    lines.reverse();
    let turned: Vec<_> =
        parse_list(&lines.join(&b'\n'), &path).into_iter().map(|it| it.version).collect();
    assert_eq!(turned, versions);

    let latest = latest_of(&versions);
    assert_eq!(latest_of(versions.iter().rev()), latest);
    assert_eq!(latest.is_none(), versions.is_empty());
    let releases = versions.iter().filter(|version| !version.is_prerelease());
    if let Some(release) = releases.max() {
        assert_eq!(latest, Some(release));
    } else if let Some(tagged) = versions.iter().filter(|version| !version.is_pseudo()).max() {
        assert_eq!(latest, Some(tagged));
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    [
        "v1.0.0\nv1.1.0\nv0.0.0-20240202030405-bbaab31090cb\n",
        "v1.0.0-rc.1 2024-02-02T03:04:05Z\r\nv1.0.0 2024-02-03T03:04:05.5+02:00\n\n v2.0.0+incompatible\n",
        "v0.9.0\nv0.10.0\nnonsense\nv1\nv1.2.3+meta\nv1.0.0\nv1.0.0\n",
    ]
    .iter()
    .flat_map(|text| (0..5_u8).map(move |path| [&[path], text.as_bytes()].concat()))
    .chain([b"\x01v2.0.0\nv2.1.0-0.20240202030405-bbaab31090cb\n".to_vec()])
    .collect()
}
