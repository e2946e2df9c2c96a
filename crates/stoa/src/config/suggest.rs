//! "Did you mean": the nearest of the words that would have been right.

/// The candidate nearest to `word`, if one is near enough to be what was meant. Case and
/// `_` against `-` count for nothing.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = fold(word);
    // A third of the letters wrong is a slip of the fingers; more is another word.
    let bound = word.len().div_ceil(3).min(4);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &fold(candidate)), candidate))
        .filter(|(distance, _)| *distance <= bound)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn fold(word: &str) -> Vec<char> {
    word.chars().map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Insertions, removals, replacements and swaps of neighbours that lead from one to the other
/// (optimal string alignment).
fn distance(from: &[char], to: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let replaced = above[j] + usize::from(a != b);
            let mut best = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[to.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let check = |word: &str, expected: Option<&str>| {
            let candidates = ["listen", "offline", "header-timeout", "GOPRIVATE", "GONOPROXY"];
            assert_eq!(nearest(word, candidates), expected, "{word}");
        };
        check("listen", Some("listen"));
        check("lisen", Some("listen"));
        check("lsiten", Some("listen"));
        check("LISTENS", Some("listen"));
        check("header_timeout", Some("header-timeout"));
        check("header-time-out", Some("header-timeout"));
        check("GOPRIVAT", Some("GOPRIVATE"));
        check("PRIVATE", Some("GOPRIVATE"));
        check("goproxy", Some("GONOPROXY"));
        check("address", None);
        check("x", None);
        check("", None);
        check("линия", None);
    }
}
