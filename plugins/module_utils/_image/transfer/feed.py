# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets a pager read what has been received of a layer so far, while more comes.

The layer's unfinished file is linked into the pager's directory and, by QMP, put between the pager's cache and its
source. Its tables name only blocks that were received and verified (:mod:`view`). Before the tables are replaced the
file is withdrawn from every pager.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.content import write_tables
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot, share
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.export_names import (
    CACHE,
    CACHE_FILE,
    CACHE_NAME,
    ORIGIN,
    PAGER,
    QMP,
    unit_name,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import layer_file
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.host.send import Pace
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.receive import Incoming
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.view import View

_PATIENCE = 30.0
"""Seconds to wait for a pager's answer. A pager that has lost its source answers only when it has given up waiting."""

_VIEW = "view-"
QUIET = 3.0
"""Seconds without a new read after which machines count as booted."""

_LOOK_AGAIN = 0.25
_OFTEN, _SELDOM = 0.25, 2.0
"""Seconds between two updates of a pager: while a boot's blocks come, and afterwards."""


def directory(depot: Depot, digest: str) -> str:
    """The pager's directory."""
    return os.path.join(depot.images, ".paging", digest[len("sha256:") :])


class Pager:
    """The pager of a layer on this host, if there is one."""

    def __init__(self, depot: Depot, digest: str) -> None:
        self.directory = directory(depot, digest)
        self.socket = os.path.join("/run", unit_name(PAGER, digest)[: -len(".service")], QMP)

    def there(self) -> bool:
        """Whether it runs."""
        return os.path.exists(self.socket)

    def kept(self) -> int:
        """Bytes of its cache; they grow with each block that is read for the first time."""
        try:
            return os.stat(os.path.join(self.directory, CACHE_NAME)).st_size
        except FileNotFoundError:
            return 0

    def link(self, layer: str) -> str:
        """The path at which the pager finds the file of a layer that is being received."""
        return os.path.join(self.directory, layer_file(layer))

    def show(self, files: t.Sequence[str]) -> None:
        """Put these files, the topmost first, between cache and source in place of earlier ones.

        Nothing happens where the pager doesn't run any more.

        :raises GridError: ``export_failed``.
        """
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError), _Monitor(self.socket) as monitor:
            below, names = ORIGIN, []
            for place, path in enumerate(reversed(files)):
                names.append(f"{_VIEW}{time.time_ns():x}-{place}")
                file = {"driver": "file", "filename": path, "read-only": True, "locking": "off"}
                monitor.ask(
                    "blockdev-add",
                    **{"driver": "qcow2", "node-name": names[-1], "read-only": True, "file": file, "backing": below},
                )
                below = names[-1]
            cache = {"driver": "qcow2", "node-name": CACHE, "file": CACHE_FILE, "backing": below}
            monitor.ask("blockdev-reopen", options=[cache])
            old = [node["node-name"] for node in monitor.ask("query-named-block-nodes", flat=True)]
            # The newest first: each lies on an older one
            for name in sorted((name for name in old if name.startswith(_VIEW) and name not in names), reverse=True):
                monitor.ask("blockdev-del", **{"node-name": name})


