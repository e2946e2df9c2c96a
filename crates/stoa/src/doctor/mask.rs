//! Values as they may be shown: without credentials, printable, and not without end.

const HIDDEN: &str = "***";
/// How an address begins whose login is hidden.
pub(super) const LOGIN: &str = "://***@";
const MAX_CHARS: usize = 300;

/// A list of addresses and words, as GOPROXY, GOSUMDB and `HTTP_PROXY` hold, with what may be a secret hidden.
pub(super) fn mask(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let is_separator = |c: char| matches!(c, ',' | '|') || c.is_whitespace();
    for part in text.split_inclusive(is_separator) {
        let item = part.trim_end_matches(is_separator);
        shown.push_str(&mask_item(item));
        shown.push_str(&part[item.len()..]);
    }
    shown
}

fn mask_item(item: &str) -> String {
    let start = item.find("//").map_or(0, |at| at + 2);
    let (scheme, rest) = item.split_at(start);
    // The query of such an address is often a token.
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) => (rest, "?***"),
        None => (rest, ""),
    };
    if let Some(at) = rest.rfind('@') {
        return format!("{scheme}{HIDDEN}{}{query}", &rest[at..]);
    }
    // What stands for a port may be a password whose end was cut off with its separator.
    let authority = rest.split(['/', '#']).next().unwrap_or(rest);
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains('[') && !is_port(port) => {
            format!("{scheme}{host}:{HIDDEN}{}{query}", &rest[authority.len()..])
        }
        _ => format!("{scheme}{rest}{query}"),
    }
}

/// GOAUTH: which commands, and nothing of what they are told.
pub(super) fn commands(text: &str) -> String {
    let command = |command: &str| {
        let mut words = command.split_whitespace();
        let first = words.next().unwrap_or_default().to_owned();
        if words.next().is_some() { format!("{first} …") } else { first }
    };
    text.split(';').map(command).collect::<Vec<_>>().join("; ")
}

/// Without control characters, and cut where it is very long.
pub(super) fn printable(text: &str) -> String {
    cut(&text.replace(char::is_control, " "), MAX_CHARS)
}

/// At most so many characters, the last of which then says that there were more.
pub(super) fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_owned(),
        Some(_) => text.chars().take(chars.saturating_sub(1)).chain(['…']).collect(),
    }
}
