//! What each setting of the go command does to the use of a stoa.

use std::collections::BTreeMap;

use serde::Serialize;
use stoa_module::{
    InvalidPattern, ModulePath, Patterns, ProxyItem, ProxyList, ProxySource, Separator,
};
use stoa_sumdb::GoSumDb;
use stoa_upstream::{ProxyEnvironment, netrc_has_login};
use url::{Host, Url};

use super::Verdict;
use super::machine::{Machine, Origin, Setting};
use crate::doctor::mask::{commands, mask, printable};

/// Everybody's modules: a pattern that names one of them was meant for more than private ones.
const PUBLIC: [&str; 5] = [
    "github.com/spf13/cobra",
    "golang.org/x/text",
    "google.golang.org/grpc",
    "gopkg.in/yaml.v3",
    "gitlab.com/gitlab-org/api/client-go",
];

const DATABASE: &str = "sum.golang.org";

/// One setting, and what it does.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub setting: &'static str,
    /// Without credentials; cut where it is very long.
    pub value: String,
    pub from: Origin,
    pub verdict: Verdict,
    pub says: String,
    /// What mends it, if a setting can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<Change>,
}

/// A setting as it should be. Never empty, since that would mean what `go env -w` stored.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    pub name: &'static str,
    pub value: String,
}

impl Finding {
    fn new(
        setting: &'static str,
        found: &Setting,
        verdict: Verdict,
        says: impl Into<String>,
    ) -> Self {
        let value = match setting {
            "GOAUTH" => commands(&found.value),
            "GOPROXY" | "GOSUMDB" | "HTTP_PROXY" | "HTTPS_PROXY" => mask(&found.value),
            _ => found.value.clone(),
        };
        let says = printable(&says.into());
        Self { setting, value: printable(&value), from: found.origin, verdict, says, set: None }
    }

    fn set(mut self, name: &'static str, value: impl Into<String>) -> Self {
        // Lines to paste are lines.
        let value = value.into().replace(char::is_control, " ");
        self.set = Some(Change { name, value });
        self
    }
}

/// The address as GOPROXY should name it. A login in it is left out: the go command finds it in the netrc file, and it
/// would be in every log of every build.
fn goproxy(stoa: &Url) -> String {
    let mut url = stoa.clone();
    // These fail only for addresses that cannot have credentials at all.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.as_str().trim_end_matches('/').to_owned()
}

/// Each setting that matters, in the order in which the go command looks at them.
pub(super) fn check(machine: &Machine, stoa: Option<&Url>) -> Vec<Finding> {
    let mut findings = vec![check_goproxy(machine, stoa)];
    findings.extend(check_private(machine));
    findings.push(check_gonoproxy(machine));
    findings.push(check_gonosumdb(machine));
    findings.push(check_gosumdb(machine, stoa));
    findings.push(check_goflags(machine));
    findings.extend(check_vendor(machine));
    findings.extend(check_go111module(machine));
    findings.push(check_gotoolchain(machine));
    findings.extend(check_direct_only(machine));
    if let Some(stoa) = stoa {
        findings.extend(check_outgoing_proxy(machine, stoa));
        findings.extend(check_credentials(machine, stoa));
    }
    findings.extend(check_files(machine));
    findings
}

/// What a machine without any settings needs in order to build as this one does.
pub(super) fn of_a_new_machine(machine: &Machine, stoa: &Url) -> BTreeMap<&'static str, String> {
    let mut set = BTreeMap::from([("GOPROXY", goproxy(stoa))]);
    for name in ["GONOSUMDB", "GOSUMDB"] {
        let Setting { value, origin } = machine.setting(name);
        if origin != Origin::Default {
            set.insert(name, value.replace(char::is_control, " "));
        }
    }
    set
}

