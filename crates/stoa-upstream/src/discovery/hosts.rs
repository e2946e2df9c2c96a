//! Hosts whose repositories are known by the form of the path alone (the table of cmd/go's `vcs` package).

use crate::discovery::CodeRoot;

/// What a path says by its form.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Known {
    /// A git repository at an address.
    Git(CodeRoot),
    /// A git repository whose scheme is to be found out: the address without one.
    Schemeless { root: String, address: String },
    /// Another version control system.
    Other { root: String, system: &'static str },
    /// The host is known, and the path is none of its.
    Invalid(String),
    /// The host must be asked.
    Unknown,
}

struct Host {
    prefix: &'static str,
    /// How many elements after the prefix belong to the root, and what each may look like.
    elements: &'static [fn(&str) -> bool],
    /// Elements behind the root may be there.
    open: bool,
    /// A repository's name that ends like `.git` is a mistake.
    no_suffix: bool,
    system: &'static str,
}

const HOSTS: &[Host] = &[
    Host {
        prefix: "github.com",
        elements: &[word, word],
        open: true,
        no_suffix: true,
        system: "git",
    },
    Host {
        prefix: "bitbucket.org",
        elements: &[word, word],
        open: true,
        no_suffix: true,
        system: "git",
    },
    Host {
        prefix: "hub.jazz.net/git",
        elements: &[lower, word],
        open: true,
        no_suffix: true,
        system: "git",
    },
    Host {
        prefix: "git.apache.org",
        elements: &[apache],
        open: true,
        no_suffix: false,
        system: "git",
    },
    Host {
        prefix: "git.openstack.org",
        elements: &[word, word],
        open: true,
        no_suffix: false,
        system: "git",
    },
    Host {
        prefix: "chiselapp.com",
        elements: &[|e| e == "user", alphanumeric, |e| e == "repository", word],
        open: false,
        no_suffix: false,
        system: "fossil",
    },
];

/// Suffixes by which a path says itself which system keeps it.
const SUFFIXES: [&str; 5] = ["bzr", "fossil", "git", "hg", "svn"];

