# SPDX-License-Identifier: GPL-3.0-or-later
"""What all benchmarks share: running a playbook in the lab and timing it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import typing as t
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PLAYBOOKS = Path(__file__).resolve().parent / "playbooks"
INVENTORY = CHECKOUT / "inventory" / "lab"


LAB = CHECKOUT / "tests" / "lab" / "lab.py"


class Row(t.TypedDict):
    """One measurement; ``who`` is ``virtuoso``, the peer's name, or ``floor``, what nothing on top of Ansible can
    beat."""

    area: str
    case: str
    who: str
    metric: str
    value: float
    unit: str


def play(name: str, **variables: t.Any) -> float:
    """Run ``playbooks/<name>.yml`` in the lab; its seconds. A failed play ends the benchmark with its output."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(variables, file)
        file.flush()
        argv = ["ansible-playbook", "-i", str(INVENTORY), str(PLAYBOOKS / f"{name}.yml"), "-e", f"@{file.name}"]
        begin = time.monotonic()
        done = subprocess.run(
            argv, cwd=CHECKOUT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=1200, check=False
        )
        seconds = time.monotonic() - begin
    if done.returncode:
        raise SystemExit(f"bench: {name} failed\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}")
    return seconds


def on(host: str, script: str) -> str:
    """What a shell script says on a host of the lab."""
    argv = ["/usr/bin/python3", str(LAB), "ssh", host, script]
    done = subprocess.run(
        argv, cwd=CHECKOUT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=1200, check=False
    )
    if done.returncode:
        raise SystemExit(f"bench: {host}: {script} failed\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def task(host: str, module: str, arguments: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The result of one module on a host of the lab, run as a play would. One that fails ends the benchmark with its
    output."""
    argv = [
        "ansible",
        "-i",
        str(INVENTORY),
        "--become",
        host,
        "-m",
        module,
        *(["-a", json.dumps(arguments)] if arguments else []),
    ]
    env = {**os.environ, "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1", "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}
    done = subprocess.run(
        argv, cwd=CHECKOUT, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=1200, check=False
    )
    if done.returncode:
        raise SystemExit(f"bench: {module} on {host} failed\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}")
    answer, dummy = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{\n") :])
    return answer["plays"][0]["tasks"][0]["hosts"][host]


def timed(work: t.Callable[[], t.Any]) -> float:
    """Seconds that the work takes."""
    begin = time.monotonic()
    work()
    return time.monotonic() - begin
