# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driving the collection's playbooks in the lab as a user does, and looking at what they left on the hosts.

Each :class:`Grid` has a store, an inventory and screenshots of its own below ``build/integration``, so that the lab's
demo and other tests stay untouched; the names of its machines begin with its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LAB = CHECKOUT / "build" / "lab"
DEPOT = "/var/lib/virtuoso"
PROVIDERS = ("provider1", "provider2")

PLAY_DEADLINE = 300
HOST_DEADLINE = 60

Row = t.Dict[str, t.Any]


def on_host(host: str, command: str, *, check: bool = True) -> str:
    """What a shell command says on a host of the lab."""
    argv = [sys.executable, str(CHECKOUT / "tests" / "lab" / "lab.py"), "ssh", host, command]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HOST_DEADLINE, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"{host}: {command} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def until(what: str, probe: t.Callable[[], t.Any], deadline: float = 30, interval: float = 0.3) -> t.Any:
    """The first true answer of ``probe``; it is asked again until the deadline."""
    end = time.monotonic() + deadline
    while True:
        answer = probe()
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {deadline} s: {what}"
        time.sleep(interval)


class Run:
    """One run of a playbook: its events as they come, then how it ended."""

    def __init__(self, argv: t.Sequence[str], env: t.Mapping[str, str]) -> None:
        self.events: list[Row] = []
        self.text: list[str] = []
        self._news = threading.Condition()
        self._over = False
        # A session of its own, to be killed as a whole; SIGINT may be ignored where tests run in the background.
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            ["env", "--default-signal=INT", *argv],
            cwd=CHECKOUT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in t.cast(t.IO[str], self.process.stdout):
            event = None
            if line.startswith('{"'):
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
            with self._news:
                if event is not None:
                    self.events.append(event)
                else:
                    self.text.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()

    def wait(self, deadline: float = PLAY_DEADLINE) -> Run:
        """Return when it has ended."""
        try:
            self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            raise AssertionError(f"the play did not end within {deadline} s:\n{self.story()}") from None
        finally:
            self._reader.join(10)
        return self

    def wait_for_task(self, name: str, deadline: float = PLAY_DEADLINE) -> bool:
        """Return when a task of this name begins; false when the run ended without it."""
        with self._news:
            self._news.wait_for(lambda: self._over or name in self.tasks(), timeout=deadline)
            return name in self.tasks()

    def wait_for_text(self, text: str, deadline: float = PLAY_DEADLINE) -> bool:
        """Return when a line that isn't an event has this text; false when the run ended without it."""
        with self._news:
            self._news.wait_for(lambda: self._over or any(text in line for line in self.text), timeout=deadline)
            return any(text in line for line in self.text)

    def signal(self, number: int) -> None:
        """Send a signal to everything that belongs to the run on the controller."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def interrupt(self, number: int, after: float = 0) -> Run:
        """Send a signal some time from now, if it still runs then, and wait for the end.

        Ansible can miss a Ctrl-C that comes while it forks; a person presses again, and so do we.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(after)
        self.signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
            return self
        self.signal(number)
        return self.wait(60)

    def tasks(self) -> list[str]:
        """Names of the tasks that began, without their role's."""
        return [_task(event) for event in self.events if event["_event"] == "v2_playbook_on_task_start"]

    def results(self, task: str) -> dict[str, Row]:
        """A task's results by host."""
        found: dict[str, Row] = {}
        for event in self.events:
            if event["_event"].startswith("v2_runner_on_") and _task(event) == task:
                found.update(event.get("hosts", {}))
        return found

    @property
    def returncode(self) -> int:
        return t.cast(int, self.process.returncode)

    @property
    def report(self) -> Row:
        """What the report at the end returned."""
        return next(iter(self.results("Report").values()), {})

    def rows(self, name: str) -> list[Row]:
        """The report's rows of this name."""
        return [row for row in self.report.get("machines", ()) if row["name"] == name]

    def row(self, name: str) -> Row:
        """The report's only row of this name."""
        (row,) = self.rows(name)
        return row

    def failures(self) -> dict[str, Row]:
        """By name of machine, what failed of it."""
        return {row["name"]: row["failure"] for row in self.report.get("machines", ()) if row.get("failed")}

    def code(self, name: str) -> str:
        """Why this machine failed."""
        failures = self.failures()
        assert name in failures, f"{name} did not fail:\n{self.story()}"
        return str(failures[name]["code"])

    @property
    def changed(self) -> dict[str, int]:
        """How many tasks changed something, by host."""
        stats = next((event["stats"] for event in self.events if event["_event"] == "v2_playbook_on_stats"), None)
        assert stats is not None, f"the play ended without a recap:\n{self.story()}"
        return {host: counts["changed"] for host, counts in stats.items()}

    def actions(self) -> set[tuple[str, str]]:
        """Every (machine, action) of the report."""
        return {(row["name"], action) for row in self.report.get("machines", ()) for action in row.get("actions") or ()}

    def story(self) -> str:
        """What happened, for the message of a failed test."""
        lines = [*self.tasks()[-4:], *self.text[-30:]]
        for event in self.events:
            if event["_event"] in ("v2_runner_on_failed", "v2_runner_on_unreachable"):
                for host, result in event["hosts"].items():
                    lines.append(f"{_task(event)}: {host}: {str(result.get('msg'))[:3000]}")
        return "\n".join(lines)

    def succeeded(self) -> Run:
        """Itself, where it ended well."""
        assert self.returncode == 0, f"the play ended with {self.returncode}:\n{self.story()}"
        return self


