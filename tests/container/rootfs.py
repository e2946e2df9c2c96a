"""Performs the steps of a Dockerfile without a container engine, in directories and namespaces of this machine.

- `FROM debian:SUITE-slim` is what debootstrap makes of the same suite.
- `FROM rust:…` is this machine, its programs read-only, with its own Rust: what it compiles is the same; with which Rust,
  RUSTUP_TOOLCHAIN in the Dockerfile says.
- Installing packages needs the network: the result is kept by what the step says and what was before it, as an engine does.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from dockerfile import Fault, pairs, substitute

HERE = Path(__file__).resolve().parent
# An engine's first PATH, and the build arguments that it passes on without being asked.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROXIES = [name for word in ("http", "https", "no", "all") for name in (f"{word}_proxy", f"{word}_PROXY".upper())]
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
DEVICES = ["null", "zero", "full", "random", "urandom", "tty"]
STEP_SECONDS = 1200
KEPT_SECONDS = 7 * 24 * 3600


class NotHere(Exception):
    """Why it cannot be done on this machine."""


@dataclass
class Process:
    """What `enter.py` becomes."""

    root: str
    argv: list
    env: dict
    mounts: list = field(default_factory=list)
    loopback: bool = False
    uid: int = 0
    gid: int = 0
    groups: list = field(default_factory=list)
    cwd: str = "/"
    no_new_privileges: bool = False

    def command(self, *namespaces):
        return [*namespaces, sys.executable, "-IS", str(HERE / "enter.py"), json.dumps(asdict(self))]


@dataclass
class Image:
    """A stage that was performed."""

    root: Path
    env: dict = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    entrypoint: list = field(default_factory=list)
    cmd: list = field(default_factory=list)
    health: list = None
    stop_signal: str = "SIGTERM"
    volumes: list = field(default_factory=list)
    ports: list = field(default_factory=list)
    labels: dict = field(default_factory=dict)
    on_host: bool = False
    # Where its files are kept, until they follow from more than its own steps; only then is there a root.
    kept: Path = None

    def under(self, path):
        """The place of a path of the image on this machine; a relative one starts from WORKDIR."""
        inside = os.path.normpath(PurePosixPath(self.workdir, path))
        return self.root / inside.lstrip("/")


class Builder:
    """One build: `work` holds the stages, `cache` what later builds take from this one."""

    def __init__(self, context, ignored, work, cache, binary, target):
        self.context, self.ignored, self.work, self.cache = context, ignored, work, cache
        self.binary, self.target = binary, target
        self.images = {}

    def build(self, stages):
        """The image of the last stage."""
        for stage in stages:
            image = self.begin(stage)
            self.images[stage.name] = image
            variables = {}
            for step in stage.instructions:
                print(f"  {stage.name} {step.line:3d}  {step.word} {step.rest[:90]}", flush=True)
                self.perform(step, image, variables)
        return image

    def begin(self, stage):
        root = self.work / stage.name
        if found := re.fullmatch(r"debian:(\w+)-slim", stage.base):
            key = f"debian-{found[1]}"
            return Image(root, env={"PATH": PATH}, kept=self.kept(key, lambda into: bootstrap(found[1], into)))
        if re.fullmatch(r"rust:[\w.-]+", stage.base):
            root.mkdir()
            return Image(root, env={"PATH": PATH}, on_host=True)
        raise Fault(f"FROM {stage.base}: not known here")

    def kept(self, key, make):
        """The directory of this key; made when it is not there."""
        place = self.cache / key
        if not place.is_dir():
            unfinished = self.cache / f"{key}.unfinished"
            remove_tree(unfinished)
            make(unfinished)
            unfinished.rename(place)
        os.utime(place)
        return place

    def perform(self, step, image, variables):
        known = {**variables, **image.env}
        rest = substitute(step.rest, known, step.line) if step.word in SUBSTITUTED else step.rest
        match step.word:
            case "ARG":
                name, equals, default = rest.partition("=")
                if not equals:
                    raise Fault(f"line {step.line}: ARG {name} has no default")
                variables[name] = default
            case "ENV":
                image.env.update(pairs(step, known))
            case "LABEL":
                image.labels.update(pairs(step, known))
            case "WORKDIR":
                settle(image)
                image.workdir = os.path.normpath(PurePosixPath(image.workdir, rest))
                image.under(".").mkdir(parents=True, exist_ok=True)
            case "USER":
                image.user = rest
            case "COPY":
                self.copy(step, rest.split(), image)
            case "RUN":
                self.run(step, image, variables)
            case "VOLUME":
                image.volumes += step.exec_form() or rest.split()
            case "EXPOSE":
                image.ports += rest.split()
            case "STOPSIGNAL":
                image.stop_signal = rest
            case "HEALTHCHECK":
                image.health = health(step)
            case "ENTRYPOINT":
                image.entrypoint, image.cmd = command(step), []
            case "CMD":
                image.cmd = command(step)

    def copy(self, step, words, image):
        *sources, destination = words
        settle(image)
        into = image.under(destination)
        several = len(sources) > 1 or destination.endswith("/")
        for source in sources:
            if name := step.flags.get("from"):
                if name not in self.images:
                    raise Fault(f"line {step.line}: there is no stage {name} before")
                found = self.images[name].root / source.lstrip("/")
                left_out = None
            else:
                found, left_out = self.context / source, self.left_out
            if not found.exists() or (left_out and not found.is_dir() and self.ignored(source)):
                raise Fault(f"line {step.line}: COPY {source}: there is no such file where it is copied from")
            if found.is_dir():
                shutil.copytree(found, into, symlinks=True, dirs_exist_ok=True, ignore=left_out)
            else:
                target = into / found.name if several or into.is_dir() else into
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, target)

    def left_out(self, directory, names):
        """For copytree: what .dockerignore keeps out of the context."""
        here = Path(directory).relative_to(self.context)
        return [name for name in names if self.ignored((here / name).as_posix())]

    def run(self, step, image, variables):
        argv = step.exec_form() or ["/bin/sh", "-c", step.rest]
        proxies = {name: os.environ[name] for name in PROXIES if name in os.environ}
        env = {**proxies, **variables, "HOME": "/root", **image.env}
        if image.on_host:
            self.run_on_host(step, argv, env, image)
            return
        uid, gid, groups = ids(image.kept or image.root, image.user)

        def perform_in(root):
            mounts = base_mounts(root)
            perform(step, Process(str(root), argv, env, mounts, uid=uid, gid=gid, groups=groups, cwd=image.workdir))

        def make(into):
            reachable(MIRROR)
            copy_tree(image.kept, into)
            perform_in(into)

        if image.kept and needs_network(step):
            # All before it is kept too: what it makes follows from what it says.
            said = json.dumps([image.kept.name, argv, image.env, variables, image.user, image.workdir])
            image.kept = self.kept(f"run-{hashlib.sha256(said.encode()).hexdigest()[:16]}", make)
        else:
            settle(image)
            perform_in(image.root)

    def run_on_host(self, step, argv, env, image):
        """In a root of its own, where nothing of this machine but Rust's own directories can be written."""
        cargo = step.rest.startswith("cargo ")
        if self.binary and cargo:
            made = image.under("target") / ("release" if " --release" in step.rest else "debug") / "stoa"
            made.parent.mkdir(parents=True, exist_ok=True)
            made.unlink(missing_ok=True)
            made.symlink_to(self.binary.absolute())
            return
        home = Path.home()
        rust = [os.environ.get("CARGO_HOME", home / ".cargo"), os.environ.get("RUSTUP_HOME", home / ".rustup")]
        of_host = ["CARGO_HOME", "RUSTUP_HOME", "PATH", "SSL_CERT_FILE"]
        env |= {name: os.environ[name] for name in of_host if name in os.environ} | {"HOME": str(home)}
        mounts = [*base_mounts(image.root), ("tmpfs", "tmpfs", "/tmp")]
        mounts += [("read-only", f"/{name}", f"/{name}") for name in OF_HOST if Path("/", name).is_dir()]
        mounts += [("bind", str(path), str(path)) for path in rust if Path(path).is_dir()]
        if cargo:
            # Beside the caller's own builds: those of the empty crates are not to take their place.
            self.target.mkdir(parents=True, exist_ok=True)
            mounts.append(("bind", str(self.target), str(PurePosixPath(image.workdir, "target"))))
        perform(step, Process(str(image.root), argv, env, mounts, cwd=image.workdir))
        made = self.target / "release" / "stoa"
        if cargo and made.is_file():
            place = image.under("target/release/stoa")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(made, place)


