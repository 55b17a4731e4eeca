# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to a host's libvirt, its events, and its errors as typed ones."""

from __future__ import annotations

import contextlib
import threading
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Connect, Domain

try:
    import libvirt
except ImportError:
    libvirt = None

_FULL = "Free space in the depot's file system and run again"
SETUP = "Run the playbook virtuoso.grid.setup on this host, which installs it"

# virDomainState -> the collection's word; https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainState
_STATES = {0: "running", 1: "running", 2: "running", 3: "paused", 4: "running", 5: "stopped", 6: "stopped", 7: "paused"}

# Seconds between two keep-alive probes of libvirtd, and how many may stay unanswered.
_KEEPALIVE = (5, 3)


def state_word(number: int) -> str:
    """``running``, ``paused`` or ``stopped`` for a ``virDomainState``.

    A guest that is shutting down still runs; one that crashed is stopped.
    """
    return _STATES.get(number, "running")


def to_grid_error(exc: Exception) -> GridError:
    """A libvirt or operating system error as a typed one."""
    if isinstance(exc, OSError):
        # 28 is ENOSPC, 122 is EDQUOT
        code = "disk_full" if exc.errno in (28, 122) else "io_error"
        where = f": {exc.filename}" if exc.filename else ""
        remedy = _FULL if code == "disk_full" else None
        return GridError(code, f"{exc.strerror or exc}{where}", remedy=remedy)
    number = exc.get_error_code() if hasattr(exc, "get_error_code") else None
    text = str(exc).strip().rstrip(".")
    known = {
        libvirt.VIR_ERR_NO_DOMAIN: ("machine_unknown", None),
        libvirt.VIR_ERR_NO_NETWORK: (
            "network_missing",
            "Run the playbook virtuoso.grid.setup, or name a network that is there",
        ),
        libvirt.VIR_ERR_OPERATION_TIMEOUT: (
            "libvirt_busy",
            "Another operation on this machine is under way: run again when it has ended",
        ),
        libvirt.VIR_ERR_RPC: (
            "libvirt_unreachable",
            "See that libvirtd runs: systemctl status libvirtd; then run again",
        ),
        libvirt.VIR_ERR_SYSTEM_ERROR: ("libvirt_error", None),
    }
    code, remedy = known.get(number, ("libvirt_error", None))
    if "client socket is closed" in text or "keepalive timeout" in text:
        code, remedy = "libvirt_unreachable", "See that libvirtd runs: systemctl status libvirtd; then run again"
    elif code == "libvirt_error" and "network '" in text and "is not active" in text:
        code, remedy = known[libvirt.VIR_ERR_NO_NETWORK]
    elif code == "libvirt_error" and "No space left on device" in text:
        code, remedy = "disk_full", _FULL
    return GridError(code, f"libvirt says: {text}", remedy=remedy, libvirt_code=number)


@contextlib.contextmanager
def translated(tried: str | None = None) -> t.Iterator[None]:
    """Turn errors of libvirt and of the operating system that are raised inside into :class:`GridError`."""
    try:
        yield
    except GridError as exc:
        exc.on(tried=tried)
        raise
    except OSError as exc:
        raise to_grid_error(exc).on(tried=tried) from exc
    except Exception as exc:
        if libvirt is None or not isinstance(exc, libvirt.libvirtError):
            raise
        raise to_grid_error(exc).on(tried=tried) from exc


class EventLoop:
    """libvirt's default event loop in a daemon thread. Start it before the connection is opened."""

    def __init__(self) -> None:
        libvirt.virEventRegisterDefaultImpl()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="libvirt-events", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            libvirt.virEventRunDefaultImpl()

    def close(self) -> None:
        """End the thread: a timer without delay wakes it."""
        self._stop.set()
        libvirt.virEventAddTimeout(0, lambda *dummy: None, None)
        self._thread.join(2)


_ANY = "*"


class Events:
    """Wakes what waits for a machine whenever libvirt reports a change of it. Thread-safe."""

    def __init__(self, conn: Connect) -> None:
        self._conn = conn
        self._lock = threading.Lock()
        self._waiting: dict[str, set[threading.Event]] = {}
        ids = (
            libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE,
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED,
            libvirt.VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE,
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
            libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
            libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2,
            libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
        )
        self._reboots: dict[str, int] = {}
        self._registered = [conn.domainEventRegisterAny(None, number, self._notify, None) for number in ids]
        self._registered.append(
            conn.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._rebooted, None)
        )

    def _notify(self, _conn: Connect, domain: Domain, *_rest: object) -> None:
        uuid = domain.UUIDString()
        with self._lock:
            for wake in (*self._waiting.get(uuid, ()), *self._waiting.get(_ANY, ())):
                wake.set()

    def _rebooted(self, conn: Connect, domain: Domain, *dummy: object) -> None:
        with self._lock:
            self._reboots[domain.UUIDString()] = self._reboots.get(domain.UUIDString(), 0) + 1
        self._notify(conn, domain)

    def reboots(self, uuid: str) -> int:
        """How often the machine rebooted since this connection was opened."""
        with self._lock:
            return self._reboots.get(uuid, 0)

    @contextlib.contextmanager
    def of(self, uuid: str = _ANY) -> t.Iterator[threading.Event]:
        """An event that is set at each change of the machine, or, without ``uuid``, of any machine; for
        ``wait_for(wake=...)``."""
        wake = threading.Event()
        with self._lock:
            self._waiting.setdefault(uuid, set()).add(wake)
        try:
            yield wake
        finally:
            with self._lock:
                self._waiting[uuid].discard(wake)

    def close(self) -> None:
        """Stop receiving events."""
        for number in self._registered:
            with contextlib.suppress(libvirt.libvirtError):
                self._conn.domainEventDeregisterAny(number)


class Hypervisor(t.NamedTuple):
    """An open connection to libvirt, and its events; ``None`` where it was opened without them."""

    conn: Connect
    events: t.Optional[Events]


def events_of(hypervisor: Hypervisor) -> Events:
    """The events of a connection that was opened with them."""
    return t.cast(Events, hypervisor.events)


def _require() -> None:
    if libvirt is None:
        raise GridError(
            "library_missing",
            "the Python library of libvirt is not installed",
            tried="import libvirt",
            remedy=f"{SETUP} (python3-libvirt)",
        )


@contextlib.contextmanager
def connect(uri: str, *, events: bool = False) -> t.Iterator[Hypervisor]:
    """Open libvirt at ``uri``; with ``events`` also its event loop, keep-alive and :class:`Events`.

    :raises GridError: ``library_missing``, ``libvirt_unreachable``.
    """
    _require()
    # libvirt would write every error to standard error as well
    libvirt.registerErrorHandler(lambda *dummy: None, None)
    loop = EventLoop() if events else None
    try:
        conn: Connect = libvirt.open(uri)
    except libvirt.libvirtError as exc:
        if loop:
            loop.close()
        raise GridError(
            "libvirt_unreachable",
            f"libvirt doesn't answer: {str(exc).strip()}",
            tried=f"connect to {uri}",
            remedy="Start it: systemctl start libvirtd",
        ) from exc
    listener = None
    try:
        if loop:
            with contextlib.suppress(libvirt.libvirtError):
                conn.setKeepAlive(*_KEEPALIVE)
            with translated("register for libvirt's events"):
                listener = Events(conn)
        yield Hypervisor(conn, listener)
    finally:
        if listener:
            listener.close()
        with contextlib.suppress(libvirt.libvirtError):
            conn.close()
        if loop:
            loop.close()
