//! The line structure of go.mod files: tokens, blocks, and which comments belong to which line.

/// A top-level line, or a block in parentheses.
#[derive(Debug)]
pub(super) enum Statement<'t> {
    Line(Line<'t>),
    Block { verb: &'t str, comments: Comments<'t>, lines: Vec<Line<'t>> },
}

#[derive(Debug)]
pub(super) struct Line<'t> {
    pub(super) tokens: Vec<&'t str>,
    pub(super) comments: Comments<'t>,
}

/// The comments of a line: those on the lines above it and the one at its end. Inside a block an empty line counts as
/// a comment without text.
#[derive(Debug, Default)]
pub(super) struct Comments<'t>(Vec<Option<&'t str>>);

impl Comments<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The texts without their slashes, one a line.
    pub(super) fn text(&self) -> String {
        self.0.iter().flatten().map(|text| text.trim()).collect::<Vec<_>>().join("\n")
    }
}

/// Divides a file. A line whose tokens cannot be read counts as an empty one.
pub(super) fn statements(text: &str) -> Vec<Statement<'_>> {
    let mut statements = Vec::new();
    let mut block: Option<(&str, Comments<'_>, Vec<Line<'_>>)> = None;
    let mut above = Comments::default();
    for line in text.split('\n') {
        let (mut tokens, comment) = tokens(line).unwrap_or_default();
        if tokens.is_empty() {
            match (comment, &block) {
                (Some(_), _) => above.0.push(comment),
                (None, None) => above.0.clear(),
                (None, Some((_, _, lines))) => {
                    let first = above.is_empty() && !lines.is_empty();
                    if first || above.0.last().is_some_and(Option::is_some) {
                        above.0.push(None);
                    }
                }
            }
            continue;
        }

        let mut comments = std::mem::take(&mut above);
        match &mut block {
            Some(_) if tokens[0] == ")" => {
                if let Some((verb, comments, lines)) = block.take() {
                    statements.push(Statement::Block { verb, comments, lines });
                }
            }
            Some((_, _, lines)) => {
                comments.0.extend(comment.map(Some));
                lines.push(Line { tokens, comments });
            }
            None if tokens.len() > 1 && tokens.last() == Some(&"(") => {
                tokens.pop();
                // A block with two words in front is none that we know.
                let verb = if let [verb] = tokens[..] { verb } else { "" };
                block = Some((verb, comments, Vec::new()));
            }
            None => {
                comments.0.extend(comment.map(Some));
                statements.push(Statement::Line(Line { tokens, comments }));
            }
        }
    }
    statements
}

/// The tokens of a line, and the text behind `//`. `None` if a string is not closed.
fn tokens(line: &str) -> Option<(Vec<&str>, Option<&str>)> {
    const PUNCTUATION: [char; 7] = ['(', ')', '[', ']', '{', '}', ','];
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
            _ if PUNCTUATION.contains(&first) => first.len_utf8(),
            _ => {
                let ends =
                    |c: char| c.is_whitespace() || c.is_control() || PUNCTUATION.contains(&c);
                let end = rest.find(ends).unwrap_or(rest.len());
                let end = rest.find("//").map_or(end, |comment| end.min(comment));
                if end == 0 {
                    return None;
                }
                end
            }
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after;
    }
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
