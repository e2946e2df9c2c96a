//! The guard against a chain that leads back here.
//!
//! Every request carries `Via`: the entries it came in with, then `1.1 stoa-<instance id>`. A request that comes in
//! with our own entry has been here before, however many other proxies lie between.

use http::HeaderValue;

/// This server's own entry.
pub(crate) fn entry(instance_id: &str) -> String {
    format!("1.1 stoa-{instance_id}")
}

/// Whether a request with this `Via` value has passed through the instance before. Several `Via` lines are to be
/// joined by commas (RFC 9110, 7.6.3).
pub fn leads_back(via_header: &str, instance_id: &str) -> bool {
    via_header.split(',').any(|entry| {
        let received_by = entry.split_ascii_whitespace().nth(1);
        received_by.and_then(|name| name.strip_prefix("stoa-")) == Some(instance_id)
    })
}

/// The value to send: what came in, less what cannot stand in a header, and our own entry.
pub(crate) fn forward(inbound: &str, own: &str) -> HeaderValue {
    let printable = |entry: &&str| {
        !entry.is_empty()
            && entry.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
    };
    let mut entries: Vec<&str> = inbound.split(',').map(str::trim).filter(printable).collect();
    entries.push(own);
    HeaderValue::from_str(&entries.join(", ")).unwrap_or(HeaderValue::from_static("1.1 stoa"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_own_entry() {
        let check = |via: &str, expected| assert_eq!(leads_back(via, "a1b2"), expected, "{via:?}");
        check("", false);
        check("1.1 stoa-a1b2", true);
        check("HTTP/2 stoa-a1b2", true);
        check("1.1 other, 1.1 stoa-a1b2 (a comment)", true);
        check("1.1 other,1.1\tstoa-a1b2 , 2 third", true);
        check("1.1 stoa-a1b", false);
        check("1.1 stoa-a1b2c", false);
        check("1.1 a1b2", false);
        check("stoa-a1b2", false);
        check(", ,,", false);
    }

    #[test]
    fn what_is_sent_is_recognised() {
        let check = |inbound: &str, expected: &str| {
            let sent = forward(inbound, &entry("a1b2"));
            assert_eq!(sent.to_str().unwrap(), expected, "{inbound:?}");
            assert!(leads_back(sent.to_str().unwrap(), "a1b2"));
        };
        check("", "1.1 stoa-a1b2");
        check("1.1 one", "1.1 one, 1.1 stoa-a1b2");
        check(" 1.1 one ,, 2 two ", "1.1 one, 2 two, 1.1 stoa-a1b2");
        check("1.1 one, 1.1 \u{7}bell, 1.1 \u{e9}", "1.1 one, 1.1 stoa-a1b2");
        check("1.1 stoa-other", "1.1 stoa-other, 1.1 stoa-a1b2");
    }
}
