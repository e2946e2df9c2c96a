//! The line structure of go.mod files: tokens, blocks, and which comments belong to which line.

use std::cell::OnceCell;
use std::sync::Arc;

/// The comments of a line: those on the lines above it and the one at its end. Inside a block an empty line counts as
/// a comment without text.
#[derive(Debug, Default)]
pub(super) struct Comments<'t> {
    texts: Vec<Option<&'t str>>,
    joined: OnceCell<Arc<str>>,
}

impl Comments<'_> {
    fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The texts without their slashes, one a line. All lines of a block share one copy.
    pub(super) fn text(&self) -> Arc<str> {
        let join =
            || self.texts.iter().flatten().map(|text| text.trim()).collect::<Vec<_>>().join("\n");
        self.joined.get_or_init(|| join().into()).clone()
    }
}

/// An open block: the word in front of the parenthesis, the comments above it, and whether it has had a line.
struct Block<'t> {
    verb: &'t str,
    comments: Comments<'t>,
    begun: bool,
}

/// Calls for each line with its verb, which for a line of a block is that of the block, its further tokens, and its
/// comments, which are those of the block if it has none of its own. The lines of a block are those that stand in one of
/// the known kinds; others are skipped. A line whose tokens cannot be read counts as an empty one.
pub(super) fn for_each_line<'t>(
    text: &'t str,
    blocks: &[&str],
    mut each: impl FnMut(&'t str, &[&'t str], &Comments<'t>),
) {
    let mut block: Option<Block<'t>> = None;
    let mut above = Comments::default();
    for line in text.split('\n') {
        let (mut tokens, comment) = tokens(line).unwrap_or_default();
        let [first, arguments @ ..] = tokens.as_slice() else {
            match (comment, &block) {
                (Some(_), _) => above.texts.push(comment),
                (None, None) => above = Comments::default(),
                (None, Some(block)) => {
                    let first = above.is_empty() && block.begun;
                    if first || above.texts.last().is_some_and(Option::is_some) {
                        above.texts.push(None);
                    }
                }
            }
            continue;
        };

        let mut comments = std::mem::take(&mut above);
        match &mut block {
            Some(_) if *first == ")" => block = None,
            Some(block) => {
                block.begun = true;
                comments.texts.extend(comment.map(Some));
                let comments = if comments.is_empty() { &block.comments } else { &comments };
                if blocks.contains(&block.verb) {
                    each(block.verb, &tokens, comments);
                }
            }
            None if arguments.last() == Some(&"(") => {
                tokens.pop();
                // A block with two words in front is of no kind that we know.
                let verb = if let [verb] = tokens[..] { verb } else { "" };
                block = Some(Block { verb, comments, begun: false });
            }
            None => {
                comments.texts.extend(comment.map(Some));
                each(first, arguments, &comments);
            }
        }
    }
}

/// The tokens of a line, and the text behind `//`. `None` if a string is not closed.
fn tokens(line: &str) -> Option<(Vec<&str>, Option<&str>)> {
    let mut tokens = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r']);
        let Some(first) = rest.chars().next() else { return Some((tokens, None)) };
        if let Some(comment) = rest.strip_prefix("//") {
            return Some((tokens, Some(comment)));
        }
        let length = match first {
            '"' | '`' => string_length(rest, first)?,
            _ if is_punctuation(first) => first.len_utf8(),
            _ => Some(word_length(rest)).filter(|&length| length > 0)?,
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after;
    }
}

fn is_punctuation(c: char) -> bool {
    matches!(c, '(' | ')' | '[' | ']' | '{' | '}' | ',')
}

/// A word ends in front of a comment, too.
fn word_length(text: &str) -> usize {
    let mut slash = false;
    for (at, c) in text.char_indices() {
        if c == '/' && slash {
            return at - 1;
        }
        slash = c == '/';
        if c.is_whitespace() || c.is_control() || is_punctuation(c) {
            return at;
        }
    }
    text.len()
}

fn string_length(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == quote {
            return Some(at + 1);
        } else {
            escaped = c == '\\' && quote == '"';
        }
    }
    None
}