SUBSTITUTED = {"ARG", "WORKDIR", "USER", "COPY", "VOLUME", "EXPOSE", "STOPSIGNAL"}
NOT_SLIM = ["doc", "man", "locale"]
OF_HOST = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "etc", "opt"]


def perform(step, process):
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    done = subprocess.run(
        process.command(*namespaces), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=STEP_SECONDS, check=False,
    )
    if done.returncode:
        raise Fault(f"line {step.line}: {step.word} ended with {done.returncode}:\n{done.stdout[-4000:]}")


def base_mounts(root):
    """What an engine mounts besides the image's files."""
    mounts = [("bind", str(root), "/"), ("proc", "proc", "/proc"), ("tmpfs", "tmpfs", "/dev")]
    mounts += [("bind", f"/dev/{name}", f"/dev/{name}") for name in DEVICES]
    return mounts + [("read-only", "/etc/resolv.conf", "/etc/resolv.conf")]


def settle(image):
    """From here on its files are its own: laid over what is kept, or copied where the kernel cannot do that."""
    if not image.kept:
        return
    upper, scratch = image.root.with_suffix(".upper"), image.root.with_suffix(".scratch")
    for directory in (image.root, upper, scratch):
        directory.mkdir()
    upper.chmod(0o755)
    options = f"lowerdir={image.kept},upperdir={upper},workdir={scratch}"
    laid = subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", image.root], capture_output=True, check=False)
    if laid.returncode:
        copy_tree(f"{image.kept}/.", image.root)
    image.kept = None


