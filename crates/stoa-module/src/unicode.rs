//! Letters and case folding, by Go's tables.
//!
//! Which file names a module may have, and which of them collide, depends on the version of Unicode. Go's is followed,
//! not Rust's, which moves on its own.

use std::cmp::Ordering;

use crate::unicode_tables::{FOLDS, LETTERS};

#[cfg(test)]
mod tests;

/// Whether the character is in one of the categories L*.
pub(crate) fn is_letter(c: char) -> bool {
    let c = u32::from(c);
    LETTERS.partition_point(|&bound| bound <= c) % 2 == 1
}

/// A character that stands for all that differ from it in case alone: the least of them, but `a` to `z` for `A` to `Z`.
///
/// This is not lower-casing: `K`, `k` and U+212A KELVIN SIGN are one, as are `S`, `s` and U+017F LONG S.
pub(crate) fn fold(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    let code = u32::from(c);
    let run = FOLDS.partition_point(|&(_, last, ..)| last < code);
    match FOLDS.get(run) {
        Some(&(first, _, stride, delta))
            if first <= code && (code - first).is_multiple_of(stride) =>
        {
            code.checked_add_signed(delta).and_then(char::from_u32).unwrap_or(c)
        }
        _ => c,
    }
}

/// Whether two texts differ at most in case.
pub(crate) fn equal_fold(a: &str, b: &str) -> bool {
    a.chars().map(fold).eq(b.chars().map(fold))
}

/// Orders paths element by element without regard to case, so that paths which are equal but for case, and paths below
/// a common directory, come to stand side by side.
pub(crate) fn compare_paths(a: &str, b: &str) -> Ordering {
    // Most neighbours share a long beginning.
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let start = a.floor_char_boundary(same).min(b.floor_char_boundary(same));
    let key = |c: char| if c == '/' { '\0' } else { fold(c) };
    a[start..].chars().map(key).cmp(b[start..].chars().map(key))
}
