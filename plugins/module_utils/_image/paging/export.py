# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts and stops exports of layers. Each is a transient unit of systemd, which therefore knows what is running."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._command import command
from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import disk_errors
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError, Result
from ansible_collections.virtuoso.grid.plugins.module_utils._files import remove_tree
from ansible_collections.virtuoso.grid.plugins.module_utils._image.paging import plan
from ansible_collections.virtuoso.grid.plugins.module_utils._image.paging.ahead import fetch_ahead
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store import boot
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.boot_store import record_boot
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.export_names import CACHE_NAME, PAGER, SOURCE
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.qemu_img import extents
from ansible_collections.virtuoso.grid.plugins.module_utils._sockets import Socket, tcp_ports
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

_LOCK = "/run/virtuoso-export.lock"
_START_TIMEOUT = 30
_LEAVE_TIMEOUT = 5
# Paths become words of a unit's settings
_PLAIN = re.compile(r"/[A-Za-z0-9/._-]{1,200}", re.ASCII)


class Exports:
    """The exports of this host. Runs as root.

    :param path: of the image store. :param tls_dir: directory of the host's certificate.
    :param address: where other hosts reach this one, for the results. :param ports: to choose from.
    """

    def __init__(self, path: str, tls_dir: str, address: str | None, ports: range) -> None:
        for what, value in (("path", path), ("tls_dir", tls_dir)):
            if not _PLAIN.fullmatch(value):
                raise GridError(
                    "invalid_path",
                    f"{what} has characters that a unit's settings can't have",
                    remedy="Give a plain path",
                )
        self.depot = Depot(path)
        self.tls_dir = tls_dir
        self.address = address
        self.ports = ports

    def _cache(self, digest: str) -> str:
        return os.path.join(self.depot.images, ".paging", digest[len("sha256:") :], CACHE_NAME)

    @contextlib.contextmanager
    def locked(self) -> t.Iterator[None]:
        """A lock, held while ports are chosen and clients are counted."""
        with open(_LOCK, "a", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @staticmethod
    def units() -> dict[str, plan.Unit]:
        """The exports that exist, by the names of their units."""
        argv = [
            "systemctl",
            "show",
            "--all",
            "--property=Id",
            "--property=ActiveState",
            "--property=Environment",
            plan.UNITS,
        ]
        return plan.parse_units(command(argv, timeout=60))

    def have(self, export: plan.Export, check_mode: bool) -> Result:
        """Export the layer if it isn't exported yet.

        :raises GridError: ``layer_missing``, ``no_port``, ``export_failed``, ``source_lost``.
        """
        size = export.size
        if export.kind == SOURCE:
            chain = self.depot.chain(export.digest)
            for digest in chain:
                if not self.depot.has(digest):
                    raise GridError(
                        "layer_missing",
                        f"the layer {digest} is not here",
                        remedy="Export it where it is",
                        digest=digest,
                    )
            size = chain[export.digest].virtual_size
        unit = self.units().get(export.unit)
        sockets = tcp_ports()
        actions = plan.decide(
            export, unit, unit is not None and unit.port is not None and sockets.get(unit.port, _QUIET).listens
        )
        port = unit.port if unit is not None else None
        if actions:
            if unit is not None and not check_mode:
                self._stop(export.unit)
                sockets = tcp_ports()
            if port is None or sockets.get(port, _QUIET).listens:
                port = plan.choose_port(
                    export, self.ports, {number for number, socket in sockets.items() if socket.listens}
                )
            if not check_mode:
                self._start(export, port)
        return {
            "changed": bool(actions),
            "actions": actions,
            **self._address(export.digest, export.kind, port),
            "virtual_size": size,
            "state": "exported",
        }

    def _address(self, digest: str, kind: str, port: int | None) -> Result:
        return {"digest": digest, "kind": kind, "host": self.address, "port": port}

    def drop(self, unit_name: str, unit: plan.Unit, force: bool, check_mode: bool) -> Result:
        """Stop an export if it has no clients any more.

        :param force: stop it in any case.
        :returns: with ``read``, the blocks that machines have read, for a pager that was stopped.
        """
        clients = 0 if force else self._clients(unit)
        read: Result = {}
        if not clients and not check_mode:
            self._stop(unit_name)
            if unit.kind == PAGER:
                read["read"] = self._record(unit.digest)
                remove_tree(os.path.dirname(self._cache(unit.digest)))
        return {
            **read,
            "changed": not clients,
            "actions": [] if clients else ["stop export"],
            **self._address(unit.digest, unit.kind, unit.port),
            "clients": clients,
            "state": "exported" if clients else "absent",
        }

    def _record(self, digest: str) -> boot.Runs:
        """What machines have read through a stopped pager; also kept beside the layer, where that is here."""
        numbers: list[int] = []
        with contextlib.suppress(GridError, OSError):
            numbers = boot.read_order(extents(self._cache(digest)))
            record_boot(self.depot, digest, numbers)
        return boot.runs_of(numbers)

    def learn(self, digest: str, runs: object, check_mode: bool) -> Result:
        """Keep what a boot read on another host. :raises GridError: ``invalid_record``, ``invalid_digest``."""
        numbers = boot.numbers_of(runs)
        learnt = (
            not check_mode and bool(numbers) and self.depot.has(digest) and record_boot(self.depot, digest, numbers)
        )
        return {"digest": digest, "changed": learnt, "actions": ["learn"] if learnt else [], "blocks": len(numbers)}

    def _clients(self, unit: plan.Unit) -> int:
        """The number of clients. One that has just disconnected may still be counted for a moment."""

        def probe() -> int:
            clients = tcp_ports().get(unit.port or 0, _QUIET).clients
            if clients:
                raise Pending(str(clients))
            return clients

        try:
            return wait_for(
                probe, _LEAVE_TIMEOUT if unit.active else 0, what="the end of the export's use", interval=0.2
            )
        except GridError as exc:
            return int(str(exc.details["last"]))

    @staticmethod
    def _stop(unit: str) -> None:
        command(["systemctl", "stop", unit], timeout=120, code="export_failed")
        # A failed unit is collected by systemd; one that is being collected is missing already.
        command(["systemctl", "reset-failed", unit], timeout=60, accept=(0, 1, 5))

    def _start(self, export: plan.Export, port: int) -> None:
        cache = self._cache(export.digest)
        if export.kind == PAGER:
            self._make_cache(cache, export.size)
            if export.ahead is not None and not self.depot.has(export.digest):
                fetch_ahead(self.depot, export.ahead, export.digest)
        begin = int(time.time())
        command(
            plan.run_argv(export, port, self.tls_dir, self.depot.layer_path(export.digest), cache),
            timeout=60,
            code="export_failed",
            remedy="See what systemd said; the playbook virtuoso.grid.setup installs what an export takes",
        )

        def probe() -> None:
            unit = self.units().get(export.unit)
            if unit is None or not unit.active:
                raise self._failed(export, begin)
            if not tcp_ports().get(port, _QUIET).listens:
                raise Pending("its program doesn't listen yet")

        try:
            wait_for(probe, _START_TIMEOUT, what="the export", interval=0.1)
        except GridError:
            command(["systemctl", "stop", export.unit], timeout=120, accept=(0, 5))
            raise

    def _make_cache(self, path: str, size: int) -> None:
        """Make an empty cache. An earlier one isn't reused: it may not have reached the disk whole."""
        self.depot.prepare()
        directory = os.path.dirname(path)
        with disk_errors(self.depot.images):
            for each in (os.path.dirname(directory), directory):
                os.makedirs(each, exist_ok=True)
                os.chmod(each, 0o711)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            command(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)], timeout=60, code="disk_failed")

    @staticmethod
    def _failed(export: plan.Export, begin: int) -> GridError:
        said = ""
        programs = ["-t", "qemu-nbd", "-t", "qemu-storage-daemon"]
        with contextlib.suppress(GridError):
            said = command(
                ["journalctl", "--no-pager", "-o", "cat", "-n", "1", "-u", export.unit, f"--since=@{begin}", *programs],
                timeout=20,
            )
        source = export.kind == PAGER
        return GridError(
            "source_lost" if source else "export_failed",
            f"the {'pager' if source else 'export'} ended at once: {said.strip()[-300:] or 'it said nothing'}",
            remedy=(
                f"See that the layer is exported at {export.upstream}, or page from another host that has it"
                if source
                else "See the unit's log: journalctl -u 'virtuoso-export-*'"
            ),
        )


_QUIET = Socket(False, 0)