fn check_goproxy(machine: &Machine, stoa: Option<&Url>) -> Finding {
    let found = machine.setting("GOPROXY");
    let finding = |verdict, says: String| {
        let finding = Finding::new("GOPROXY", &found, verdict, says);
        match stoa {
            Some(stoa) if verdict != Verdict::Fine => finding.set("GOPROXY", goproxy(stoa)),
            _ => finding,
        }
    };
    let defeats = |says: String| finding(Verdict::Defeats, says);
    let weakens = |says: String| finding(Verdict::Weakens, says);
    let list = match ProxyList::parse(&found.value) {
        Ok(list) => list,
        Err(error) => return defeats(format!("the go command fails with it: {error}")),
    };
    let Some(stoa) = stoa else {
        return defeats("it names no stoa: say which one, stoa doctor --client URL".to_owned());
    };
    let is_stoa =
        |item: &ProxyItem| matches!(&item.source, ProxySource::Url(url) if is_same(url, stoa));
    let Some(at) = list.items.iter().position(is_stoa) else {
        return defeats(not_named(&list, stoa));
    };
    let item = &list.items[at];
    if let ProxySource::Url(url) = &item.source
        && url.scheme() == "http"
        && has_login(url)
    {
        let says = "the go command sends no password over http and fails: let what asks for it speak https";
        return defeats(says.to_owned());
    }
    let before = &list.items[..at];
    if let Some(other) = before.iter().find(|item| !is_file(item)) {
        let says = format!("stoa gets only what {} does not have", name(other));
        return defeats(says);
    }
    if let Some(directory) = before.first() {
        return weakens(format!("what is in {} does not come from stoa", name(directory)));
    }
    let when = match item.separator {
        Separator::Pipe => "whatever stoa refuses or fails at",
        Separator::Comma => "what stoa does not have",
    };
    match list.items.get(1).map(|item| (&item.source, item)) {
        None | Some((ProxySource::Off, _)) => {
            finding(Verdict::Fine, "modules come from stoa, and from nowhere else".to_owned())
        }
        Some((ProxySource::Direct, _)) => weakens(format!(
            "{when} is looked for at its git host, past stoa: names leave this machine, and without internet it hangs"
        )),
        Some((ProxySource::Url(_), item)) => {
            weakens(format!("{when} is asked for at {}: names leave for there", name(item)))
        }
    }
}

/// Why no entry is the stoa, as exactly as can be told.
fn not_named(list: &ProxyList, stoa: &Url) -> String {
    let urls = list.items.iter().filter_map(|item| match &item.source {
        ProxySource::Url(url) => Some(url),
        ProxySource::Direct | ProxySource::Off => None,
    });
    let near = urls.filter(|url| is_same_host(url, stoa)).map(|url| {
        let shown = goproxy(url);
        if url.scheme() != stoa.scheme() {
            format!("{shown} is not {}: the scheme is another one", goproxy(stoa))
        } else if url.port_or_known_default() != stoa.port_or_known_default() {
            format!("{shown} is not {}: the port is another one", goproxy(stoa))
        } else {
            format!("{shown} is not {}: the path is another one", goproxy(stoa))
        }
    });
    if let Some(says) = near.into_iter().next() {
        return says;
    }
    match list.items.first().map(|item| &item.source) {
        Some(ProxySource::Off) => "nothing is downloaded at all".to_owned(),
        Some(ProxySource::Direct) => "modules come from their git hosts, not from stoa".to_owned(),
        _ => format!("{} is not in it, so nothing comes from stoa", goproxy(stoa)),
    }
}

fn is_file(item: &ProxyItem) -> bool {
    matches!(&item.source, ProxySource::Url(url) if url.scheme() == "file")
}

fn name(item: &ProxyItem) -> String {
    match &item.source {
        ProxySource::Url(url) => goproxy(url),
        other => other.to_string(),
    }
}