def _task(event: Row) -> str:
    return str(event.get("task", {}).get("name", "")).rpartition(" : ")[2]


class Grid:
    """A store, an inventory and a list of machines of a test's own, on the lab's hosts."""

    def __init__(self, name: str, *, hosts: Row | None = None, machine: Row | None = None) -> None:
        """
        :param hosts: variables of hosts, or more providers, as ``{host: {variable: value}}``.
        :param machine: fields of each machine.
        """
        self.name = name
        self.directory = CHECKOUT / "build" / "integration" / name
        self.store = self.directory / "grid.db"
        self.screenshots = self.directory / "screenshots"
        self.inventory = self.directory / "inventory"
        self.machine = {"image": "tiny", "memory": "80 MiB", **(machine or {})}
        # An earlier run may have been killed before it could clean up.
        self.clean()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.inventory.mkdir(parents=True)
        for part in ("hosts.yml", "group_vars", "host_vars"):
            (self.inventory / part).symlink_to(CHECKOUT / "inventory" / "lab" / part)
        self._write("inventory/grid.yml", {"plugin": "virtuoso.grid.grid", "store": str(self.store)})
        self.set_hosts(hosts or {})

    def _write(self, file: str, content: t.Any) -> Path:
        path = self.directory / file
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    def set_hosts(self, hosts: Row) -> None:
        """Give providers variables, or add providers."""
        self._write("inventory/more.yml", {"providers": {"hosts": hosts}})

    def names(self, count: int) -> list[str]:
        """Names for machines of this test."""
        return [f"{self.name}-{number}" for number in range(1, count + 1)]

    def machines(self, count: int, **fields: t.Any) -> list[Row]:
        """So many machines, named alike."""
        return [{"name": name, **self.machine, **fields} for name in self.names(count)]

    def start(
        self, playbook: str, *arguments: str, machines: t.Sequence[t.Any] | None = None, **variables: t.Any
    ) -> Run:
        """Run ``virtuoso.grid.<playbook>`` with a list of machines, and variables."""
        values = {
            "virtuoso_lab_dir": str(LAB),
            "virtuoso_store": str(self.store),
            "virtuoso_screenshots_dir": str(self.screenshots),
            "virtuoso_owner": "tester",
            "virtuoso_address_timeout": 90,
            "virtuoso_machines": list(machines or ()),
            **variables,
        }
        given = self._write("variables.json", values)
        env = {
            **os.environ,
            "PATH": f"{CHECKOUT / '.venv' / 'bin'}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / "build" / "collections"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl",
            "ANSIBLE_NOCOLOR": "1",
        }
        argv = [
            "ansible-playbook",
            "-i",
            str(self.inventory),
            f"virtuoso.grid.{playbook}",
            "-e",
            f"@{given}",
            *arguments,
        ]
        return Run(argv, env)

    def play(
        self, playbook: str, *arguments: str, machines: t.Sequence[t.Any] | None = None, **variables: t.Any
    ) -> Run:
        """As :meth:`start`, and wait for the end."""
        return self.start(playbook, *arguments, machines=machines, **variables).wait()

    def rows(self, statement: str, *values: t.Any) -> list[Row]:
        """Rows of the store."""
        with contextlib.closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement, values)]

    def integrity(self) -> str:
        """SQLite's own judgement of the store's file: ``ok``."""
        return str(self.rows("PRAGMA integrity_check")[0]["integrity_check"])

    def domains(self) -> dict[str, list[tuple[str, str]]]:
        """Where this test's machines are, as libvirt says: name to provider and state, once for each domain."""
        found: dict[str, list[tuple[str, str]]] = {}
        for provider in PROVIDERS:
            text = on_host(
                provider, "for name in $(virsh list --all --name); do echo $name $(virsh domstate $name); done"
            )
            for line in text.splitlines():
                name, state = line.split(" ", 1)
                if name.startswith(self.name + "-"):
                    found.setdefault(name, []).append((provider, state))
        return found

    def uuids(self) -> dict[str, str]:
        """The store's machines: name to uuid."""
        return {row["name"]: row["uuid"] for row in self.rows("SELECT name, uuid FROM host WHERE kind = 'machine'")}

    def running_once(self, names: t.Iterable[str]) -> None:
        """Assert that each of these machines runs at one place, with one directory of files, and that there are no
        others."""
        places = self.domains()
        assert sorted(places) == sorted(names)
        for name, found in places.items():
            assert [state for _provider, state in found] == ["running"], f"{name}: {found}"
        files = {provider: machine_files(provider) for provider in PROVIDERS}
        for name, uuid in self.uuids().items():
            if name in places:
                assert [provider for provider in PROVIDERS if uuid in files[provider]] == [places[name][0][0]]

    def clean(self) -> None:
        """Remove this test's machines from the providers, without the help of what is being tested."""
        known: list[str] = []
        with contextlib.suppress(sqlite3.Error):
            # A refresh writes all machines of the providers to the store, whosever they are.
            known = [uuid for name, uuid in self.uuids().items() if name.startswith(f"{self.name}-")]
        script = f"""
            cd {DEPOT}/machines || exit 1
            for name in $(virsh list --all --name); do
                case $name in {self.name}-*) ;; *) continue ;; esac
                uuid=$(virsh domuuid $name)
                virsh destroy $name; virsh undefine $name --managed-save --snapshots-metadata
                rm -rf $uuid .staging/$uuid
            done >&2
            for uuid in {" ".join(known)}; do rm -rf $uuid .staging/$uuid; done
        """
        for provider in PROVIDERS:
            on_host(provider, script, check=False)


def machine_files(provider: str, depot: str = DEPOT) -> set[str]:
    """Names of the directories of machines' files on a provider, ``.staging/...`` for what is not finished."""
    text = on_host(
        provider, f"cd {depot}/machines && ls -A && (cd .. && ls -d machines/.staging/* 2>/dev/null || true)"
    )
    return {line.removeprefix("machines/") for line in text.split()} - {".lock", ".staging"}


def staged_images(host: str, depot: str = DEPOT) -> set[str]:
    """What lies unfinished in a host's image store."""
    return set(
        on_host(host, f"cd {depot}/images/.staging 2>/dev/null && find . -type f -printf '%P\\n' || true").split()
    )


def image_files(host: str, depot: str = DEPOT) -> set[str]:
    """The layers and manifests of a host's image store."""
    return set(on_host(host, f"cd {depot}/images && ls layers manifests").split()) - {"layers:", "manifests:"}
