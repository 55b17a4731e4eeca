# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source's part of a move: live to the end, or its files given away; and what holds after a failure."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import domain_xml, metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.api import Connect, Domain
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import (
    Hypervisor,
    libvirt,
    to_grid_error,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core import copies
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files import disk
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import observe
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import choice
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.host import (
    live,
    looking,
    marking,
    offering,
    sleeping,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.records import (
    Answer,
    Entry,
    Mark,
    Params,
    Stats,
    Target,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress
from ansible_collections.virtuoso.grid.plugins.module_utils._sockets import parse_ports

_KEEPALIVE = (5, 3)
_SETTLE_TIMEOUT = 15
_PAUSE = 0.5


class Sender:
    """Sends machines to one target."""

    def __init__(self, params: Params, depot: disk.Depot, hypervisor: Hypervisor, progress: Progress) -> None:
        self.params = params
        self.depot = depot
        self.hypervisor = hypervisor
        self.progress = progress
        self.target: Target = params["target"] or {}
        self._there: Connect | None = None
        self._once = threading.Lock()

    def close(self) -> None:
        """Leave the target."""
        if self._there is not None:
            with contextlib.suppress(libvirt.libvirtError):
                self._there.close()

    def _reach(self) -> Connect:
        """The target's libvirt. :raises GridError: ``target_unreachable``."""
        with self._once:
            if self._there is not None and self._there.isAlive():
                return self._there
            try:
                self._there = libvirt.open(f"qemu+unix:///system?socket={self.params['socket']}")
                self._there.setKeepAlive(*_KEEPALIVE)
            except libvirt.libvirtError as exc:
                raise GridError(
                    "target_unreachable",
                    f"{self.target['name']}'s libvirt can't be reached: {str(exc).strip()}",
                    remedy="See that libvirtd runs there, and that the user whom Ansible logs in as may use it"
                    " (root, or in its group libvirt)",
                ) from exc
            return self._there

    def send(self, entry: Entry) -> Answer:
        """Send one machine the way that its entry says.

        :raises GridError: among others ``move_failed``, whose ``copy`` says where the true copy is (``source``,
            ``target``, or neither).
        """
        domain, tree = observe.find_domain(self.hypervisor.conn, entry["uuid"], entry["name"])
        if domain is None:
            if entry["mode"] == choice.LIVE and self._there_already(entry):
                return {"changed": True, "actions": ["migrate live", "release"], "stats": {}, "autostart": False}
            raise GridError("machine_unknown", "no such machine on this host", remedy="Run virtuoso.grid.refresh")
        values = metadata.read(tree)
        if values is None:
            raise sleeping.foreign()
        if values["generation"] != int(entry["generation"]) - 1:
            raise GridError(
                "stale_generation",
                f"the machine here is of generation {values['generation']},"
                f" the move is to make generation {entry['generation']}",
                remedy="Run virtuoso.grid.refresh, so that the store knows what is there",
            )
        way = self._live if entry["mode"] == choice.LIVE else self._offer
        return way(entry, domain, bool(domain.autostart()))

    def _there_already(self, entry: Entry) -> bool:
        """Whether this very step has moved the machine: Ansible gives a step again whose connection broke."""
        found, tree = observe.find_domain(self._reach(), entry["uuid"], None)
        values = metadata.read(tree) if found is not None and not looking.arriving(found) else None
        return values is not None and values["generation"] == int(entry["generation"])

    def _moving(self, entry: Entry) -> Mark:
        return {"generation": int(entry["generation"]), "to": self.target["name"], "attempt": entry["attempt"]}

    def _define(self, entry: Entry, domain: Domain, running: bool) -> ET.Element:
        site, path = self.target.get("site"), self.target.get("path") or self.depot.path
        return marking.definition(domain, self.depot.path, path, site, int(entry["generation"]), live=running)

    def _live(self, entry: Entry, domain: Domain, autostart: bool) -> Answer:
        there = self._reach()
        live.require_way(self.target["address"])
        limits = live.Limits(
            address=self.target["address"],
            bandwidth=self.params["bandwidth"],
            downtime=self.params["downtime"],
            postcopy=bool(self.params["postcopy"] and looking.userfault() and self.target.get("postcopy")),
            postcopy_after=float(self.params["postcopy_after"]),
            stall=float(self.params["stall_timeout"]),
        )
        trees = self._define(entry, domain, True), self._define(entry, domain, False)
        begin = time.monotonic()
        marking.mark(self.hypervisor.conn, self.depot, domain, self._moving(entry))
        try:
            stats = live.migrate(domain, there, limits, *trees, self.progress.about(entry["name"]))
        except (GridError, libvirt.libvirtError) as exc:
            stats = self._after(entry, exc if isinstance(exc, GridError) else to_grid_error(exc))
        else:
            marking.release(self.depot, self.hypervisor.conn, entry["uuid"], domain)
        self.progress.about(entry["name"]).stage("done")
        seconds = round(time.monotonic() - begin, 3)
        return {
            "changed": True,
            "actions": ["migrate live", "release"],
            "stats": {**stats, "seconds": seconds},
            "autostart": autostart,
        }

    def _after(self, entry: Entry, error: GridError) -> Stats:
        """Find out what holds after a live move failed, and put it right as far as that can be told.

        :returns: nothing known of it, where the machine is at the target after all. :raises GridError: ``move_failed``.
        """
        end = time.monotonic() + _SETTLE_TIMEOUT
        verdict = copies.Verdict(None)
        while True:
            with contextlib.suppress(libvirt.libvirtError, GridError):
                conn = self._here()
                domain, dummy = observe.find_domain(conn, entry["uuid"], None)
                verdict = self._judge(entry, domain, last=time.monotonic() > end)
                if verdict.host == self.target["name"]:
                    marking.release(self.depot, conn, entry["uuid"], domain)
                    return {}
                if verdict.host is not None and domain is not None:
                    marking.restore(conn, self.depot, domain)
                    break
            if time.monotonic() > end:
                break
            time.sleep(_PAUSE)
        where = "source" if verdict.host is not None else None
        told = "the machine is where it was" if where else "where the machine is now can't be told yet"
        raise GridError(
            error.code if error.code == "link_lost" else "move_failed",
            f"the move did not succeed, {told}: {error.msg}",
            remedy=error.remedy
            if error.code == "link_lost"
            else "Run again, which begins with finding out which copy is the true one",
            copy=where,
        )

    def _here(self) -> Connect:
        """This host's libvirt, which may have been started anew."""
        if not self.hypervisor.conn.isAlive():
            self.hypervisor = Hypervisor(libvirt.open(self.params["uri"]), None)
        return self.hypervisor.conn

    def _judge(self, entry: Entry, domain: Domain | None, last: bool) -> copies.Verdict:
        """What libvirt on both hosts says. :param last: the target's end isn't waited for any longer."""
        here = looking.machine(self.hypervisor.conn, self.depot, entry["uuid"], None) if domain is not None else None
        mine = copies.copy_of("source", here or {"state": "absent"})
        other = copies.Copy(self.target["name"], answers=False)
        try:
            found, tree = observe.find_domain(self._reach(), entry["uuid"], None)
            if found is None:
                other = copies.Copy(self.target["name"])
            elif not looking.arriving(found):
                values = metadata.read(tree)
                if values is None:
                    raise sleeping.foreign()
                other = copies.Copy(self.target["name"], state=observe.state_of(found), generation=values["generation"])
        except (GridError, libvirt.libvirtError):
            pass
        if not other.answers and mine.state != "running" and not last:
            # It may just be starting anew, or be throwing away what came. A guest that runs here didn't go there.
            return copies.Verdict(None)
        return copies.decide([mine, other])

    def _offer(self, entry: Entry, domain: Domain, autostart: bool) -> Answer:
        """Have the machine sleep if it runs, mark it, and give its files to the target."""
        uuid, conn = entry["uuid"], self.hypervisor.conn
        actions = []
        if entry["mode"] == choice.HIBERNATED and not sleeping.asleep(self.depot, domain):
            self.progress.about(entry["name"]).stage("hibernate")
            sleeping.sleep(conn, self.depot, domain)
            actions.append("hibernate")
        elif entry["mode"] == choice.HIBERNATED:
            sleeping.make_whole(conn, self.depot, domain)
        if domain.isActive():
            raise GridError("wrong_state", "the machine runs", remedy="Run again: it is moved live then")
        tree = self._define(entry, domain, False)
        path = os.path.join(self.depot.machine(uuid), marking.FILE)
        disk.write_whole(path, domain_xml.to_text(tree).encode())
        marking.mark(conn, self.depot, domain, self._moving(entry))
        files = {"disk.qcow2": self.depot.disk(uuid), marking.FILE: path}
        if os.path.exists(self.depot.seed(uuid)):
            files["seed.iso"] = self.depot.seed(uuid)
        files.update(sleeping.files(self.depot, uuid))
        try:
            given = offering.offer(uuid, files, self.target["name"], parse_ports(self.params["ports"]))
        except GridError:
            marking.restore(conn, self.depot, domain)
            sleeping.wake(conn, self.depot, domain, sleeping.slept(self.depot, uuid))
            raise
        return {"changed": True, "actions": [*actions, "offer"], **given, "autostart": autostart}
