//! Every verdict that `stoa doctor` can come to: what it means, what proves it, what to do, and how the command ends then.
//! `docs/troubleshooting.md` holds the same table, and a test compares the two.

use serde::Serialize;

/// What is the matter. In JSON it is [`Verdict::code`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Verdict {
    Healthy,
    Offline,
    // This machine.
    DiskFull,
    DiskReadOnly,
    FilesExhausted,
    ClockWrong,
    GitMissing,
    Loop,
    // The way there.
    ResolverSilent,
    NameNotResolved,
    Unreachable,
    Filtered,
    Refused,
    Reset,
    ProxyWantsPassword,
    ProxyRefuses,
    TlsIntercepted,
    CertificateExpired,
    CertificateNotYetValid,
    NoAuthorities,
    UnknownAuthority,
    WrongName,
    NotTls,
    TlsFailed,
    NotHttp,
    HeaderTimeout,
    Endless,
    // What is said there.
    HostKeyUnknown,
    KeyRefused,
    Unauthorized,
    Forbidden,
    RateLimited,
    ServerError,
    NotAProxy,
    GitRefused,
    // Modules and the checksum database.
    TreeForked,
    RecordContradicts,
    DatabaseBlocked,
    DatabaseUnproven,
    Malformed,
    NoRoute,
    NoRecord,
    ModuleAbsent,
    VersionAbsent,
    RouteRefuses,
    // What only costs time.
    BlackHoledIpv6,
    Slow,
    DiskSlow,
}

/// A verdict as it is told.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Row {
    #[serde(skip)]
    pub verdict: Verdict,
    /// Its name for scripts; never changes.
    pub code: &'static str,
    /// The command's exit status.
    pub exit: u8,
    /// The likely cause.
    pub cause: &'static str,
    /// What is seen where it is so.
    pub evidence: &'static str,
    pub to_do: &'static str,
}

const fn row(
    verdict: Verdict,
    code: &'static str,
    exit: u8,
    cause: &'static str,
    evidence: &'static str,
    to_do: &'static str,
) -> Row {
    Row { verdict, code, exit, cause, evidence, to_do }
}

