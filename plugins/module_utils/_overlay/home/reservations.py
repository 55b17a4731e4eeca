# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A home's network on the home's host: makes reservations in its DHCP server, and finds the addresses in use."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._command import command
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError, Result
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import check_text
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.home import leases
from ansible_collections.virtuoso.grid.plugins.module_utils._wait import Pending, wait_for

DIRECTORY = "/etc/virtuoso/home"
STATE = "/var/lib/virtuoso-home"


class Home:
    """A network of this home, as the role ``home`` has set it up. :raises GridError: ``network_missing``."""

    def __init__(self, network: str, directory: str = DIRECTORY, state: str = STATE) -> None:
        self.network = check_text("network", network)
        self._directory = os.path.join(directory, network)
        self._leases = os.path.join(state, f"{network}.leases")
        try:
            with open(os.path.join(self._directory, "network.json"), encoding="utf-8") as file:
                self._settings = json.load(file)
        except FileNotFoundError as exc:
            raise GridError(
                "network_missing",
                f"the network {network} is not set up at this home",
                remedy="Have it in virtuoso_home_networks of this host, and run the playbook virtuoso.grid.overlay",
            ) from exc
        own = (self._settings.get("addresses") or [None])[0]
        self._own = ipaddress.IPv4Interface(own) if own else None

    @property
    def subnet(self) -> ipaddress.IPv4Network | None:
        """The subnet of the network, if the home has an address on it."""
        return self._own.network if self._own else None

    @contextlib.contextmanager
    def locked(self) -> t.Iterator[None]:
        """A lock, held while reservations are compared and written."""
        with open(os.path.join(self._directory, ".lock"), "a", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def reservations(self) -> dict[str, leases.Reservation]:
        """All reservations, by the machines' uuid. :raises GridError: ``no_dhcp_server``."""
        self._need_server()
        found = {}
        hosts = os.path.join(self._directory, "hosts")
        for uuid in sorted(os.listdir(hosts)):
            with open(os.path.join(hosts, uuid), encoding="utf-8") as file:
                reservation = leases.parse_line(uuid, file.read())
            if reservation is not None:
                found[uuid] = reservation
        return found

    def _need_server(self) -> None:
        if not self._settings.get("dhcp"):
            raise GridError(
                "no_dhcp_server",
                f"the home's own DHCP server serves the network {self.network}, not one that this collection knows",
                remedy="Reserve the address there and order the machine with it (address.ip), "
                "or give the network dhcp in virtuoso_home_networks",
            )

    def reserve(self, entry: object, there: dict[str, leases.Reservation], check_mode: bool) -> Result:
        """Reserve a machine's name and address; its result. ``there`` is updated.

        :raises GridError: those of ``leases.parse_reservation`` and ``leases.decide``.
        """
        wanted = leases.parse_reservation(entry, self.subnet)
        actions = leases.decide(wanted, there, str(self._own.ip) if self._own else None)
        if actions and not check_mode:
            # dnsmasq reads files as they appear in its directory, so they must appear whole.
            new = os.path.join(self._directory, ".new")
            with open(new, "w", encoding="utf-8") as file:
                file.write(wanted.line)
            os.chmod(new, 0o644)
            os.rename(new, os.path.join(self._directory, "hosts", wanted.uuid))
        there[wanted.uuid] = wanted
        return {
            **{"uuid": wanted.uuid, "mac": wanted.mac, "address": wanted.address, "state": "present"},
            **{"changed": bool(actions), "actions": actions},
        }

    def release(self, uuid: str, there: dict[str, leases.Reservation], check_mode: bool) -> Result:
        """Remove a machine's reservation; its result. ``there`` is updated."""
        gone = there.pop(uuid, None)
        if gone and not check_mode:
            os.unlink(os.path.join(self._directory, "hosts", uuid))
        return {"uuid": uuid, "state": "absent", "changed": gone is not None, "actions": ["release"] if gone else []}

    def reload(self) -> None:
        """Let the server read the reservations again; leases stay. :raises GridError: ``dhcp_server_stopped``."""
        command(
            ["systemctl", "reload", f"virtuoso-home-dhcp@{self.network}.service"],
            timeout=30,
            code="dhcp_server_stopped",
            object=f"network {self.network}",
            remedy="Look at its journal; the playbook virtuoso.grid.overlay starts it",
        )

    def addresses(self) -> dict[str, leases.Lease]:
        """The addresses in use, by MAC address."""
        text = ""
        with contextlib.suppress(FileNotFoundError), open(self._leases, encoding="utf-8", errors="replace") as file:
            text = file.read()
        seen = command(["ip", "-j", "-4", "neigh", "show", "dev", self._settings["bridge"]], timeout=30, accept=(0, 1))
        return leases.by_mac([*leases.parse_leases(text), *leases.parse_neighbours(json.loads(seen or "[]"))])

    def wait(self, macs: t.Collection[str], seconds: float) -> dict[str, leases.Lease]:
        """Wait until all these MAC addresses have an address; those that have one in time, by MAC address."""

        def probe() -> dict[str, leases.Lease]:
            found = self.addresses()
            missing = [mac for mac in macs if mac not in found]
            if missing:
                raise Pending(", ".join(missing))
            return found

        try:
            found = wait_for(probe, seconds, what="the addresses")
        except GridError as exc:
            if exc.code != "timed_out":
                raise
            found = self.addresses()
        return {mac: found[mac] for mac in macs if mac in found}
