"""Becomes one process of a container: mounts, chroot, user, then the command. Run inside namespaces of its own.

    unshare --mount --pid --fork … python3 enter.py SPEC          the first process
    nsenter --target PID --mount --pid … python3 enter.py SPEC    another one, as `docker exec`

SPEC is the JSON of the `Process` that `rootfs.py` writes.
"""

import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

PR_SET_NO_NEW_PRIVS = 38
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def main():
    spec = json.loads(sys.argv[1])
    root = Path(spec["root"])
    for kind, source, target in spec["mounts"]:
        mount(kind, source, root / target.lstrip("/"))
    if spec["loopback"]:
        raise_loopback()
    os.chroot(root)
    os.umask(0o022)
    os.setgroups(spec["groups"])
    os.setgid(spec["gid"])
    os.setuid(spec["uid"])
    os.chdir(spec["cwd"])
    if spec["no_new_privileges"]:
        ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    path = spec["env"].get("PATH", os.defpath)
    try:
        os.execvpe(spec["argv"][0], spec["argv"], {**spec["env"], "PATH": path})
    except OSError as error:
        # As `docker run` ends when there is no such command.
        sys.exit(f"{spec['argv'][0]}: {error.strerror}")


def mount(kind, source, target):
    """`bind`, `read-only` (a bind that cannot be written), `seal` (nor can what was bound), or an empty file system."""
    if kind == "seal":
        subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True)
        return
    run = ["mount"]
    if kind in ("bind", "read-only"):
        if Path(source).is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        run += ["--bind", source]
    else:
        target.mkdir(parents=True, exist_ok=True)
        run += ["-t", kind, "-o", "nosuid,mode=1777" if kind == "tmpfs" else "nosuid", source]
    subprocess.run([*run, target], check=True)
    if kind == "read-only":
        subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True)


def raise_loopback():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh", b"lo", 0)
        flags = struct.unpack_from("h", fcntl.ioctl(control, SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | IFF_UP))


if __name__ == "__main__":
    main()
