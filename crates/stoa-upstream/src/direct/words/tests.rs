use super::*;

#[test]
fn what_git_and_its_hosts_say() {
    use ErrorClass::{Denied, NotFound, Unavailable};
    let check = |words: &str, class: ErrorClass, says: &str| {
        let fault = fault(words);
        assert_eq!(fault.class, class, "{words}: {}", fault.detail);
        assert!(fault.detail.contains(says), "{words}: {}", fault.detail);
        assert!(fault.detail.starts_with("git: "), "{}", fault.detail);
    };
    // git 2.39 over https.
    check(
        "fatal: could not read Username for 'https://github.com': terminal prompts disabled\n",
        NotFound,
        "no such repository, or it needs a credential",
    );
    check(
        "remote: Invalid username or password.\nfatal: Authentication failed for 'https://github.com/x/y/'\n",
        Denied,
        "authentication failed",
    );
    check(
        "remote: HTTP Basic: Access denied\nfatal: Authentication failed for 'https://gitlab.com/x.git/'\n",
        Denied,
        "authentication failed",
    );
    check(
        "remote: Repository not found.\nfatal: repository 'https://github.com/x/y/' not found\n",
        NotFound,
        "no such repository",
    );
    check("fatal: repository 'https://git.example.com/x/' not found\n", NotFound, "no such");
    check(
        "fatal: unable to access 'https://x.invalid/': Could not resolve host: x.invalid\n",
        Unavailable,
        "name cannot be resolved",
    );
    check(
        "fatal: unable to access 'https://127.0.0.1/': SSL certificate problem: self signed certificate\n",
        Unavailable,
        "certificate is not trusted",
    );
    check(
        "fatal: unable to access 'https://h/': server certificate verification failed. CAfile: none CRLfile: none\n",
        Unavailable,
        "certificate is not trusted",
    );
    check(
        "fatal: unable to access 'https://h/': SSL: certificate subject name (a) does not match target host name 'h'\n",
        Unavailable,
        "certificate is for another name",
    );
    check(
        "fatal: unable to access 'https://h/': CONNECT tunnel failed, response 502\n",
        Unavailable,
        "the outgoing proxy",
    );
    check(
        "fatal: unable to access 'https://h/': Received HTTP code 403 from proxy after CONNECT\n",
        Unavailable,
        "the outgoing proxy",
    );
    check(
        "fatal: unable to access 'https://h/': The requested URL returned error: 403\n",
        NotFound,
        "no such repository",
    );
    check(
        "fatal: unable to access 'https://h/': The requested URL returned error: 503\n",
        Unavailable,
        "the host has an error",
    );
    check(
        "fatal: unable to access 'https://h/': The requested URL returned error: 429\n",
        Unavailable,
        "fewer requests",
    );
    check(
        "fatal: unable to access 'https://127.0.0.1:1/x/': Failed to connect to 127.0.0.1 port 1 after 0 ms: Couldn't connect to server\n",
        Unavailable,
        "cannot be reached",
    );
    check("fatal: transport 'file' not allowed\n", Denied, "transport is not allowed");
    // OpenSSH.
    check(
        "git@github.com: Permission denied (publickey).\nfatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\nand the repository exists.\n",
        Denied,
        "authentication failed",
    );
    check(
        "Load key \"/run/secrets/key\": bad permissions\r\nme@h: Permission denied (publickey).\r\nfatal: Could not read from remote repository.\n",
        Denied,
        "the ssh key cannot be used",
    );
    check(
        "Host key verification failed.\r\nfatal: Could not read from remote repository.\n",
        Unavailable,
        "host key is not known",
    );
    check(
        "ssh: Could not resolve hostname git.corp: Name or service not known\r\nfatal: Could not read from remote repository.\n",
        Unavailable,
        "name cannot be resolved",
    );
    check(
        "ssh: connect to host 127.0.0.1 port 1: Connection refused\r\nfatal: Could not read from remote repository.\n",
        Unavailable,
        "cannot be reached",
    );
    check(
        "ERROR: Repository not found.\nfatal: Could not read from remote repository.\n",
        NotFound,
        "no such repository",
    );
    check(
        "remote: ERROR: The project you were looking for could not be found or you don't have permission to view it.\nfatal: Could not read from remote repository.\n",
        NotFound,
        "no such repository",
    );
    check(
        "fatal: '/srv/x' does not appear to be a git repository\nfatal: Could not read from remote repository.\n",
        NotFound,
        "no such repository",
    );
    check(
        "fatal: early EOF\nfatal: fetch-pack: invalid index-pack output\n",
        Unavailable,
        "broke off",
    );
    check(
        "fatal: attempting to allocate 4294967296 over limit 1073741824\nfatal: fetch-pack: invalid index-pack output\n",
        ErrorClass::Corrupt,
        "more memory",
    );
    check("fatal: something new\n", Unavailable, "the command failed");
}

