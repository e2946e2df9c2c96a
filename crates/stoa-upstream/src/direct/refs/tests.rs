use std::fmt::Write as _;

use super::*;

const A: &str = "a3ab0831a0ed9ce3aa2155c5c30627b07f94166a";
const B: &str = "bbaab31090cb8dc2c1b991f377bd260450f5e054";
const C: &str = "bbaab31190cb8dc2c1b991f377bd260450f5e054";

fn listed(text: &str, pieces: usize) -> Refs {
    let mut listing = Listing::new(1000);
    for piece in text.as_bytes().chunks(pieces) {
        listing.take(piece).unwrap();
    }
    listing.finish()
}

#[test]
fn lists() {
    let text = format!(
        "{B}\tHEAD\n{B}\trefs/heads/main\n{C}\trefs/heads/other\n{C}\trefs/pull/1/head\n\
         {A}\trefs/tags/v1\n{B}\trefs/tags/w\n{A}\trefs/tags/w^{{}}\n{A}\trefs/tags/a:b\n\
         {A}\trefs/tags/../x\n{A}\trefs/tags/x.lock\nrubbish\n{A} a b c\n"
    );
    for pieces in [1, 7, 4096] {
        let refs = listed(&text, pieces);
        let names: Vec<_> = refs.iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            ["HEAD", "refs/heads/main", "refs/heads/other", "refs/tags/v1", "refs/tags/w"]
        );
        assert_eq!(refs.find("refs/tags/w").unwrap().to_string(), A);
    }
}

#[test]
fn resolves() {
    let (a, b) = (ObjectId::parse(A).unwrap(), ObjectId::parse(B).unwrap());
    let refs = listed(
        &format!(
            "{B}\tHEAD\n{B}\trefs/heads/main\n{C}\trefs/heads/v1\n{A}\trefs/tags/v1\n\
             {A}\trefs/tags/abcdef0\n"
        ),
        4096,
    );
    let check = |revision: &str, expected: Resolved<'_>| {
        assert_eq!(refs.resolve(revision), expected, "{revision}");
    };
    check("v1", Resolved::Ref { name: "refs/tags/v1", id: a });
    check("main", Resolved::Ref { name: "refs/heads/main", id: b });
    check("HEAD", Resolved::Ref { name: "HEAD", id: b });
    check("bbaab310", Resolved::Commit { id: b, through: "HEAD" });
    check(B, Resolved::Commit { id: b, through: "HEAD" });
    check("bbaab31", Resolved::Ambiguous);
    check("bbaab3", Resolved::Unknown);
    check("BBAAB310", Resolved::Unknown);
    check("1234567", Resolved::Hash);
    check("abcdef0", Resolved::Ref { name: "refs/tags/abcdef0", id: a });
    check("-x", Resolved::Unknown);
    check("", Resolved::Unknown);
}

/// By the definition: every hash, in digits.
#[test]
fn finds_by_hashes() {
    let hash = |n: u64| format!("{:08x}{:08x}{:024x}", n % 3 * 0x1111_1111, n % 7, n % 11);
    let long = format!("{}{:024x}", hash(5), 5);
    let mut text = format!("{long}\trefs/tags/long\n");
    for n in 0..300 {
        let kind = if n % 2 == 0 { "heads" } else { "tags" };
        writeln!(text, "{}\trefs/{kind}/x{n}", hash(n)).unwrap();
    }
    let refs = listed(&text, 4096);
    let digits: Vec<_> = refs.iter().map(|(name, id)| (name, id, id.to_string())).collect();
    assert_eq!(digits.len(), 301);
    let mut ambiguous = 0;
    for (_, id, full) in &digits {
        let expected = digits.iter().filter(|(_, at, _)| at == id).map(|(name, ..)| *name);
        assert_eq!(refs.at(*id).collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{full}");
        for length in [7, 8, 15, 16, 17, 39, 40, 41, 64] {
            let Some(revision) = full.get(..length) else { continue };
            let fits: Vec<_> =
                digits.iter().filter(|(.., full)| full.starts_with(revision)).collect();
            let (through, first, _) = *fits[0];
            let expected = if fits.iter().all(|(_, id, _)| *id == first) {
                Resolved::Commit { id: first, through }
            } else {
                ambiguous += 1;
                Resolved::Ambiguous
            };
            assert_eq!(refs.resolve(revision), expected, "{revision}");
        }
    }
    assert!(ambiguous > 100);
    assert_eq!(refs.resolve(&"f".repeat(40)), Resolved::Hash);
    assert_eq!(refs.resolve(&"0".repeat(64)), Resolved::Hash);
    let tags: Vec<_> = refs.tags().map(|(tag, _)| tag).collect();
    assert_eq!((tags.len(), tags[0]), (151, "long"));
}

#[test]
fn has_bounds() {
    let mut listing = Listing::new(2);
    let line = |n: usize| format!("{A}\trefs/tags/v{n}\n");
    listing.take(line(1).as_bytes()).unwrap();
    listing.take(line(2).as_bytes()).unwrap();
    let fault = listing.take(line(3).as_bytes()).unwrap_err();
    assert!(fault.detail.contains("more than 2 branches and tags"), "{}", fault.detail);
    let mut listing = Listing::new(2);
    assert!(listing.take(&[b'x'; MAX_LINE + 1]).is_err());
    // Few, with long names.
    let mut listing = Listing::new(100_000);
    assert_eq!((listing.most_names, Listing::new(1_000_000).most_names), (32 << 20, 64_000_000));
    listing.most_names = 10_000;
    let name = "x".repeat(1_000);
    let outcome =
        (0..10).try_for_each(|n| listing.take(format!("{A}\trefs/tags/{n}{name}\n").as_bytes()));
    let fault = outcome.unwrap_err();
    assert!(fault.detail.contains("names of branches and tags are over"), "{}", fault.detail);
    assert!((9_000..11_000).contains(&listing.finish().bytes()));
}
