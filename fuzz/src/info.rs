//! `.info` files: read as a plain reader of JSON would, where that is allowed to be plain.

use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::Value;
use stoa_module::{ErrorClass, Info, Origin, RevisionInfo, Version};

pub fn check(data: &[u8]) {
    let read = Info::parse(data);
    if let Some(plain) = plainly(data) {
        let got = read.as_ref().map(|info| info.version.to_string()).map_err(drop);
        assert_eq!(got, plain, "{read:?}");
    }
    let info = match read {
        Ok(info) => info,
        Err(error) => {
            assert_eq!(error.class(), ErrorClass::Corrupt);
            return;
        }
    };
    assert_eq!(Version::parse(info.version.as_str()).as_ref(), Ok(&info.version));
    let made = Info::parse(Info::made_from(&info.version).as_bytes()).expect("ours is one");
    assert_eq!(made.version, info.version);
    assert_eq!(made.time, info.version.pseudo().map(|pseudo| pseudo.time));
    // As direct mode writes it, to the second.
    let Some(time) = info.time.and_then(|time| Timestamp::from_second(time.as_second()).ok())
    else {
        return;
    };
    let revision = RevisionInfo {
        version: info.version.to_string(),
        time,
        origin: Origin {
            vcs: "git",
            url: String::from_utf8_lossy(data).into_owned(),
            ..Origin::default()
        },
    };
    let again = Info::parse(revision.to_json().as_bytes()).expect("ours is one");
    // What lies before the year 0 or behind 9999 has no text of this form.
    assert_eq!(again.version, info.version);
    assert_eq!(again.time, Some(time));
}

/// The version by another reader; `None` where the rules are Go's own, and an error for what is refused.
fn plainly(data: &[u8]) -> Option<Result<String, ()>> {
    let text = std::str::from_utf8(data).ok()?;
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Some(Err(()));
    }
    // It minds the numbers and halves of characters that are in fields which nobody asks for.
    let value = serde_json::from_str::<Value>(text).ok()?;
    let Value::Object(fields) = value else { return Some(Err(())) };
    // Other cases and repeated names are for Go's rules; the reader here has the last.
    let plain = |name: &str| !name.is_ascii() || matches!(name, "Version" | "X");
    if !fields.keys().all(|name| plain(name) && name.is_ascii())
        || text.matches("ersion").count() != 1
    {
        return None;
    }
    let Some(Value::String(version)) = fields.get("Version") else { return Some(Err(())) };
    Some(Version::parse(version).map(|version| version.to_string()).map_err(drop))
}

pub fn seeds() -> Vec<Vec<u8>> {
    crate::texts(&[
        r#"{"Version":"v1.2.3","Time":"2024-02-02T03:04:05Z"}"#,
        r#"{"version":"v0.0.0-20240202030405-bbaab31090cb","TIME":"2024-02-02T3:04:05,5+24:60","Origin":{"VCS":"git","URL":"https://x","Hash":null}}"#,
        r#"{"Version":"v1.0.0\u002drc","Name":"x","Short":[1,{"a":null}],"Version":"v2.0.0"}"#,
        r#"{"Version":"v1.0.0","Time":null}"#,
        r#"{"X":[1e3,true],"Version":"v1.0.0"}"#,
        r#"{"Version":"v1.0.0","Time":"9999-12-31T23:59:59-24:00"}"#,
    ])
}