def ids(root, user):
    """The numbers of a USER: `uid`, `uid:gid`, or a name that the image's /etc/passwd has. Without a group: of passwd."""
    name, _, group = user.partition(":")
    passwd = {}
    for line in (root / "etc/passwd").read_text().splitlines():
        entry = line.split(":")
        passwd[entry[0]] = passwd[entry[2]] = (int(entry[2]), int(entry[3]))
    if name not in passwd and not name.isdigit():
        raise Fault(f"USER {user}: /etc/passwd of the image has no {name}")
    uid, gid = passwd.get(name, (int(name) if name.isdigit() else 0, 0))
    if group and not group.isdigit():
        raise Fault(f"USER {user}: a group is understood as a number only")
    gid = int(group) if group else gid
    return uid, gid, [gid]


def command(step):
    argv = step.exec_form()
    if not argv:
        raise Fault(f"line {step.line}: {step.word} in a shell: the signals of a stop do not reach the program")
    return argv


def health(step):
    words = step.rest.removeprefix("CMD ").strip()
    if words == step.rest:
        raise Fault(f"line {step.line}: HEALTHCHECK without CMD")
    step.rest = words
    return step.exec_form() or ["/bin/sh", "-c", words]


def bootstrap(suite, into):
    """What debian:SUITE-slim holds: the required packages, without documentation and package lists."""
    if not shutil.which("debootstrap"):
        raise NotHere("there is no debootstrap (apt-get install debootstrap)")
    reachable(MIRROR)
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", suite, into, MIRROR],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=STEP_SECONDS, check=False,
    )
    if made.returncode:
        raise NotHere(f"debootstrap {suite} ended with {made.returncode}:\n{made.stdout[-2000:]}")
    (into / "etc/dpkg/dpkg.cfg.d/slim").write_text("".join(f"path-exclude /usr/share/{name}/*\n" for name in NOT_SLIM))
    # As Debian's own images do.
    (into / "etc/apt/apt.conf.d/docker-clean").write_text(
        'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache ""; APT::Keep-Downloaded-Packages "false";\n'
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };\n'
    )
    for place in ["var/cache/apt", "var/lib/apt/lists", *(f"usr/share/{name}" for name in NOT_SLIM)]:
        for inside in (into / place).iterdir():
            shutil.rmtree(inside) if inside.is_dir() else inside.unlink()


def needs_network(step):
    return step.rest.startswith("apt-get ")


def reachable(mirror):
    try:
        urllib.request.urlopen(f"{mirror}/dists/stable/Release", timeout=20).close()
    except OSError as error:
        raise NotHere(f"{mirror}: {error}") from error


def copy_tree(source, into):
    """With owners, modes, times, links and devices."""
    subprocess.run(["cp", "--archive", "--reflink=auto", "--one-file-system", source, into], check=True)


def remove_tree(path):
    """Of this file system only: nothing that is mounted in it."""
    subprocess.run(["rm", "--recursive", "--force", "--one-file-system", path], check=True)


class Cache:
    """The directory of what is kept between builds, for one build at a time."""

    def __init__(self, place):
        self.place = place

    def __enter__(self):
        self.place.mkdir(parents=True, exist_ok=True)
        self.lock = open(self.place / "lock", "w", encoding="utf-8")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        return self.place

    def __exit__(self, *_):
        for inside in self.place.iterdir():
            if inside.is_dir() and time.time() - inside.stat().st_mtime > KEPT_SECONDS:
                remove_tree(inside)
        self.lock.close()
