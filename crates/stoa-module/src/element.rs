//! The rules that the elements of module paths and of file paths share.

use crate::unicode;

/// Why a path is refused. The texts continue a sentence that has named the path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathProblem {
    /// There is no text.
    #[error("it is empty")]
    Empty,
    /// The whole path begins with `-`, which a command would take for an option.
    #[error("it begins with a dash")]
    LeadingDash,
    /// The whole path begins with `/`.
    #[error("it begins with a slash")]
    LeadingSlash,
    /// The whole path ends with `/`.
    #[error("it ends with a slash")]
    TrailingSlash,
    /// Two slashes follow each other.
    #[error("it has an empty element")]
    EmptyElement,
    /// An element such as `.` or `..`.
    #[error("its element {0:?} is nothing but dots")]
    OnlyDots(String),
    /// An element of a module path begins with a dot.
    #[error("its element {0:?} begins with a dot")]
    LeadingDot(String),
    /// An element ends with a dot.
    #[error("its element {0:?} ends with a dot")]
    TrailingDot(String),
    /// A character that no element of this kind of path may have.
    #[error("the character {0:?} is not allowed in it")]
    Character(char),
    /// Not UTF-8.
    #[error("it is not UTF-8")]
    Encoding,
    /// A name that Windows keeps for devices, in front of the first dot of an element.
    #[error("{0:?} is a reserved name on Windows")]
    WindowsName(String),
    /// An element that looks like a Windows short name, such as `progra~1`.
    #[error("its element {0:?} ends with a tilde and digits, as Windows short names do")]
    ShortName(String),
    /// The first element of a module path has no dot, and so is no host name.
    #[error("its first element has no dot, so it is no host name")]
    NoDot,
    /// A character in the first element of a module path that no lower-case host name has.
    #[error(
        "the character {0:?} is not allowed in its first element, which is a lower-case host name"
    )]
    HostCharacter(char),
    /// The major version suffix is not one of `/v2`, `/v3`, and so on.
    #[error("its major version suffix must be /v2 or higher, without leading zeros or dots")]
    MajorSuffix,
    /// A path under `gopkg.in` does not end in `.vN` or `.vN-unstable`.
    #[error("a path under gopkg.in must end in .vN or .vN-unstable")]
    GopkgIn,
    /// A `!` that no lower-case letter follows, or an upper-case letter, in an escaped text.
    #[error(
        "its case escape is wrong: upper-case letters are written as ! and the lower-case letter"
    )]
    Escape,
}

/// The two kinds of element that differ in their rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Module,
    File,
}

const WINDOWS_NAMES: [&str; 22] = [
    "CON", "PRN", "AUX", "NUL", "COM1", "COM2", "COM3", "COM4", "COM5", "COM6", "COM7", "COM8",
    "COM9", "LPT1", "LPT2", "LPT3", "LPT4", "LPT5", "LPT6", "LPT7", "LPT8", "LPT9",
];

/// Checks the form of the whole path, then each element.
pub(crate) fn check_path(path: &str, kind: Kind) -> Result<(), PathProblem> {
    if path.is_empty() {
        return Err(PathProblem::Empty);
    }
    if path.starts_with('-') && kind == Kind::Module {
        return Err(PathProblem::LeadingDash);
    }
    if path.starts_with('/') {
        return Err(PathProblem::LeadingSlash);
    }
    if path.ends_with('/') {
        return Err(PathProblem::TrailingSlash);
    }
    path.split('/').try_for_each(|element| check_element(element, kind))
}

/// Checks one element, that is, text without slashes.
pub(crate) fn check_element(element: &str, kind: Kind) -> Result<(), PathProblem> {
    if element.is_empty() {
        return Err(PathProblem::EmptyElement);
    }
    if element.bytes().all(|b| b == b'.') {
        return Err(PathProblem::OnlyDots(element.to_owned()));
    }
    if element.starts_with('.') && kind == Kind::Module {
        return Err(PathProblem::LeadingDot(element.to_owned()));
    }
    if element.ends_with('.') {
        return Err(PathProblem::TrailingDot(element.to_owned()));
    }
    // Not by a pointer to a function: it is called for every character of every request.
    let other = match kind {
        Kind::Module => element.chars().find(|&c| !in_module_path(c)),
        Kind::File => element.chars().find(|&c| !in_file_name(c)),
    };
    if let Some(c) = other {
        return Err(PathProblem::Character(c));
    }

    let stem = element.split('.').next().unwrap_or(element);
    let as_long = matches!(stem.len(), 3 | 4);
    if as_long && WINDOWS_NAMES.iter().any(|name| name.eq_ignore_ascii_case(stem)) {
        return Err(PathProblem::WindowsName(stem.to_owned()));
    }
    if kind == Kind::Module
        && let Some((_, digits)) = stem.rsplit_once('~')
        && !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(PathProblem::ShortName(element.to_owned()));
    }
    Ok(())
}

fn in_module_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~')
}

/// ASCII without what shells, Windows or macOS give a meaning to, and any letter. Marks are left out on purpose: with
/// them one name could be written in two ways.
fn in_file_name(c: char) -> bool {
    if c.is_ascii() {
        c.is_ascii_alphanumeric() || "!#$%&()+,-.=@[]^_{}~ ".contains(c)
    } else {
        unicode::is_letter(c)
    }
}

/// Checks a slash-separated path of a file inside a module, by the rules of `CheckFilePath` in golang.org/x/mod/module.
pub fn check_file_path(path: &str) -> Result<(), PathProblem> {
    check_path(path, Kind::File)
}
