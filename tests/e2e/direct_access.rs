//! Who the server is towards a company's git, over https and over ssh, by the settings and by the user's own set-up of git:
//! right, wrong and missing credentials, which nobody is asked for and which are found nowhere afterwards.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use stoa_testkit::{Fault, Gate, SshServer, require_git, require_sshd};

use crate::direct_world::{
    Corp, GIT, PASSWORD, Secrets, TOKEN, USER, is_well, known_to_git, processes, settings,
};
use crate::fixtures::{BOUNDED, bounded};
use crate::stoa::{Setup, Stoa};

/// Where pages are for everybody, and repositories are not.
const OPEN: &str = "open.corp.example.com";

/// A set-up of the server, and what it is answered: 200, or another status and these words.
type Case = (&'static str, fn(Setup) -> Setup, &'static str, u16, &'static str);

/// The user's own configuration of git.
fn gitconfig(setup: Setup, text: &str) -> Setup {
    let file = setup.scratch().join("gitconfig");
    fs_err::write(&file, text).unwrap();
    setup.env("GIT_CONFIG_GLOBAL", file.display())
}

fn netrc(setup: Setup, password: &str) -> Setup {
    let text = format!("machine {GIT} login {USER} password {password}\n");
    fs_err::write(setup.scratch().join(".netrc"), text).unwrap();
    setup
}

fn password_file(setup: Setup, host: &str, password: &str) -> Setup {
    fs_err::write(setup.scratch().join("password"), format!("{password}\n")).unwrap();
    let toml = format!(
        "[[upstream.credential]]\nprefix = \"https://{host}/\"\nusername = \"{USER}\"\n\
         password-file = \"{}\"\n",
        setup.scratch().join("password").display()
    );
    settings(setup, toml)
}

fn token_env(setup: Setup, token: &str) -> Setup {
    let toml = format!(
        "[[upstream.credential]]\nprefix = \"https://{GIT}/r\"\ntoken-env = \"CORP_TOKEN\"\n\
         [[upstream.credential]]\nprefix = \"https://{GIT}/\"\ntoken-env = \"CORP_TOKEN\"\n"
    );
    settings(setup, toml).env("CORP_TOKEN", token)
}

fn helper(setup: Setup, command: &str) -> Setup {
    gitconfig(setup, &format!("[credential]\n\thelper = \"!{command}\"\n"))
}

fn says(password: &str) -> String {
    format!("f() {{ echo username={USER}; echo password={password}; }}; f")
}

const REFUSED: &str = "git: authentication failed";
const NOBODY: &str = "no such repository, or it needs a credential that the server does not have";

const HTTPS: &[Case] = &[
    ("password-file", |it| password_file(it, GIT, PASSWORD), GIT, 200, ""),
    ("password-file, wrong", |it| password_file(it, OPEN, "WrongPa55word"), OPEN, 403, REFUSED),
    ("token-env", |it| token_env(it, TOKEN), GIT, 200, ""),
    (
        "one host, a user",
        |it| {
            let it = it.env("STOA_GIT_HOST", GIT).env("STOA_GIT_USER", USER);
            it.env("STOA_GIT_TOKEN", PASSWORD)
        },
        GIT,
        200,
        "",
    ),
    (
        "one token for the host of GOPRIVATE",
        |it| it.env("STOA_GOPRIVATE", GIT).env("STOA_GIT_TOKEN", TOKEN),
        GIT,
        200,
        "",
    ),
    (
        "the same in a file",
        |it| {
            let file = it.scratch().join("token");
            fs_err::write(&file, format!("{TOKEN}\n")).unwrap();
            it.env("STOA_GOPRIVATE", GIT).env("STOA_GIT_TOKEN_FILE", file.display())
        },
        GIT,
        200,
        "",
    ),
    (
        "one token, wrong",
        |it| it.env("STOA_GIT_HOST", OPEN).env("STOA_GIT_TOKEN", "WrongToken"),
        OPEN,
        403,
        REFUSED,
    ),
    (
        "one user, wrong",
        |it| {
            let it = it.env("STOA_GIT_HOST", OPEN).env("STOA_GIT_USER", "other");
            it.env("STOA_GIT_TOKEN", PASSWORD)
        },
        OPEN,
        403,
        REFUSED,
    ),
    ("netrc", |it| netrc(it, PASSWORD), GIT, 200, ""),
    ("a helper", |it| helper(it, &says(PASSWORD)), OPEN, 200, ""),
    ("a helper, wrong", |it| helper(it, &says("WrongPa55word")), OPEN, 403, REFUSED),
    (
        "a helper that waits",
        |it| helper(it, "f() { sleep 600; }; f").env("STOA_GIT_LIST_TIMEOUT", "1s"),
        OPEN,
        504,
        "git: timeout after 1 s",
    ),
    ("nothing", |it| it, OPEN, 404, NOBODY),
    ("nothing, and no page either", |it| it, GIT, 404, "may not see"),
];

#[tokio::test]
async fn credentials_over_https() {
    if !require_git() {
        return;
    }
    let corp = Corp::new();
    corp.host(GIT, "lib", "lib").access("/", known_to_git());
    corp.host(OPEN, "lib", "lib").access("/r", known_to_git());
    let secrets = Secrets::of(&[PASSWORD, TOKEN, "WrongPa55word", "WrongToken"]);
    for &(name, set_up, host, status, words) in HTTPS {
        eprintln!("{name}");
        let setup = set_up(corp.setup()).env("STOA_LOG_LEVEL", "trace");
        let stoa = setup.start();
        ask(&stoa, &format!("{host}/lib"), status, words, &secrets).await;
        nothing_is_left(&setup, stoa, &secrets).await;
    }
}

/// All files of a version, or how the first is refused.
async fn ask(stoa: &Stoa, module: &str, status: u16, words: &str, secrets: &Secrets) {
    for file in ["v1.0.0.info", "v1.0.0.mod", "v1.0.0.zip", "list"] {
        let reply = bounded(stoa.get(&format!("{module}/@v/{file}"))).await;
        secrets.are_not_in("an answer", &String::from_utf8_lossy(&reply.body));
        if status != 200 {
            return reply.refused(status, words);
        }
        reply.ok();
    }
}

/// No process of a server, and no secret anywhere.
async fn nothing_is_left(setup: &Setup, stoa: Stoa, secrets: &Secrets) {
    is_well(setup, &stoa).await;
    let metrics = stoa.get("metrics").await;
    secrets.are_not_in("metrics", metrics.text());
    secrets.are_not_below(&setup.data_dir());
    let (_, log) = stoa.stop();
    assert!(log.contains("stoa is listening"), "{log}");
    secrets.are_not_in("the log", &log);
}

#[tokio::test]
async fn secrets_are_not_in_the_arguments_of_a_running_command() {
    if !require_git() {
        return;
    }
    let corp = Corp::new();
    let gate = Gate::new();
    let host = corp.host(GIT, "lib", "lib").access("/", known_to_git());
    host.fault("/r/lib/*", Fault::gate(&gate));
    let secrets = Secrets::of(&[TOKEN]);
    let setup = corp.setup().env("STOA_GIT_HOST", GIT).env("STOA_GIT_TOKEN", TOKEN);
    let stoa = setup.start();
    let asking = stoa.get("git.corp.example.com/lib/@v/v1.0.0.zip");
    let looking = async {
        corp.internet.wait_for_request(GIT, "/r/lib/*").await;
        let running = processes(&setup, &stoa);
        assert!(running.iter().any(|line| line.contains("ls-remote")), "{running:?}");
        assert!(running.iter().any(|line| line.contains("remote-https")), "{running:?}");
        for line in &running {
            secrets.are_not_in("an argument", line);
        }
        gate.open();
    };
    let (zip, ()) = tokio::join!(asking, looking);
    zip.ok();
    is_well(&setup, &stoa).await;
}

/// As [`Case`], with the sshd that it is about.
type SshCase = (&'static str, fn(Setup, &SshServer) -> Setup, &'static str, u16, &'static str);

/// Named with https by its page.
const BY_HTTPS: &str = "https.corp.example.com";
/// Named with ssh by its page, at a host that only a configuration of ssh knows.
const BY_SSH: &str = "ssh.corp.example.com";

/// The settings' own key.
fn ssh_key(setup: Setup, ssh: &SshServer, key: &Path, known: &Path) -> Setup {
    let toml = format!(
        "[[upstream.credential]]\nprefix = \"ssh://{}@127.0.0.1:{}/\"\nssh-key-file = \"{}\"\n\
         known-hosts-file = \"{}\"\n",
        ssh.user(),
        ssh.port(),
        key.display(),
        known.display()
    );
    settings(setup, toml).env("STOA_GOPRIVATE", "*.corp.example.com,127.0.0.1")
}

/// The user's `insteadOf`, which sends what is named with https to the sshd.
fn instead(setup: Setup, ssh: &SshServer) -> Setup {
    let (url, of) = (ssh.url(""), format!("https://{GIT}/r/"));
    let command = ssh.command(&ssh.key_file(), &ssh.known_hosts_file());
    gitconfig(setup, &format!("[url \"{url}\"]\n\tinsteadOf = {of}\n"))
        .env("GIT_SSH_COMMAND", command)
}

const KEY_REFUSED: &str = "authentication failed";
const UNKNOWN_HOST: &str = "the ssh host key is not known, or not the one that is known";

const SSH: &[SshCase] = &[
    (
        "a key of the settings",
        |it, ssh| ssh_key(it, ssh, &ssh.key_file(), &ssh.known_hosts_file()),
        BY_HTTPS,
        200,
        "",
    ),
    (
        "another key",
        |it, ssh| ssh_key(it, ssh, &ssh.other_key_file(), &ssh.known_hosts_file()),
        BY_HTTPS,
        403,
        KEY_REFUSED,
    ),
    (
        "a key that others may read",
        |it, ssh| {
            let key = it.scratch().join("key");
            fs_err::copy(ssh.key_file(), &key).unwrap();
            fs_err::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
            ssh_key(it, ssh, &key, &ssh.known_hosts_file())
        },
        BY_HTTPS,
        403,
        "the ssh key cannot be used",
    ),
    (
        "an unknown host key",
        |it, ssh| {
            fs_err::write(it.scratch().join("known"), "").unwrap();
            let known = it.scratch().join("known");
            ssh_key(it, ssh, &ssh.key_file(), &known)
        },
        BY_HTTPS,
        502,
        UNKNOWN_HOST,
    ),
    (
        "a changed host key",
        |it, ssh| ssh_key(it, ssh, &ssh.key_file(), &ssh.other_known_hosts_file()),
        BY_HTTPS,
        502,
        UNKNOWN_HOST,
    ),
    (
        "GIT_SSH_COMMAND",
        |it, ssh| it.env("GIT_SSH_COMMAND", format!("ssh -F {}", ssh.config_file().display())),
        BY_SSH,
        200,
        "",
    ),
    (
        "GIT_SSH_COMMAND that would ask whether to trust the host",
        |it, ssh| {
            let asking = "-oBatchMode=no -oStrictHostKeyChecking=ask -oUserKnownHostsFile=none";
            it.env("GIT_SSH_COMMAND", format!("ssh {asking} -F {}", ssh.config_file().display()))
        },
        BY_SSH,
        502,
        UNKNOWN_HOST,
    ),
    (
        "core.sshCommand",
        |it, ssh| {
            let file = ssh.config_file();
            gitconfig(it, &format!("[core]\n\tsshCommand = ssh -F {}\n", file.display()))
        },
        BY_SSH,
        200,
        "",
    ),
    (
        "insteadOf",
        |it, ssh| instead(it.env("STOA_GOPRIVATE", "*.corp.example.com,127.0.0.1"), ssh),
        GIT,
        200,
        "",
    ),
    ("insteadOf a host that nobody names", instead, GIT, 403, "is not a public one"),
];

#[tokio::test]
async fn keys_over_ssh() {
    if !require_sshd() {
        return;
    }
    let corp = Corp::new();
    let ssh = SshServer::start(&corp.remotes);
    corp.import(GIT, "lib", &format!("https://{GIT}/r/lib"));
    let path = corp.remotes.path("lib");
    corp.import(BY_HTTPS, "lib", &format!("https://127.0.0.1{}", path.display()));
    corp.import(BY_SSH, "lib", &ssh.host_url(BY_SSH, "lib"));
    let key = fs_err::read_to_string(ssh.key_file()).unwrap();
    let secrets = Secrets::of(&[key.lines().nth(2).unwrap()]);
    for &(name, set_up, host, status, words) in SSH {
        eprintln!("{name}");
        let setup = set_up(corp.setup(), &ssh).env("STOA_LOG_LEVEL", "trace");
        let stoa = setup.start();
        ask(&stoa, &format!("{host}/lib"), status, words, &secrets).await;
        nothing_is_left(&setup, stoa, &secrets).await;
    }
}

/// An agent with one key; it ends with this.
struct Agent(Child);

impl Agent {
    fn start(socket: &Path, key: &Path) -> Self {
        let mut command = Command::new("ssh-agent");
        command.args(["-D", "-a"]).arg(socket).stdout(Stdio::null()).stderr(Stdio::null());
        let agent = Self(command.spawn().unwrap());
        let until = Instant::now() + BOUNDED;
        while !socket.exists() {
            assert!(Instant::now() < until, "there is no {}", socket.display());
            std::thread::sleep(Duration::from_millis(5));
        }
        let added = Command::new("ssh-add").arg(key).env("SSH_AUTH_SOCK", socket).output().unwrap();
        assert!(added.status.success(), "{added:?}");
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[tokio::test]
async fn an_agent_is_asked() {
    if !require_sshd() {
        return;
    }
    let corp = Corp::new();
    let ssh = SshServer::start(&corp.remotes);
    corp.import(BY_SSH, "lib", &ssh.host_url(BY_SSH, "lib"));
    let setup = corp.setup();
    // It knows the host, and no key.
    let config = fs_err::read_to_string(ssh.config_file()).unwrap();
    let kept = |line: &&str| !line.starts_with("Identit");
    let config = config.lines().filter(kept).collect::<Vec<_>>().join("\n");
    let file = setup.scratch().join("ssh_config");
    fs_err::write(&file, config).unwrap();
    let setup = setup.env("GIT_SSH_COMMAND", format!("ssh -F {}", file.display()));
    let socket = setup.scratch().join("agent");
    for (key, status, words) in
        [(ssh.key_file(), 200, ""), (ssh.other_key_file(), 403, KEY_REFUSED)]
    {
        let agent = Agent::start(&socket, &key);
        let setup = setup.clone().env("SSH_AUTH_SOCK", socket.display());
        let stoa = setup.start();
        let reply = bounded(stoa.get(&format!("{BY_SSH}/lib/@v/v1.0.0.zip"))).await;
        if status == 200 {
            reply.ok();
        } else {
            reply.refused(status, words);
        }
        is_well(&setup, &stoa).await;
        drop(agent);
        // What was fetched must not answer for the other.
        drop(stoa);
        fs_err::remove_dir_all(setup.data_dir()).unwrap();
        _ = fs_err::remove_file(&socket);
    }
}

/// A stranger's page names the company's repository: what the server may read there is not for that module.
#[tokio::test]
async fn a_strangers_page_spends_no_credential() {
    if !require_git() {
        return;
    }
    let corp = Corp::new();
    corp.host(GIT, "lib", "lib").access("/", known_to_git());
    for module in ["lib", "again"] {
        corp.import("evil.example.org", module, &format!("https://{GIT}/r/lib"));
    }
    let setup = corp.setup().env("STOA_GOPROXY", "direct").env("STOA_GOSUMDB", "off");
    let setup = setup.env("STOA_GIT_HOST", GIT).env("STOA_GIT_TOKEN", TOKEN);
    let stoa = setup.start();
    for file in ["@v/list", "@v/v1.0.0.info", "@latest"] {
        let path = format!("evil.example.org/lib/{file}");
        bounded(stoa.get(&path)).await.refused(404, "needs a credential");
    }
    let asked = corp.internet.requests(GIT);
    assert!(!asked.is_empty(), "nobody asked there");
    assert!(asked.iter().all(|request| request.header("authorization").is_none()), "{asked:?}");
    // The same repository under its own name; and what was read of it then is still not the stranger's.
    for file in ["@v/list", "@v/v1.0.0.info", "@v/v1.0.0.zip"] {
        bounded(stoa.get(&format!("{GIT}/lib/{file}"))).await.ok();
    }
    for file in ["@v/list", "@v/v1.0.0.info", "@v/v1.0.0.zip"] {
        let path = format!("evil.example.org/again/{file}");
        bounded(stoa.get(&path)).await.refused(404, "needs a credential");
    }
    is_well(&setup, &stoa).await;
}
