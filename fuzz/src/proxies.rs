//! GOPROXY lists: what is shown is the list again, and never a secret.

use stoa_module::{ProxyList, ProxySource, Separator};

const SECRET: &str = "s3cr3t";

/// The first byte says where a proxy with a secret is put into the list.
pub fn check(data: &[u8]) {
    let Some((&at, data)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(list) = ProxyList::parse(text) {
        holds(&list, text);
    }
    // As an item of its own; what stands in front may end in the middle of anything but a password.
    let at = text.floor_char_boundary(usize::from(at) % (text.len() + 1));
    let (before, after) = text.split_at(at);
    let item = format!("https://user:{SECRET}@ex.com");
    for list in [
        format!("{before},{item},{after}"),
        format!("{before}|{item}/{after}"),
        format!("{item}/{after}|{before}"),
    ] {
        let shown = match ProxyList::parse(&list) {
            Ok(list) => format!("{list} {list:?} {:?}", list.items),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains(SECRET), "{list:?} is shown as {shown}");
    }
}

fn holds(list: &ProxyList, text: &str) {
    let (last, others) = list.items.split_last().expect("a list has items");
    assert_eq!(last.separator, Separator::Comma);
    for item in others {
        assert!(matches!(item.source, ProxySource::Url(_)), "{list:?}");
    }
    let commas = text.matches([',', '|']).count();
    assert!(list.items.len() <= commas + 1);
    for item in &list.items {
        let ProxySource::Url(url) = &item.source else { continue };
        assert!(matches!(url.scheme(), "http" | "https" | "file"), "{url}");
        assert_eq!(url.scheme() == "file", url.host().is_none(), "{url}");
        let hidden = url.username().is_empty() && url.password().is_none();
        assert!(hidden || item.source.to_string().contains("xxxxx"), "{}", item.source);
        assert!(url.password().is_none_or(|word| word == "xxxxx" || !shows(&item.source, word)));
    }
    // Nothing was hidden.
    let credentials = list.items.iter().any(|item| {
        let ProxySource::Url(url) = &item.source else { return false };
        !url.username().is_empty() || url.password().is_some()
    });
    if !credentials {
        // A separator in a URL would be one of the list.
        assert_eq!(ProxyList::parse(&list.to_string()).as_ref(), Ok(list));
    }
}

/// Whether the word stands where user and password do.
fn shows(source: &ProxySource, word: &str) -> bool {
    let shown = source.to_string();
    let authority = shown.split("//").nth(1).unwrap_or_default();
    authority
        .split('@')
        .next()
        .is_some_and(|user| !word.is_empty() && user.ends_with(&format!(":{word}")))
}

pub fn seeds() -> Vec<Vec<u8>> {
    [
        "https://proxy.golang.org,direct",
        "https://a.example|https://user:word@b.example:8080/x?y#z , off",
        "file:///var/cache/go, http://[::1]:3000",
        "proxy.example, ,|direct,https://never",
        "https://goproxy.cn,https://goproxy.io,off",
    ]
    .map(|text| [&[3], text.as_bytes()].concat())
    .to_vec()
}
