//! go.mod files: what is read means the same when it is written again, and what stands between the lines changes nothing.

use std::fmt::Write as _;
use std::sync::Arc;

use stoa_module::{GoMod, H1, module_line};

pub fn check(data: &[u8]) {
    let read = GoMod::parse_lax(data);
    _ = module_line(data);
    assert_eq!(H1::parse(&H1::of_go_mod(data).to_string()), Ok(H1::of_go_mod(data)));
    bounded(&read, data.len());

    let written = write(&read);
    let again = GoMod::parse_lax(written.as_bytes());
    assert_eq!(lines(&again), lines(&read), "{written}");
    assert_eq!(module_line(written.as_bytes()), read.module, "{written}");

    let Ok(text) = std::str::from_utf8(data) else { return };
    // As a text of Windows.
    if !text.contains('\r') {
        let text = text.replace('\n', "\r\n");
        assert_eq!(GoMod::parse_lax(text.as_bytes()), read);
        assert_eq!(module_line(text.as_bytes()), module_line(data));
    }
    // Comments between the lines are about versions, and not versions.
    let commented: String =
        text.split_inclusive('\n').flat_map(|line| ["\n// x ( \"\n\n", line]).collect();
    assert_eq!(lines(&GoMod::parse_lax(commented.as_bytes())), lines(&read), "{commented}");
}

/// All but the comments.
fn lines(read: &GoMod) -> impl PartialEq + std::fmt::Debug {
    let retract: Vec<_> = read.retract.iter().map(|it| (it.low.clone(), it.high.clone())).collect();
    (read.module.clone(), read.go.clone(), read.toolchain.clone(), read.require.clone(), retract)
}

/// What is kept is not larger than the text by more than the replacement of bytes that are not UTF-8.
fn bounded(read: &GoMod, bytes: usize) {
    let one = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let mut sum = one(&read.module) + one(&read.go) + one(&read.toolchain);
    // A version may have been completed.
    sum += read.require.iter().map(|(path, version)| path.len() + version.len() - 4).sum::<usize>();
    sum += read.retract.iter().map(|it| it.low.len().min(it.high.len())).sum::<usize>();
    assert!(sum <= 3 * bytes, "{sum} of {bytes}");
    // The lines of a block share their comment.
    let mut rationales: Vec<&Arc<str>> = read.retract.iter().map(|it| &it.rationale).collect();
    rationales.dedup_by(|a, b| Arc::ptr_eq(a, b));
    let sum: usize = rationales.iter().map(|text| text.len()).sum();
    assert!(sum + one(&read.deprecated) <= 6 * bytes, "{sum} of {bytes}");
}

fn write(read: &GoMod) -> String {
    let mut text = String::new();
    if let Some(module) = &read.module {
        _ = writeln!(text, "module {}", quote(module));
    }
    if let Some(go) = &read.go {
        _ = writeln!(text, "go {go}");
    }
    if let Some(toolchain) = &read.toolchain {
        _ = writeln!(text, "toolchain {toolchain}");
    }
    text += "require (\n";
    for (path, version) in &read.require {
        _ = writeln!(text, "\t{} {} // indirect", quote(path), quote(version));
    }
    text += ")\n";
    for it in &read.retract {
        _ = writeln!(text, "retract [{}, {}]", quote(&it.low), quote(&it.high));
    }
    text
}

/// Every other character as its number; slashes too, since the quick reader takes two of them for a comment.
fn quote(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || "._-+".contains(c) {
            quoted.push(c);
        } else {
            _ = write!(quoted, "\\U{:08x}", u32::from(c));
        }
    }
    quoted + "\""
}

pub fn seeds() -> Vec<Vec<u8>> {
    crate::texts(&[
        "module ex.com/m\n\ngo 1.24.1\n\ntoolchain go1.24.3\n\nrequire ex.com/a v1.2.3 // indirect\n",
        "// Deprecated: use ex.com/n\n// instead.\nmodule \"ex.com/m\"\nrequire (\n\t`ex.com/a` v1.2\n\tex.com/b v2.0.0+incompatible\n)\n",
        "module (\n\tex.com/m\n)\nretract (\n\t// bad\n\tv1.0.0\n\n\t[v1.1.0, v1.2.0] // worse\n)\nretract v0.1.0\n",
        "module \"ex.com/\\x6d\\u00e9\\U0001f600\\n\\101\" // x\ngo v1.24-x\nexclude ex.com/a v1.0.0\nreplace a => ./b\n",
        "module\tex.com/m\r\nuse (\r\n\t.\r\n)\r\nrequire ex.com/a v0.0.0-20240202030405-bbaab31090cb\r\n",
    ])
}