/// From what explains most to what explains least: of several findings the first row is the verdict. Statuses are never used
/// again for something else; 1 and 2 are for a doctor that could not do its work and for wrong settings and arguments.
pub static TABLE: &[Row] = &[
    row(
        Verdict::Healthy,
        "healthy",
        0,
        "Nothing is wrong with what was looked at.",
        "Every stage of every source, and this machine, is as it should be.",
        "If a build hangs all the same, look at the client: `stoa doctor --client`, and at the server while it hangs: `/-/inflight`.",
    ),
    row(
        Verdict::Offline,
        "offline",
        10,
        "The server runs with `--offline`, and asks nobody for anything.",
        "`server.offline` is set, so that no source was looked at.",
        "Fetch what is missing through it once while it is online; it serves what it has stored.",
    ),
    row(
        Verdict::FilesExhausted,
        "files-exhausted",
        11,
        "The process has no file descriptors left, so it can open neither files nor connections.",
        "More than nine tenths of the limit of open files are in use, or opening one failed with EMFILE or ENFILE.",
        "Raise the limit (`LimitNOFILE=` in systemd, `ulimits` in a container, `ulimit -n` in a shell), or lower `server.max-connections`.",
    ),
    row(
        Verdict::DiskFull,
        "disk-full",
        12,
        "The disk of the data directory has no room, so that nothing new can be stored.",
        "A write into the data directory failed for want of room, or less than 16 MiB are free.",
        "Free some space or enlarge the disk. What is stored is served all the while, and what is fetched is passed through while memory lasts.",
    ),
    row(
        Verdict::DiskReadOnly,
        "disk-read-only",
        13,
        "The data directory cannot be written.",
        "Making a file there failed: the file system is read-only, the user is another one, or the disk fails.",
        "Look at the mount, at the owner of the directory and at the kernel's log.",
    ),
    row(
        Verdict::ClockWrong,
        "clock-wrong",
        14,
        "This machine's clock is wrong, which makes good certificates look expired or not yet valid.",
        "The Date headers of two hosts differ from this clock by more than five minutes, or that of one whose certificate is not valid now.",
        "Set the clock (`timedatectl set-ntp true`, `chronyc makestep`); in a VM look at its host's time synchronisation.",
    ),
    row(
        Verdict::Loop,
        "loop",
        15,
        "The chain of sources leads back to this very server.",
        "A source answered that the request began at it, or its address is the one that this server listens on.",
        "Take this server's own URL out of `upstream.goproxy` and the routes, and out of those of the proxies in between.",
    ),
    row(
        Verdict::ResolverSilent,
        "resolver-silent",
        20,
        "The machine's DNS server does not answer.",
        "Looking the name up brought no answer at all, not even that there is none.",
        "Look at the nameservers in `/etc/resolv.conf` (in a container: at Docker's `--dns`), and whether UDP and TCP port 53 to them are open.",
    ),
    row(
        Verdict::NameNotResolved,
        "name-not-resolved",
        21,
        "The host's name is not known to this machine's resolver.",
        "The resolver answered that there is no such name, or no address of it.",
        "Look for a slip in the name; if it is known elsewhere, the resolver here is a restricted one: use an upstream that it knows, or an outgoing proxy (`https_proxy`).",
    ),
    row(
        Verdict::Unreachable,
        "unreachable",
        22,
        "There is no way into that network from here.",
        "Every connect ended with `network unreachable` or `no route to host`.",
        "Look at the machine's routes, its VPN, and in a container at its network.",
    ),
    row(
        Verdict::Filtered,
        "filtered",
        23,
        "A firewall drops what is sent there, or the host is down.",
        "Connects were not answered at all, neither accepted nor refused.",
        "Have the firewall let this machine out to that address and port, name an outgoing proxy (`https_proxy`), or use an upstream that can be reached (`upstream.goproxy`).",
    ),
    row(
        Verdict::Refused,
        "refused",
        24,
        "Nothing listens at that port, or a firewall refuses.",
        "Every connect was refused.",
        "Look at the port in the address, and whether the service runs there.",
    ),
    row(
        Verdict::Reset,
        "reset",
        25,
        "Something between here and there cuts connections.",
        "The connection was reset, or closed before it was of any use.",
        "Filters that look at the name in the TLS handshake do this: use another upstream, or an outgoing proxy (`https_proxy`).",
    ),
    row(
        Verdict::ProxyWantsPassword,
        "proxy-wants-password",
        26,
        "The outgoing proxy asks for a password.",
        "It answered 407.",
        "Put the user and password into the proxy variable that the server sees: `https_proxy=http://user:password@proxy:3128`.",
    ),
    row(
        Verdict::ProxyRefuses,
        "proxy-refuses",
        27,
        "The outgoing proxy does not let this through.",
        "It answered CONNECT with something other than 200.",
        "Have the host allowed there, or name it in `no_proxy` if it can be reached without.",
    ),
    row(
        Verdict::TlsIntercepted,
        "tls-intercepted",
        28,
        "Something in this network opens TLS connections and signs them anew with an authority of its own.",
        "The chain of a public host ends at an authority that this system does not know, or at one that calls itself by the name of a product for inspection.",
        "Name that authority's certificate in `upstream.ca-files`, or have this host exempted from the inspection. Modules are compared with the checksum database all the same.",
    ),
    row(
        Verdict::CertificateExpired,
        "certificate-expired",
        29,
        "The host's certificate has ended, and its owner has not renewed it.",
        "The end of its validity is past, by a clock that agrees with the others.",
        "Tell its owner; until then use another upstream.",
    ),
    row(
        Verdict::CertificateNotYetValid,
        "certificate-not-yet-valid",
        30,
        "The host's certificate is valid only from a later time on.",
        "The beginning of its validity is yet to come, by a clock that agrees with the others.",
        "Tell its owner; look at both clocks.",
    ),
    row(
        Verdict::NoAuthorities,
        "no-authorities",
        31,
        "This system trusts no certificate authority at all.",
        "There is no certificate in the system's store, and none in `upstream.ca-files`.",
        "Install `ca-certificates`, or name a file of them in `upstream.ca-files`.",
    ),
    row(
        Verdict::UnknownAuthority,
        "unknown-authority",
        32,
        "The host's certificate is from an authority that this machine does not know, or the host does not send the certificates in between.",
        "The chain does not lead to any authority of the system or of `upstream.ca-files`; the report names the one that is missing.",
        "Name that authority's certificate in `upstream.ca-files`.",
    ),
    row(
        Verdict::WrongName,
        "wrong-name",
        33,
        "The host that answers is another one than was meant.",
        "Its certificate is for other names.",
        "Look at the address, at the name's entry in DNS and `/etc/hosts`, and for a login page in between.",
    ),
    row(
        Verdict::NotTls,
        "not-tls",
        34,
        "What answers at that port speaks something else than TLS.",
        "The handshake was answered with something else; the report shows its beginning.",
        "Look at the scheme and the port in the address: `http:` or another port.",
    ),
    row(
        Verdict::TlsFailed,
        "tls-failed",
        35,
        "The two sides cannot agree on a TLS connection.",
        "The handshake failed or was not answered, and not for the certificate.",
        "Look at the words of the report. What is too old for TLS 1.2 cannot be used; filters in between do this too.",
    ),
    row(
        Verdict::NotHttp,
        "not-http",
        36,
        "What answers at that port does not speak HTTP.",
        "The answer does not begin as HTTP does; the report shows its beginning.",
        "Look at the port in the address.",
    ),
    row(
        Verdict::HeaderTimeout,
        "header-timeout",
        37,
        "The host takes requests and does not answer them in time.",
        "It was connected to, and no header came within the bound.",
        "It is overloaded, or something behind it hangs. Put another upstream behind it over `|`, and see `upstream.hedge`.",
    ),
    row(
        Verdict::Endless,
        "endless",
        38,
        "The host sends without end.",
        "Its header or its answer to a small question had no end within the bound.",
        "It is not what it is taken for: look at the address.",
    ),
    row(
        Verdict::GitMissing,
        "git-missing",
        39,
        "Modules that go direct need the `git` command, and there is none.",
        "No `git` in the server's PATH.",
        "Install git where the server runs.",
    ),
    row(
        Verdict::HostKeyUnknown,
        "host-key-unknown",
        40,
        "The ssh host key is not in the server's `known_hosts`, or is another one than there.",
        "ssh says that the verification of the host key failed.",
        "Compare it with what the host publishes, and put it into the known_hosts of the user that the server runs as, or name a file in `git.known-hosts`.",
    ),
    row(
        Verdict::KeyRefused,
        "key-refused",
        41,
        "The git host does not accept the server's ssh key.",
        "ssh says `Permission denied`.",
        "Add the server's public key to an account there that may read the repository, and look at `git.ssh-key`.",
    ),
    row(
        Verdict::Unauthorized,
        "credential-missing-or-wrong",
        42,
        "The host wants a credential, and the server has none for it or a wrong one.",
        "It answered 401; the report names the credential that was used and where it is from.",
        "Give the server one for this host: `upstream.credential`, `git.token`, or netrc.",
    ),
    row(
        Verdict::Forbidden,
        "forbidden",
        43,
        "The host knows who asks, and does not allow it; or it filters by name or by network.",
        "It answered 403; the report names the credential that was used and where it is from, and the host's words.",
        "Have the credential's owner given the right to read, or use another upstream.",
    ),
    row(
        Verdict::RateLimited,
        "rate-limited",
        44,
        "The host gets too many requests from here.",
        "It answered 429.",
        "Wait; give the server a credential if the host has higher limits for those, and let all clients share this server.",
    ),
    row(
        Verdict::ServerError,
        "server-error",
        45,
        "The host itself is in trouble.",
        "It answered with a status of 500 or more.",
        "Tell its owner; put another upstream behind it over `|`.",
    ),
    row(
        Verdict::NotAProxy,
        "not-a-proxy",
        47,
        "What answers at this address is no module proxy, or one that does not take such a question.",
        "It answered with a status that the protocol does not know, like 400 or 405, or with redirects that lead nowhere; or it is a directory that is not there.",
        "Look at the path in the source's address; a server for several kinds of packages mostly has its Go modules below one.",
    ),
    row(
        Verdict::GitRefused,
        "git-failed",
        46,
        "git could not read the repository.",
        "`git ls-remote` failed; the report has its own words.",
        "Look at its words, at the module's path and at the server's credential for the host.",
    ),
    row(
        Verdict::TreeForked,
        "tree-forked",
        50,
        "The checksum database has signed two histories that contradict each other, or somebody has its key.",
        "Two signed tree heads of which neither continues the other.",
        "Build nothing from what is new. Keep both heads (the report has them) and tell the database's operator.",
    ),
    row(
        Verdict::RecordContradicts,
        "record-contradicts",
        51,
        "The module is not what the checksum database has on record: a tag was moved, or a source changes modules.",
        "The hash of what arrived differs from that of the record; the report has both.",
        "Do not use this source's copy. If the module's author has moved the tag, ask for a new version.",
    ),
    row(
        Verdict::DatabaseBlocked,
        "database-blocked",
        52,
        "The checksum database cannot be reached by any road, while modules can.",
        "No source passes it on, and its own address does not answer.",
        "Name a source that passes it on in `upstream.goproxy`, or another address of it: `sumdb.gosumdb = \"sum.golang.org https://sum.golang.google.cn\"`.",
    ),
    row(
        Verdict::DatabaseUnproven,
        "database-unproven",
        53,
        "What comes from the checksum database's address is not the database.",
        "The signature is not by the key that is expected, or tiles and record do not fit the signed tree.",
        "Look at GOSUMDB's key and address, and for something in between that changes answers.",
    ),
    row(
        Verdict::Malformed,
        "malformed",
        54,
        "A source answers 200 with something that is no answer to the question, like a login page.",
        "The body is not what the protocol says; the report shows its beginning.",
        "Look at the address of the source, and for a portal in between.",
    ),
    row(
        Verdict::RouteRefuses,
        "route-refuses",
        55,
        "A route of this server says that this module is not to be had.",
        "The first route whose pattern matches is `off`.",
        "Ask whoever wrote the route.",
    ),
    row(
        Verdict::NoRoute,
        "no-route",
        56,
        "It looks like a private module, and nothing tells the server where private modules come from.",
        "No public source has it, its own host is in a private network or has no public repository for it, and no route, GOPRIVATE or GONOPROXY names it.",
        "Name it in `upstream.goprivate` so that it comes from its own git, or give it a `[[route]]`.",
    ),
    row(
        Verdict::NoRecord,
        "no-record",
        57,
        "The checksum database does not know this version.",
        "It answered 404 for the record.",
        "If the module is private, name it in GOPRIVATE (here, and GONOSUMDB in the client). If it was just published, ask again in a few minutes.",
    ),
    row(
        Verdict::ModuleAbsent,
        "module-absent",
        58,
        "There is no such module.",
        "Every source that may be asked says 404.",
        "Look for a slip in the path (`/v2`, upper case), and whether the repository is public.",
    ),
    row(
        Verdict::VersionAbsent,
        "version-absent",
        59,
        "The module exists, this version of it does not.",
        "The sources have other versions of it and say 404 for this one; the report names the newest.",
        "Look for a slip in the version. A tag that was just pushed is seen by `stoa refresh`.",
    ),
    row(
        Verdict::BlackHoledIpv6,
        "black-holed-ipv6",
        60,
        "The machine believes that it has IPv6, and what it sends there is lost; each new connection waits for that first.",
        "Connects to the host's IPv6 addresses are not answered, those to its IPv4 addresses are.",
        "Mend or switch off IPv6 on this machine or its router.",
    ),
    row(
        Verdict::Slow,
        "slow",
        61,
        "The way to this host is slow.",
        "Bytes came at less than 64 KiB/s, or a stage that should take moments took more than three seconds.",
        "Use an upstream that is nearer. What was fetched once comes from the disk.",
    ),
    row(
        Verdict::DiskSlow,
        "disk-slow",
        62,
        "The disk of the data directory is slow.",
        "Writing 8 MiB and having them synced took more than two seconds, or did not end within ten.",
        "Look at what else uses the disk; a network file system is a bad place for a cache.",
    ),
];