#[test]
fn shows_the_line_that_says_why() {
    let check = |words: &str, expected: Option<&str>| {
        assert_eq!(fault(words).text.as_deref(), expected, "{words}");
    };
    check("", None);
    check(
        "git@github.com: Permission denied (publickey).\r\nfatal: Could not read from remote repository.\n\nPlease make sure\n",
        Some("git@github.com: Permission denied (publickey)."),
    );
    check("Receiving objects: 10%\rReceiving objects: 12%\rfatal: odd\n", Some("fatal: odd"));
    check(
        "fatal: unable to access 'https://me:hunter2@git.example.com/x?token=s3cret': Failed to connect\n",
        Some("fatal: unable to access 'https://git.example.com/x?...': Failed to connect"),
    );
    check(
        "fatal: odd 'https://me:hun ter2@git.example.com/x'\n",
        Some("fatal: odd '(address) ter2@git.example.com/x'"),
    );
    check("fatal: é://x:y@z and http://u:p@h/\n", Some("fatal: é(address) and http://h/"));
}

#[test]
fn what_is_broken_here() {
    let check = |words: &str, expected| assert_eq!(is_broken(words), expected, "{words}");
    check("error: object file ./objects/ab/cd is empty\nfatal: loose object\n", true);
    check("fatal: not a git repository: '/data/git/x'\n", true);
    check("error: packfile ./objects/pack/p.pack does not match index\n", true);
    check("fatal: bad object a3ab0831a0ed9ce3aa2155c5c30627b07f94166a\n", true);
    check("remote: fatal: bad object a3ab\n", false);
    check("Receiving objects: 10%\rfatal: pack has 2 unresolved deltas\n", true);
    check("error: inflate: data stream error (incorrect header check)\n", true);
    check("fatal: bad config line 1 in file ./config\n", true);
    check("fatal: loose object ab (stored in ./objects/ab) is corrupt\n", true);
    check("error: couldn't map file 'a': the packfile is torn\n", true);
    // Names that say so, of things that are not broken.
    for name in ["https://github.com/x/packfile", "ssh://git@h/corrupt", "/srv/corrupt"] {
        check(&format!("fatal: unable to access '{name}/': something new\n"), false);
        check(&format!("fatal: something new at {name}: bad\n"), false);
        check(&format!("fatal: '{name}, bad object' said something new\n"), false);
        check(&format!("From {name}\nfatal: something new\n"), false);
    }
    check("fatal: protocol error: bad line length character: git@h:corrupt\n", false);
    check("error: cannot lock ref 'refs/tags/packfile': something new\n", false);
    check("From h:corrupt\n * [new branch]  index file -> packfile\nfatal: new\n", false);
    check("fatal: couldn't find remote ref refs/tags/x\n", false);
    check("fatal: unable to access 'https://h/': Failed to connect\n", false);
    assert_eq!(missing_ref("fatal: couldn't find remote ref refs/tags/x\n"), Some("refs/tags/x"));
}

#[test]
fn whether_a_credential_was_refused() {
    let words = "error: unable to read askpass response from 'false'\n\
        fatal: could not read Username for 'https://h': terminal prompts disabled\n";
    let mut env = RemoteEnv::default();
    assert_eq!(of_remote(words, &env).class, ErrorClass::NotFound);
    assert!(is_final(words));
    env.envs.push(("GIT_CONFIG_KEY_0".into(), "http.https://h/.extraHeader".into()));
    let fault = of_remote(words, &env);
    assert_eq!(fault.class, ErrorClass::Denied);
    assert!(fault.detail.contains("authentication failed"), "{}", fault.detail);
    assert_eq!(fault.text, None);
    assert_eq!(of_remote("fatal: early EOF\n", &env).class, ErrorClass::Unavailable);
}

#[test]
fn what_is_hidden_looks_like_what_is_not_there() {
    let env = RemoteEnv { host: Some("h:443".into()), ..RemoteEnv::default() };
    let told = |words: &str| {
        let fault = of_remote(words, &env);
        (fault.class, fault.detail, fault.text)
    };
    let expected = (ErrorClass::NotFound, format!("git: {}", NOT_SEEN.0), None);
    for words in [
        "remote: Repository not found.\nfatal: repository 'https://h/x/y/' not found\n",
        "fatal: unable to access 'https://h/x/y/': The requested URL returned error: 403\n",
        "remote: Write access to repository not granted.\nfatal: unable to access 'https://h/x/y/': The requested URL returned error: 403\n",
        "remote: You are not authorized to read this\nfatal: Could not read from remote repository.\n",
        "ERROR: Repository not found.\nfatal: Could not read from remote repository.\n",
        "fatal: '/srv/x' does not appear to be a git repository\nfatal: Could not read from remote repository.\n",
    ] {
        assert_eq!(told(words), expected, "{words}");
    }
}
