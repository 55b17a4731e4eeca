# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL server of the tests' own: a cluster in a temporary directory that listens on a Unix socket only."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

USER = "postgres"
"""Debian's package makes it. The server refuses to run as root."""


class Server:
    """``with Server() as server:`` runs it; ``server.database()`` makes an empty database and returns its URL."""

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
        if not found:
            raise FileNotFoundError("PostgreSQL is not installed (Debian package postgresql; `make setup` brings it)")
        self.programs = found[-1].parent
        # Not below pytest's own directory: that is closed to other users, and a socket's path may have 107 characters.
        self.directory = Path(tempfile.mkdtemp(prefix="virtuoso-pg-"))
        self._numbers = itertools.count(1)

    def _run(self, program: str, *arguments: str) -> None:
        argv = [str(self.programs / program), *arguments]
        if os.geteuid() == 0:
            argv = ["runuser", "-u", USER, "--", *argv]
        done = subprocess.run(argv, cwd="/", capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: {done.stdout}{done.stderr}")

    def __enter__(self) -> Server:
        if os.geteuid() == 0:
            os.chown(self.directory, pwd.getpwnam(USER).pw_uid, -1)
        self._run(
            "initdb",
            "--pgdata",
            str(self.data),
            "--username",
            "grid",
            "--auth",
            "trust",
            "--no-sync",
            "--locale",
            "C.UTF-8",
        )
        self.start()
        return self

    @property
    def data(self) -> Path:
        """The cluster's directory."""
        return self.directory / "data"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = (
            f"-c listen_addresses= -c unix_socket_directories={self.directory} -c fsync=off -c max_connections=120"
        )
        # Its output goes to a file: a pipe would stay open as long as the server runs.
        self._run(
            "pg_ctl",
            "--pgdata",
            str(self.data),
            "--log",
            str(self.directory / "log"),
            "--options",
            options,
            "--wait",
            "start",
        )

    def stop(self, mode: str = "immediate") -> None:
        """End the server; ``immediate`` is as if it had been killed."""
        self._run("pg_ctl", "--pgdata", str(self.data), "--mode", mode, "--wait", "stop")

    def __exit__(self, *dummy: object) -> None:
        if (self.data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.directory)

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"grid{next(self._numbers)}"
        self._run("createdb", "--host", str(self.directory), "--username", "grid", name)
        return f"postgresql+psycopg://grid@/{name}?host={self.directory}"
