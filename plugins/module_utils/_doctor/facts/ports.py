# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TCP between hosts, tried: each host listens for some seconds on the ports that nothing else has, and connects to the
others' meanwhile.

Whether a firewall admits a port can be told only where something listens on it. All hosts do so at the same time; what
connects is accepted and closed, nothing is read.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import selectors
import socket
import threading
import time
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.records import Attempt, Peer, Ports

TIMEOUT = 2.0
"""Seconds that one connection may take."""
_EVERY = 0.5
_AT_A_TIME = 64
_WORDS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "refused",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ETIMEDOUT: "timeout",
}


def attempt(address: str, port: int, timeout: float = TIMEOUT) -> Attempt:
    """Connect once, and close."""
    try:
        with socket.create_connection((address, port), timeout=timeout):
            return {"result": "open", "error": None}
    except socket.gaierror as exc:
        return {"result": "unresolved", "error": exc.strerror}
    except (TimeoutError, socket.timeout):
        return {"result": "timeout", "error": f"no answer within {timeout:g} s"}
    except (OSError, UnicodeError) as exc:
        number = getattr(exc, "errno", None) or 0
        return {"result": _WORDS.get(number, "other"), "error": getattr(exc, "strerror", None) or str(exc)}


def _listener(port: int) -> socket.socket:
    """A socket for both families where the host has IPv6. :raises OSError:"""
    try:
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
    except (OSError, ValueError) as exc:
        if isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE:
            raise
        return socket.create_server(("", port), backlog=128)


class Listening:
    """Listens on ports until it is closed; ``ports`` says of each whether something listens there."""

    def __init__(self, ports: t.Iterable[int]) -> None:
        self.ports: t.Dict[int, bool] = {}
        self._selector = selectors.DefaultSelector()
        self._sockets: t.List[socket.socket] = []
        self._done = threading.Event()
        for port in ports:
            try:
                listener = _listener(port)
            except OSError as exc:
                # In use means that a service answers there, which is as good.
                self.ports[port] = exc.errno == errno.EADDRINUSE
                continue
            self.ports[port] = True
            listener.setblocking(False)
            self._sockets.append(listener)
            self._selector.register(listener, selectors.EVENT_READ, listener)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._done.is_set():
            if not self._sockets:
                return
            for key, dummy in self._selector.select(0.2):
                with contextlib.suppress(OSError):
                    key.data.accept()[0].close()

    def close(self) -> None:
        """Stop."""
        self._done.set()
        self._thread.join(2)
        for each in self._sockets:
            each.close()
        self._selector.close()


def _persist(address: str, port: int, deadline: float) -> Attempt:
    """Connect, again and again until it works or time is up: the other host may not listen yet."""
    while True:
        tried = attempt(address, port)
        if tried["result"] in ("open", "unresolved") or time.monotonic() + _EVERY > deadline:
            return tried
        time.sleep(_EVERY)


def probe(peers: t.Sequence[Peer], listen: t.Sequence[int], seconds: float) -> Ports:
    """Listen and connect for so many seconds, and at most some more for connections that are under way.

    Without peers it returns at once.
    """
    begin = time.time()
    if not peers:
        return {"begin": begin, "end": begin, "listening": {}, "attempts": {}}
    deadline = time.monotonic() + seconds
    listening = Listening(listen)
    wanted = [(peer["name"], peer["address"], int(port)) for peer in peers for port in peer["ports"]]
    with concurrent.futures.ThreadPoolExecutor(min(_AT_A_TIME, max(1, len(wanted)))) as pool:
        results = list(pool.map(lambda each: _persist(each[1], each[2], deadline), wanted))
    time.sleep(max(0.0, deadline - time.monotonic()))
    listening.close()
    attempts: t.Dict[str, t.Dict[str, Attempt]] = {}
    for (name, dummy, port), result in zip(wanted, results):
        attempts.setdefault(name, {})[str(port)] = result
    return {
        "begin": begin,
        "end": time.time(),
        "listening": {str(port): there for port, there in listening.ports.items()},
        "attempts": attempts,
    }
