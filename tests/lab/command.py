# SPDX-License-Identifier: GPL-3.0-or-later
"""Running programs as root, podman above all, and saying what is done."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys

from definition import BUILD, CHECKOUT

CONTAINERS_CONF = CHECKOUT / "tests" / "lab" / "containers.conf"


class LabError(Exception):
    """The lab can't do what was asked; the text says why and what to do."""


def say(text: str) -> None:
    print(f"lab: {text}", flush=True)


def run(argv: list[str], *, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program as root, with its output kept."""
    argv = [str(part) for part in argv]
    if os.geteuid() != 0:
        argv = ["sudo", "env", f"CONTAINERS_CONF={CONTAINERS_CONF}", *argv]
    env = dict(os.environ, CONTAINERS_CONF=str(CONTAINERS_CONF), LC_ALL="C.UTF-8")
    source = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    done = subprocess.run(argv, env=env, text=True, capture_output=True, check=False, **source)
    if check and done.returncode != 0:
        raise LabError(
            f"{' '.join(argv)} ended with {done.returncode}:\n{(done.stderr or done.stdout).strip()[-2000:]}"
        )
    return done


def podman(*argv: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return run(["podman", *argv], check=check, stdin=stdin)


def podman_json(*argv: str) -> list[dict]:
    """The answer of a podman command that prints JSON; nothing found is an empty list."""
    done = podman(*argv, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        return []
    return json.loads(done.stdout) or []


def key_file(name: str = "id_ed25519") -> str:
    """An SSH key pair of the lab, made when it isn't there."""
    key = BUILD / name
    if not key.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"virtuoso-lab {name}", "-f", str(key)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
        say(f"made an SSH key pair, {name}")
    return str(key)


def public_key(name: str = "id_ed25519") -> str:
    with open(f"{key_file(name)}.pub", encoding="ascii") as file:
        return file.read().strip()


def password_file() -> str:
    """The password of the accounts that have sudo, made when it isn't there."""
    path = BUILD / "sudo_password"
    if not path.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(12), encoding="ascii")
    return str(path)


def fail(text: str) -> None:
    print(f"lab: {text}", file=sys.stderr)
    raise SystemExit(1)