class _Monitor:
    """A QMP connection, see QEMU's docs/interop/qmp-spec."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_PATIENCE)
        try:
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> _Monitor:
        self._lines.readline()
        self.ask("qmp_capabilities")
        return self

    def __exit__(self, *dummy: object) -> None:
        self._lines.close()
        self._socket.close()

    def ask(self, command: str, **arguments: object) -> t.Any:
        """Run a command; its JSON answer. :raises GridError: ``export_failed``."""
        try:
            self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
            while True:
                answer = json.loads(self._lines.readline(2**24) or b'{"error": {"desc": "it has ended"}}')
                if "error" in answer:
                    raise _failed(command, str(answer["error"].get("desc"))[:300])
                if "return" in answer:
                    return answer["return"]
        except (OSError, ValueError) as exc:
            raise _failed(command, str(exc) or type(exc).__name__) from exc


def _failed(command: str, why: str) -> GridError:
    return GridError(
        "export_failed",
        f"the pager did not do {command}: {why}",
        remedy="Run the same again; if it stays so, stop the pager (image_export, state absent, force) "
        "and run the same again",
    )


def withdraw(depot: Depot, layer: str) -> None:
    """Withdraw the file of a layer from every pager that reads it. :raises GridError: ``export_failed``."""
    above = os.path.join(depot.images, ".paging")
    for name in sorted(os.listdir(above)) if os.path.isdir(above) else []:
        pager = Pager(depot, "sha256:" + name)
        if os.path.lexists(pager.link(layer)):
            pager.show([])
            os.unlink(pager.link(layer))


class Feed:
    """Shows the layers of one image to its pager.

    :param top: digest of the image's topmost layer. :param early: only what a boot reads is fetched; update often.
    """

    def __init__(self, depot: Depot, top: str, early: bool) -> None:
        self.pager = Pager(depot, top)
        self.early = early
        self._layers: list[_Shown] = []
        self._due = 0.0
        self._pace = Pace(None)
        self._kept, self._read_at = -1, 0.0

    def begin(self, digest: str, incoming: Incoming, hidden: t.Container[int]) -> None:
        """Start to show a layer, above those that were begun before it. No other pager may read its file."""
        shown = _Shown(self.pager.link(digest), View(incoming.index, incoming.layout, hidden), incoming)
        self._layers.append(shown)
        write_tables(incoming.descriptor, incoming.layout.tables[: shown.view.at])
        shown.write()
        incoming.placed = lambda numbers: self._placed(shown, numbers)

    def end(self, digest: str) -> None:
        """The layer was received whole; stop showing it."""
        self._layers = [shown for shown in self._layers if shown.path != self.pager.link(digest)]

    def give_way(self, came: int, rate: float | None) -> None:
        """While machines read blocks for the first time, as when they boot, pause so as to keep to a rate.

        The connection's sender then waits as well.

        :param came: bytes since the last call. :param rate: bytes a second.
        """
        pace = self._pace if rate is not None and self._pace.rate == rate else Pace(rate, time.monotonic)
        self._pace = pace
        end = time.monotonic() + pace.pause(came)
        while True:
            now = time.monotonic()
            kept = self.pager.kept()
            if kept != self._kept:
                self._kept, self._read_at = kept, now
            if now >= end or now - self._read_at > QUIET:
                return
            time.sleep(min(_LOOK_AGAIN, end - now))

    def _placed(self, shown: _Shown, numbers: t.Iterable[int]) -> None:
        shown.view.show(numbers)
        shown.changed = True
        if time.monotonic() >= self._due:
            self.update()

    def complete(self) -> None:
        """Show everything at the end; waits for a pager that is still being started."""
        end = time.monotonic() + _PATIENCE
        while not self.pager.there() and time.monotonic() < end:
            time.sleep(_LOOK_AGAIN)
        self.update()

    def update(self) -> None:
        """Show what has been received. A failure is harmless: the pager still has its source."""
        begin = time.monotonic()
        if self.pager.there() and any(shown.changed for shown in self._layers):
            for shown in self._layers:
                if shown.changed:
                    shown.write()
            with contextlib.suppress(GridError, OSError):
                self.pager.show([shown.linked() for shown in reversed(self._layers)])
        # With large tables or a busy pager an update takes long; updates must not take most of the time
        self._due = time.monotonic() + max(_OFTEN if self.early else _SELDOM, 10 * (time.monotonic() - begin))


class _Shown:
    """A layer that is shown to a pager."""

    def __init__(self, path: str, view: View, incoming: Incoming) -> None:
        self.path = path
        self.view = view
        self.incoming = incoming
        self.changed = False

    def write(self) -> None:
        """Write its tables into its file."""
        self.changed = False
        write_tables(self.incoming.descriptor, self.view.tables(), self.view.at)

    def linked(self) -> str:
        """The path at which the pager, which runs as an unprivileged user, may read it; links the file there."""
        if not os.path.lexists(self.path):
            share(self.incoming.path, 0o640)
            os.link(self.incoming.path, self.path)
        return self.path