fn has_login(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn is_same(one: &Url, other: &Url) -> bool {
    let path = |url: &Url| url.path().trim_end_matches('/').to_owned();
    one.scheme() == other.scheme()
        && is_same_host(one, other)
        && one.port_or_known_default() == other.port_or_known_default()
        && path(one) == path(other)
}

fn is_same_host(one: &Url, other: &Url) -> bool {
    one.host() == other.host() || (is_loopback(one) && is_loopback(other))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// The patterns of a list as the go command takes them: each by itself, and not without the spaces around it.
struct Globs {
    /// Those that name something private.
    private: Vec<String>,
    /// A public module that one of them names.
    public: Option<&'static str>,
    /// Why one of them names nothing.
    mistake: Option<String>,
}

impl Globs {
    fn of(list: &str) -> Self {
        let mut globs = Self { private: Vec::new(), public: None, mistake: None };
        for item in list.split(',').filter(|item| !item.is_empty()) {
            let trimmed = item.trim();
            if trimmed.is_empty() || trimmed == "none" {
                continue;
            }
            let mut meant = trimmed.trim_end_matches('/');
            if trimmed != item {
                globs.mistake = Some(format!("{trimmed:?} has a space beside it"));
            }
            let mut parsed = Patterns::parse(meant);
            if let Err(error) = &parsed {
                globs.mistake = Some(error.to_string());
                let (InvalidPattern::EmptyElement(_), Some((_, rest))) =
                    (error, meant.split_once("://"))
                else {
                    continue;
                };
                meant = rest;
                parsed = Patterns::parse(meant);
            }
            let Ok(pattern) = parsed else { continue };
            match PUBLIC.into_iter().find(|module| names(&pattern, module)) {
                Some(public) => globs.public = Some(public),
                None => globs.private.push(meant.to_owned()),
            }
        }
        globs
    }

    fn is_empty(&self) -> bool {
        self.private.is_empty() && self.public.is_none()
    }

    fn covers(&self, glob: &str) -> bool {
        let same = |own: &String| own == glob;
        let wider = |own: &String| Patterns::parse(own).is_ok_and(|own| names(&own, glob));
        self.private.iter().any(|own| same(own) || wider(own))
    }

    /// As a setting says it.
    fn to_value(&self) -> String {
        if self.private.is_empty() { "none".to_owned() } else { self.private.join(",") }
    }
}

fn names(patterns: &Patterns, module: &str) -> bool {
    ModulePath::parse(module).is_ok_and(|module| patterns.matches(&module))
}

fn check_private(machine: &Machine) -> Option<Finding> {
    let found = machine.setting("GOPRIVATE");
    let says = "GONOPROXY and GONOSUMDB are as this where nothing sets them";
    (!found.value.is_empty()).then(|| Finding::new("GOPRIVATE", &found, Verdict::Fine, says))
}

fn check_gonoproxy(machine: &Machine) -> Finding {
    let found = machine.setting("GONOPROXY");
    let globs = Globs::of(&found.value);
    let through = |verdict, says: &str| Finding::new("GONOPROXY", &found, verdict, says);
    if let Some(public) = globs.public {
        let says = format!(
            "it also names public modules ({public}): they come from their git hosts, past stoa"
        );
        return through(Verdict::Defeats, &says).set("GONOPROXY", "none");
    }
    if globs.is_empty() {
        return through(Verdict::Fine, "no module goes past stoa");
    }
    let says =
        "these modules come from their git host to this machine, past stoa, which could fetch them";
    through(Verdict::Weakens, says).set("GONOPROXY", "none")
}

fn check_gonosumdb(machine: &Machine) -> Finding {
    let found = machine.setting("GONOSUMDB");
    let finding = |verdict, says: &str| Finding::new("GONOSUMDB", &found, verdict, says);
    let mut globs = Globs::of(&found.value);
    let elsewhere = Globs::of(&machine.setting("GONOPROXY").value).private;
    let missing: Vec<String> = elsewhere.into_iter().filter(|glob| !globs.covers(glob)).collect();
    let says = if let Some(public) = globs.public {
        format!(
            "it also names public modules ({public}): nothing proves to this machine what stoa sends it of them. \
             Name private hosts only"
        )
    } else if let Some(mistake) = &globs.mistake {
        format!("the go command passes over a part of it: {mistake}")
    } else if let Some(missing) = missing.first() {
        format!(
            "{missing} is private (GONOPROXY), but looked up in the public database: its name leaves, builds fail"
        )
    } else if globs.is_empty() {
        let says =
            "every module is looked up; name private ones here, or their lookup fails the build";
        return finding(Verdict::Fine, says);
    } else {
        return finding(
            Verdict::Fine,
            "these are not looked up, as it must be for private modules",
        );
    };
    globs.private.extend(missing);
    finding(Verdict::Weakens, &says).set("GONOSUMDB", globs.to_value())
}

/// The database that the go command would ask through its proxies, if any.
pub(super) fn database(machine: &Machine) -> Option<String> {
    match GoSumDb::parse(&machine.setting("GOSUMDB").value) {
        Ok(GoSumDb::Database { key, url: None }) => Some(key.name().to_owned()),
        _ => None,
    }
}

fn check_gosumdb(machine: &Machine, stoa: Option<&Url>) -> Finding {
    let found = machine.setting("GOSUMDB");
    let finding = |verdict, says: &str| Finding::new("GOSUMDB", &found, verdict, says);
    match GoSumDb::parse(&found.value) {
        Err(error) => finding(Verdict::Defeats, &format!("every lookup fails: {error}"))
            .set("GOSUMDB", DATABASE),
        Ok(GoSumDb::Off) => {
            let says = "stoa still verifies, but proves nothing to this machine; and no Go toolchain can be downloaded";
            finding(Verdict::Weakens, says).set("GOSUMDB", DATABASE)
        }
        Ok(GoSumDb::Database { url: None, .. }) => {
            finding(Verdict::Fine, "the go command verifies for itself what stoa sends")
        }
        Ok(GoSumDb::Database { key, url: Some(url) }) => {
            let own = stoa
                .is_some_and(|stoa| url.as_str().starts_with(&format!("{}/sumdb/", goproxy(stoa))));
            if own {
                return finding(Verdict::Fine, "the checksum database is read through stoa");
            }
            let says = format!(
                "the checksum database is asked at {}, past stoa: it fails or hangs where that is out of reach",
                goproxy(&url)
            );
            let key = if key.name() == DATABASE { DATABASE.to_owned() } else { key.to_string() };
            finding(Verdict::Weakens, &says).set("GOSUMDB", key)
        }
    }
}

fn check_goflags(machine: &Machine) -> Finding {
    let found = machine.setting("GOFLAGS");
    let finding = |verdict, says: &str| Finding::new("GOFLAGS", &found, verdict, says);
    // A quoted flag holds spaces, but neither of these is quoted by anybody.
    let flags: Vec<&str> = found.value.split_whitespace().collect();
    let plain = |flag: &str| flag.strip_prefix("--").or(flag.strip_prefix('-')).map(str::to_owned);
    let with = |bad: &str, good: &str| {
        let parts = found.value.split_inclusive(char::is_whitespace).map(|part| {
            let flag = part.trim_end();
            let mended = if plain(flag).as_deref() == Some(bad) { good } else { flag };
            format!("{mended}{}", &part[flag.len()..])
        });
        parts.collect::<String>()
    };
    if flags.iter().any(|flag| matches!(plain(flag).as_deref(), Some("insecure"))) {
        let says = "go get fails: there is no such flag any more, and stoa needs none";
        return finding(Verdict::Defeats, says).set("GOFLAGS", with("insecure", "-insecure=false"));
    }
    let mut modes =
        flags.iter().filter_map(|flag| plain(flag)?.strip_prefix("mod=").map(str::to_owned));
    if modes.next_back().as_deref() == Some("vendor") {
        let says = "builds take everything from vendor/ and ask nobody";
        return finding(Verdict::Defeats, says).set("GOFLAGS", with("mod=vendor", "-mod=readonly"));
    }
    finding(Verdict::Fine, "nothing here keeps the go command from stoa")
}

fn check_vendor(machine: &Machine) -> Option<Finding> {
    let vendor = machine.vendor.as_ref()?;
    let value = vendor.display().to_string();
    let found = Setting { value, origin: Origin::Default };
    let says = "builds of this project take everything from there; go get and go mod tidy ask stoa";
    Some(Finding::new("vendor", &found, Verdict::Fine, says))
}

fn check_go111module(machine: &Machine) -> Option<Finding> {
    let found = machine.setting("GO111MODULE");
    let finding = |verdict, says: &str| Finding::new("GO111MODULE", &found, verdict, says);
    match found.value.as_str() {
        "" | "on" => None,
        "auto" => Some(finding(Verdict::Fine, "modules are used where there is a go.mod")),
        "off" => {
            let says =
                "there are no modules at all: the go command looks in GOPATH, and asks no proxy";
            Some(finding(Verdict::Defeats, says).set("GO111MODULE", "on"))
        }
        _ => Some(finding(Verdict::Defeats, "the go command refuses it").set("GO111MODULE", "on")),
    }
}

fn check_gotoolchain(machine: &Machine) -> Finding {
    let found = machine.setting("GOTOOLCHAIN");
    let finding = |verdict, says: &str| Finding::new("GOTOOLCHAIN", &found, verdict, says);
    let (least, then) = match found.value.as_str() {
        "auto" => ("local", Some("auto")),
        "path" => ("local", Some("path")),
        value => value.split_once('+').map_or((value, None), |(least, then)| (least, Some(then))),
    };
    if !(least == "local" || least.starts_with("go1"))
        || !matches!(then, None | Some("auto" | "path"))
    {
        return finding(Verdict::Defeats, "the go command refuses it").set("GOTOOLCHAIN", "auto");
    }
    let says = match (least, then) {
        ("local", None) => "no toolchain is ever downloaded",
        (_, Some("path")) => "newer toolchains are looked for in PATH, and never downloaded",
        _ => "other toolchains come through stoa like modules",
    };
    finding(Verdict::Fine, says)
}

/// What only speaks of modules that come from their hosts, past every proxy.
fn check_direct_only(machine: &Machine) -> Vec<Finding> {
    let about = [
        (
            "GOINSECURE",
            "this is about modules' own hosts; stoa's certificate has to be accepted all the same",
        ),
        ("GOVCS", "this is about what comes past every proxy"),
    ];
    let set = about.map(|(name, says)| (name, machine.setting(name), says));
    let set = set.into_iter().filter(|(_, found, _)| !found.value.is_empty());
    set.map(|(name, found, says)| Finding::new(name, &found, Verdict::Fine, says)).collect()
}

/// The outgoing proxy on the way to stoa, by Go's rules.
fn check_outgoing_proxy(machine: &Machine, stoa: &Url) -> Option<Finding> {
    let environment = outgoing(machine);
    let (setting, value) = match stoa.scheme() {
        "https" => ("HTTPS_PROXY", environment.https.clone()?),
        _ => ("HTTP_PROXY", environment.http.clone()?),
    };
    let found = Setting { value, origin: Origin::Environment };
    let finding = |verdict, says: &str| Finding::new(setting, &found, verdict, says);
    let host = stoa.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let exceptions = match &environment.no {
        Some(no) => format!("{no},{host}"),
        None => host.to_owned(),
    };
    match environment.proxy_of(stoa) {
        Ok(None) => Some(finding(Verdict::Fine, "stoa is reached without it (NO_PROXY)")),
        Ok(Some(_)) => {
            let says =
                "every request to stoa takes this proxy, which has to reach it and slows it down";
            Some(finding(Verdict::Weakens, says).set("NO_PROXY", exceptions))
        }
        Err(error) => {
            let says = format!("the go command cannot use it: {error}");
            Some(finding(Verdict::Defeats, &says).set("NO_PROXY", exceptions))
        }
    }
}

/// The outgoing proxies of this machine.
pub(super) fn outgoing(machine: &Machine) -> ProxyEnvironment {
    ProxyEnvironment::from_variables(|name| machine.variable(name).map(str::to_owned))
}

/// Where the go command takes a password for stoa from. Stoa itself asks for none; what stands before it may.
fn check_credentials(machine: &Machine, stoa: &Url) -> Vec<Finding> {
    let found = machine.setting("GOAUTH");
    let finding = |verdict, says: &str| Finding::new("GOAUTH", &found, verdict, says);
    let mut findings = Vec::new();
    if stoa.scheme() != "https" {
        if found.origin != Origin::Default {
            let says = "not used for stoa: the go command sends credentials over https alone";
            findings.push(finding(Verdict::Fine, says));
        }
        return findings;
    }
    let methods: Vec<Vec<&str>> =
        found.value.split(';').map(|method| method.split_whitespace().collect()).collect();
    let is = |name: &'static str| move |method: &Vec<&str>| method.first() == Some(&name);
    let mistake = if methods.iter().any(Vec::is_empty) {
        Some("there is an empty command in it")
    } else if methods.len() > 1 && methods.iter().any(is("off")) {
        Some("off cannot be combined with anything")
    } else if methods.iter().any(|m| is("git")(m) && !(m.len() == 2 && m[1].starts_with('/'))) {
        Some("git needs one absolute directory")
    } else {
        None
    };
    if let Some(mistake) = mistake {
        let says = format!("the go command fails with it over https: {mistake}");
        findings.push(finding(Verdict::Defeats, &says).set("GOAUTH", "netrc"));
    } else if found.origin != Origin::Default {
        let says = match found.value.trim() {
            "off" => "no password is sent to stoa",
            _ => "it says which password is sent to stoa, if that asks for one",
        };
        findings.push(finding(Verdict::Fine, says));
    }
    if methods.iter().any(is("netrc"))
        && let Some(netrc) = machine.netrc()
    {
        let says = match netrc_has_login(&netrc, stoa) {
            Ok(true) => "it has a login for stoa".to_owned(),
            Ok(false) => "it has no login for stoa".to_owned(),
            Err(error) => error.to_string(),
        };
        let origin = match machine.variable("NETRC") {
            Some(_) => Origin::Environment,
            None => Origin::Default,
        };
        let found = Setting { value: netrc.display().to_string(), origin };
        findings.push(Finding::new("netrc", &found, Verdict::Fine, says));
    }
    findings
}

/// Where the go command keeps its settings and what it downloads.
fn check_files(machine: &Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    let goenv = machine.setting("GOENV");
    if goenv.value == "off" {
        let says = "what go env -w stores is not read";
        findings.push(Finding::new("GOENV", &goenv, Verdict::Fine, says));
    }
    if let Some(trouble) = &machine.modcache_trouble {
        let says = format!("nothing that is downloaded can be kept, and builds fail: {trouble}");
        let found = machine.setting("GOMODCACHE");
        findings.push(Finding::new("GOMODCACHE", &found, Verdict::Defeats, says));
    }
    findings
}