impl Verdict {
    /// # Panics
    /// Never: a test looks every verdict up.
    pub fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.verdict == self).unwrap_or(&TABLE[0])
    }

    /// Whether it keeps anybody from anything, and does not only cost time.
    pub(crate) fn stops(self) -> bool {
        !matches!(self, Self::BlackHoledIpv6 | Self::Slow | Self::DiskSlow)
    }

    /// Where it stands in the table: the smaller explains more.
    pub(crate) fn rank(self) -> usize {
        TABLE.iter().position(|row| row.verdict == self).unwrap_or(TABLE.len())
    }
}

/// The table as `docs/troubleshooting.md` has it.
pub fn table_for_docs() -> String {
    let mut text = String::from(
        "| verdict | exit | likely cause | what proves it | what to do |\n|---|---|---|---|---|\n",
    );
    for row in TABLE {
        let cells =
            [row.code, &row.exit.to_string(), row.cause, row.evidence, row.to_do].join(" | ");
        text.extend(["| ", &cells, " |\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_verdict_has_a_name_and_a_status_of_its_own() {
        let (mut codes, mut exits) = (HashSet::new(), HashSet::new());
        for row in TABLE {
            assert!(codes.insert(row.code) && exits.insert(row.exit), "{row:?}");
            assert!(std::ptr::eq(row.verdict.row(), row), "two rows of one verdict: {row:?}");
            // 1 and 2 are the command's own, and shells have 126 and above.
            assert!(row.exit == 0 || (10..126).contains(&row.exit), "{row:?}");
            let sentences = [row.cause, row.evidence, row.to_do];
            assert!(
                sentences.iter().all(|text| text.ends_with('.') || text.ends_with('`')),
                "{row:?}"
            );
        }
        // A `match` without a wildcard would name them all; the last of the enum is enough beside the count.
        assert_eq!(TABLE.len(), Verdict::DiskSlow as usize + 1);
    }

    #[test]
    fn the_documentation_has_the_same_table() {
        let docs = include_str!("../../../../docs/troubleshooting.md");
        let table = table_for_docs();
        assert!(docs.contains(&table), "docs/troubleshooting.md must have this table:\n{table}");
    }
}
