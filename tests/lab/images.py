# SPDX-License-Identifier: GPL-3.0-or-later
"""Host images: made of Debian packages, kept by podman under the digest of their recipe."""

from __future__ import annotations

import hashlib
import json
import shlex
import time

from command import LabError, podman, run, say
from definition import BUILD, MASKED, PACKAGES, PREFIX, RELEASES, UNITS

REPOSITORY = f"localhost/{PREFIX}"


def _script() -> str:
    """Shell that turns an unpacked tree ($1) into a lab host; run by mmdebstrap."""
    lines = ["set -eu", 'cd "$1"']
    for name, text in UNITS.items():
        lines.append(f"printf %s {shlex.quote(text)} > etc/systemd/system/{name}")
        wanted = text.rsplit("WantedBy=", 1)[1].strip()
        lines.append(f"mkdir -p etc/systemd/system/{wanted}.wants")
        lines.append(f"ln -s ../{name} etc/systemd/system/{wanted}.wants/{name}")
    lines += [f"ln -sf /dev/null etc/systemd/system/{unit}" for unit in MASKED]
    lines += [
        "rm -f etc/ssh/ssh_host_* etc/machine-id var/lib/dbus/machine-id etc/resolv.conf etc/hostname",
        ": > etc/machine-id",
        "mkdir -p var/lib/virtuoso",
        "install -d -m 700 root/.ssh",
        "printf 'PermitRootLogin prohibit-password\\nUseDNS no\\nMaxSessions 100\\nMaxStartups 100\\n'"
        " > etc/ssh/sshd_config.d/lab.conf",
    ]
    return "\n".join(lines) + "\n"


def _arguments(name: str) -> list[str]:
    """mmdebstrap's arguments for an image called KIND-RELEASE, up to the output's name."""
    kind, _dash, release = name.partition("-")
    if kind not in PACKAGES or release not in RELEASES:
        known = ", ".join(f"{k}-{r}" for k in PACKAGES for r in RELEASES)
        raise LabError(f"no image is called {name!r}; there are {known}")
    hook = f'sh -c {shlex.quote(_script())} lab "$1"'
    return [
        "mmdebstrap",
        "--variant=minbase",
        "--components=main",
        f"--include={','.join(sorted(PACKAGES[kind]))}",
        f"--customize-hook={hook}",
        release,
    ]


def reference(name: str) -> str:
    """The full name of an image: its tag is the digest of its recipe."""
    digest = hashlib.sha256(json.dumps(_arguments(name)).encode()).hexdigest()
    return f"{REPOSITORY}/{name}:{digest[:12]}"


def exists(name: str) -> bool:
    return podman("image", "exists", reference(name), check=False).returncode == 0


def ensure(name: str) -> str:
    """Build the image if it isn't there, and return its full name."""
    full = reference(name)
    if exists(name):
        return full
    say(f"building image {name} from Debian packages (about a minute)")
    begin = time.monotonic()
    BUILD.mkdir(parents=True, exist_ok=True)
    tarball = BUILD / f"{name}.tar"
    try:
        run([*_arguments(name), str(tarball)])
        podman("import", "--quiet", "--change", 'CMD ["/sbin/init"]', str(tarball), full)
    finally:
        run(["rm", "-f", str(tarball)])
    say(f"built image {full} in {time.monotonic() - begin:.0f} s")
    return full


def drop_older(name: str) -> None:
    """Remove images of the same name made by older recipes, except those in use."""
    keep = reference(name)
    listed = podman("images", "--format", "{{.Repository}}:{{.Tag}}", f"{REPOSITORY}/{name}").stdout.split()
    for old in listed:
        if old != keep and podman("rmi", old, check=False).returncode == 0:
            say(f"removed older image {old}")


def remove_all() -> None:
    """Remove all host images that no container uses."""
    for full in podman("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split():
        if full.startswith(f"{REPOSITORY}/"):
            podman("rmi", full, check=False)