fn word(element: &str) -> bool {
    !element.is_empty()
        && element.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn lower(element: &str) -> bool {
    !element.is_empty() && element.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

fn alphanumeric(element: &str) -> bool {
    !element.is_empty() && element.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn apache(element: &str) -> bool {
    element.strip_suffix(".git").is_some_and(|name| {
        let known =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-');
        !name.is_empty() && name.bytes().all(known)
    })
}

/// `~user` is an element of paths with a suffix, too.
fn word_or_home(element: &str) -> bool {
    word(element.strip_prefix('~').unwrap_or(element))
}

/// What the form of `path` says.
pub(crate) fn find(path: &str) -> Known {
    for host in HOSTS {
        let Some(rest) = path.strip_prefix(host.prefix) else { continue };
        if rest.is_empty() || rest.starts_with('/') {
            return host.find(path, rest);
        }
    }
    by_suffix(path)
}

impl Host {
    fn find(&self, path: &str, rest: &str) -> Known {
        let invalid = || Known::Invalid(format!("invalid {} import path {path:?}", self.prefix));
        let elements: Vec<&str> = rest.split('/').skip(1).collect();
        if elements.len() < self.elements.len()
            || (!self.open && elements.len() > self.elements.len())
        {
            return invalid();
        }
        let (own, behind) = elements.split_at(self.elements.len());
        let fits = own.iter().zip(self.elements).all(|(element, is)| is(element));
        if !fits || !behind.iter().all(|element| word(element)) {
            return invalid();
        }
        if self.no_suffix
            && let Some(name) = own.last()
            && let Some((_, suffix)) = name.rsplit_once('.')
            && SUFFIXES.contains(&suffix)
        {
            return Known::Invalid(format!(
                "invalid version control suffix in {} path {path:?}",
                self.prefix
            ));
        }
        let root = format!("{}/{}", self.prefix, own.join("/"));
        if self.system != "git" {
            return Known::Other { root, system: self.system };
        }
        // OpenStack's may end with .git, which is no part of the root.
        let root = match (self.prefix, root.strip_suffix(".git")) {
            ("git.openstack.org", Some(bare)) => bare.to_owned(),
            _ => root,
        };
        Known::Git(CodeRoot { url: format!("https://{root}"), root, subdir: String::new() })
    }
}

/// `example.com/team/code.git/dir`: any host, with an element that names the system.
fn by_suffix(path: &str) -> Known {
    let mut elements = path.split('/');
    let host = elements.next().unwrap_or_default();
    let host_name =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
    if !host.contains('.') || !host.bytes().all(host_name) {
        return Known::Unknown;
    }
    let mut end = host.len();
    let mut elements = elements.peekable();
    while let Some(element) = elements.next() {
        if !word_or_home(element) {
            return Known::Unknown;
        }
        end += 1 + element.len();
        let named = SUFFIXES.into_iter().find_map(|suffix| {
            let name = element.strip_suffix(suffix)?.strip_suffix('.')?;
            (!name.is_empty() && name != "~").then_some((suffix, suffix.len() + 1))
        });
        let Some((system, length)) = named else { continue };
        if !elements.all(word_or_home) {
            return Known::Unknown;
        }
        let root = path[..end].to_owned();
        if system != "git" {
            return Known::Other { root, system };
        }
        return Known::Schemeless { address: path[..end - length].to_owned(), root };
    }
    Known::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(root: &str) -> Known {
        Known::Git(CodeRoot {
            root: root.to_owned(),
            url: format!("https://{root}"),
            subdir: String::new(),
        })
    }

    fn schemeless(root: &str, address: &str) -> Known {
        Known::Schemeless { root: root.to_owned(), address: address.to_owned() }
    }

    fn other(root: &str, system: &'static str) -> Known {
        Known::Other { root: root.to_owned(), system }
    }

    #[test]
    fn known_by_form() {
        let check = |path: &str, expected: Known| assert_eq!(find(path), expected, "{path}");
        check("github.com/ex/r", git("github.com/ex/r"));
        check("github.com/ex/r/sub/dir/v2", git("github.com/ex/r"));
        check("github.com/Ex_1/r.go-x/v2", git("github.com/Ex_1/r.go-x"));
        check("bitbucket.org/ex/r/x", git("bitbucket.org/ex/r"));
        check("hub.jazz.net/git/user1/r/x", git("hub.jazz.net/git/user1/r"));
        check("git.apache.org/thrift.git/lib/go", git("git.apache.org/thrift.git"));
        check("git.openstack.org/openstack/swift.git/go", git("git.openstack.org/openstack/swift"));
        check("git.openstack.org/openstack/swift/go", git("git.openstack.org/openstack/swift"));
        check(
            "chiselapp.com/user/kyle/repository/fossilgg",
            other("chiselapp.com/user/kyle/repository/fossilgg", "fossil"),
        );
        check(
            "code.example.com/a/b.git",
            schemeless("code.example.com/a/b.git", "code.example.com/a/b"),
        );
        check(
            "code.example.com/~me/b.git/v2/x",
            schemeless("code.example.com/~me/b.git", "code.example.com/~me/b"),
        );
        check("code.example.com/b.hg/x", other("code.example.com/b.hg", "hg"));
        check("code.example.com/a.git.svn", other("code.example.com/a.git.svn", "svn"));
        // The first element that names a system is the root's last.
        check(
            "code.example.com/a.git/b.git",
            schemeless("code.example.com/a.git", "code.example.com/a"),
        );
        for unknown in [
            "gopkg.in/yaml.v3",
            "golang.org/x/text",
            "gitlab.com/group/sub/project",
            "github.company.com/ex/r",
            "code.example.com/.git",
            "code.example.com/agit/b",
            "code.example.com/a.git+x/b",
            "localhost/a.git",
            "example.com",
        ] {
            check(unknown, Known::Unknown);
        }
        for invalid in [
            "github.com",
            "github.com/ex",
            "github.com/ex/r+x",
            "github.com/ex/r/a~b",
            "git.apache.org/thrift/lib",
            "chiselapp.com/user/kyle/repository/x/y",
            "github.com/ex/r.git",
            "github.com/ex/r.git/v2",
            "bitbucket.org/ex/r.hg",
        ] {
            assert!(matches!(find(invalid), Known::Invalid(_)), "{invalid}: {:?}", find(invalid));
        }
    }
}
