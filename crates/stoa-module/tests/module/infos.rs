use proptest::prelude::*;
use stoa_module::{ErrorClass, Info, InvalidInfo, Version};

use crate::oracle::{compare, question, sample};

#[test]
fn infos() {
    #[track_caller]
    fn check(body: &str, version: &str, time: Option<&str>) {
        let info = Info::parse(body.as_bytes()).expect(body);
        assert_eq!(info.version.as_str(), version);
        assert_eq!(info.time.map(|time| time.to_string()).as_deref(), time);
    }
    check(
        r#"{"Version":"v1.2.3","Time":"2024-01-02T03:04:05Z"}"#,
        "v1.2.3",
        Some("2024-01-02T03:04:05Z"),
    );
    check(r#"{"Version":"v1.2.3"}"#, "v1.2.3", None);
    check("\n {\"version\" : \"v1.2.3\" , \"TIME\":null}\n", "v1.2.3", None);
    check(r#"{"Version":"v1.0.0","Version":"v1.2.3"}"#, "v1.2.3", None);
    check(r#"{"Version":"v1.2.3","Version":null}"#, "v1.2.3", None);
    check(
        r#"{"Version":"v1.2.3","Time":"2024-01-02T03:04:05.123456789+02:00"}"#,
        "v1.2.3",
        Some("2024-01-02T01:04:05.123456789Z"),
    );
    check(
        r#"{"Version":"v1.2.3","Time":"2024-01-02T03:04:05.1234567899Z"}"#,
        "v1.2.3",
        Some("2024-01-02T03:04:05.123456789Z"),
    );
    check(
        r#"{"Version":"v1.2.3","Time":"2024-01-02T03:04:05Z","Origin":{"VCS":"git","URL":"https://github.com/ex/r","Hash":"a3ab","Ref":"refs/tags/v1.2.3"},"New":[1,{"x":null}]}"#,
        "v1.2.3",
        Some("2024-01-02T03:04:05Z"),
    );
    check(r#"{"Version":"v1.2.3","Origin":null}"#, "v1.2.3", None);
    // The liberties of Go's reader of times.
    check(
        r#"{"Version":"v1.2.3","Time":"2024-01-02T3:04:05,5+24:60"}"#,
        "v1.2.3",
        Some("2024-01-01T02:04:05.5Z"),
    );
    check(
        r#"{"Version":"v1.2.3","Time":"0000-01-01T00:00:00Z"}"#,
        "v1.2.3",
        Some("0000-01-01T00:00:00Z"),
    );
    // The last second that we can hold, for later ones.
    check(
        r#"{"Version":"v1.2.3","Time":"9999-12-31T23:59:59Z"}"#,
        "v1.2.3",
        Some("9999-12-30T22:00:00.999999999Z"),
    );
    // The escapes of JSON, and bytes that are no text.
    check(r#"{"Version":"v1.2.3"}"#, "v1.2.3", None);
    let body = b"{\"Version\":\"v1.2.3\",\"Note\":\"\xff\"}";
    assert_eq!(Info::parse(body).expect("replaced").version.as_str(), "v1.2.3");
}

#[test]
fn refusals() {
    #[track_caller]
    fn check(body: &str, expected: &str) {
        let error = Info::parse(body.as_bytes()).expect_err(body);
        assert_eq!(error.class(), ErrorClass::Corrupt);
        let text = error.to_string();
        assert!(text.starts_with(expected), "{text}");
    }
    let json = "the .info is not the JSON of a version: ";
    for body in [
        "",
        "not found",
        "[]",
        "null",
        "{",
        r#"{"Version":"v1.2.3"} x"#,
        r#"{"Version":1}"#,
        r#"{"Version":"v1.2.3","Time":1}"#,
        r#"{"Version":"v1.2.3","Time":""}"#,
        r#"{"Version":"v1.2.3","Time":"2024-01-02"}"#,
        r#"{"Version":"v1.2.3","Time":"2024-01-02 03:04:05Z"}"#,
        r#"{"Version":"v1.2.3","Time":"2024-01-02T03:04:60Z"}"#,
        r#"{"Version":"v1.2.3","Time":"2024-02-30T03:04:05Z"}"#,
        r#"{"Version":"v1.2.3","Time":"2024-01-02T03:04:05"}"#,
        r#"{"Version":"v1.2.3","Origin":"git"}"#,
        r#"{"Version":"v1.2.3","Origin":{"Hash":7}}"#,
    ] {
        check(body, json);
    }
    check("{}", "the .info names no version");
    check(r#"{"Version":""}"#, "the .info names no version");
    check(
        r#"{"Version":"master"}"#,
        "the .info is malformed: version \"master\" is not a semantic version",
    );
    check(r#"{"Version":"v1"}"#, "the .info is malformed: version \"v1\" is not canonical");
}

#[test]
fn made_from_the_name() {
    #[track_caller]
    fn check(version: &str, expected: &str) {
        let version = Version::parse(version).expect("a version");
        let body = Info::made_from(&version);
        assert_eq!(body, expected);
        assert_eq!(Info::parse(body.as_bytes()).expect("it can be read").version, version);
    }
    check("v1.2.3-RC1", r#"{"Version":"v1.2.3-RC1"}"#);
    check("v2.0.0+incompatible", r#"{"Version":"v2.0.0+incompatible"}"#);
    check(
        "v0.0.0-20240202030405-bbaab31090cb",
        r#"{"Version":"v0.0.0-20240202030405-bbaab31090cb","Time":"2024-02-02T03:04:05Z"}"#,
    );
}

fn info_like() -> impl Strategy<Value = String> {
    let time = prop_oneof![
        6 => "20[0-9]{2}-0[1-9]-[0-2][1-9]T[01][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,10})?(Z|[+-][01][0-9]:[0-5][0-9])",
        4 => "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{0,10})?(Z|[+-][0-2][0-9]:[0-6][0-9])",
        1 => "[0-9TZ:.+, -]{0,20}",
        1 => "2024-02-[0-3][0-9]T[0-9]:[0-5][0-9]:0[0-9][.,]?[0-9]{0,2}(Z|[+-]2[2-5]:[56][0-9])",
        1 => "20[0-9]{2}-0[1-9]-0[1-9]T1[0-9]:[0-5][0-9]:[0-5][0-9](,5)?[zZ]",
    ];
    let time = time.prop_map(|time| format!("{time:?}"));
    let value = prop_oneof![
        4 => "\"v[0-9]\\.[0-9]\\.[0-9]\"",
        4 => time.clone(),
        1 => Just("null".to_owned()),
        1 => Just("{\"Hash\":\"x\"}".to_owned()),
        1 => Just("{\"Hash\":1}".to_owned()),
        1 => Just("[]".to_owned()),
        1 => "-?[0-9]{1,3}",
    ];
    let key = prop_oneof![
        3 => Just("Version"),
        1 => Just("version"),
        3 => Just("Time"),
        1 => Just("tIME"),
        1 => Just("Ver\u{17f}ion"),
        1 => Just("Origin"),
        1 => Just("Other"),
    ];
    let timed = time.clone().prop_map(|time| format!("\"Time\":{time}"));
    let field = (key, value).prop_map(|(key, value)| format!("\"{key}\":{value}"));
    let field = prop_oneof![2 => field, 1 => timed];
    let plain = Just("\"Version\":\"v1.2.3\"".to_owned());
    (plain, prop::collection::vec(field, 0..3), "( |\n|,|x)?").prop_map(|(first, fields, tail)| {
        format!("{{{}}}{tail}", [vec![first], fields].concat().join(","))
    })
}

proptest! {
    #[test]
    fn no_input_panics(body in any::<Vec<u8>>(), like in info_like()) {
        let _ = Info::parse(&body);
        let _ = Info::parse(like.as_bytes());
    }
}

#[test]
fn go_agrees_on_infos() {
    let inputs = sample(info_like(), 6000);
    let timed = inputs.iter().filter_map(|body| Info::parse(body.as_bytes()).ok()?.time).count();
    assert!(timed > 300, "times are among them: {timed}");
    compare(
        &inputs,
        |body| question(["info", body]),
        |body, go| match Info::parse(body.as_bytes()) {
            Err(InvalidInfo::Json(error)) => assert_ne!(go["error"], "", "{body}: {error}"),
            // Go takes any text for a version here, and looks at it later.
            Err(error) => assert_eq!(go["error"], "", "{body}: {error}"),
            Ok(info) => {
                assert_eq!(go["error"], "", "{body}");
                assert_eq!(go["version"], info.version.as_str());
                assert_eq!(
                    go["time"],
                    info.time.map(|t| t.to_string()).unwrap_or_default(),
                    "{body}"
                );
            }
        },
    );
}
