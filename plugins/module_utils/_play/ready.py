# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a machine is ready as it was ordered, and what is said of one that isn't (pure)."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._play.records import Order, Row

LOGIN = ("ssh", "cloud_init")
"""Wishes that are met by logging in."""

_CERTAIN = 15.0
"""Seconds for which a login has to be refused until it is believed: the key of a user may come after the server."""
_STATUS = re.compile(r"^status:\s*([a-z ]+)", re.MULTILINE)


class Awaited(t.TypedDict):
    """A machine that is waited for. ``ready`` is ``ssh`` or ``cloud_init``; ``ordered``: the order says so itself."""

    name: str
    ready: str
    ordered: bool


class Attempt(t.NamedTuple):
    """What came of one login."""

    rc: t.Optional[int]
    """the command's code; ``None`` where the login failed"""
    said: str


def wish_of(order: Order) -> str:
    """When the machine is ready: as ordered, else ``ssh`` where somebody's key is in the order, else ``address``."""
    spec = order["spec"]
    users = spec.get("users") or []
    default = "ssh" if any(user.get("ssh_authorized_keys") for user in users) else "address"
    return spec.get("ready") or default


def awaited(orders: t.Sequence[Order], rows: t.Sequence[Row]) -> list[Awaited]:
    """The machines that are to be logged in to.

    :param orders: those of a run.
    :param rows: what was seen of the machines on their providers.
    """
    running = {row.get("name") for row in rows if row.get("state") == "running" and not row.get("failed")}
    return [
        {"name": order["name"], "ready": wish_of(order), "ordered": bool(order["spec"].get("ready"))}
        for order in orders
        if order["name"] in running and wish_of(order) in LOGIN
    ]


def with_address(orders: t.Sequence[Order]) -> list[str]:
    """The uuids of the machines whose addresses are waited for: all but those whose order says ``ready: none``."""
    return [str(order["uuid"]) for order in orders if order.get("uuid") and wish_of(order) != "none"]


class Judge:
    """What to think of one machine, attempt by attempt."""

    def __init__(self, machine: Awaited, login: str) -> None:
        """:param login: who logs in, for messages."""
        self.machine = machine
        self.login = login
        self.last = "nobody has tried yet"
        self._refused_since: float | None = None

    def command(self) -> str:
        """What is run on the machine."""
        return "true" if self.machine["ready"] == "ssh" else "cloud-init status"

    def see(self, attempt: Attempt, now: float) -> Row | None:
        """The machine's row once it is decided; ``None`` while it isn't."""
        self.last = attempt.said.strip().splitlines()[-1][:200] if attempt.said.strip() else "it said nothing"
        if attempt.rc is None:
            return self._not_in(attempt.said, now)
        if self.machine["ready"] == "ssh":
            return self._row()
        return self._cloud_init(attempt)

    def _not_in(self, said: str, now: float) -> Row | None:
        if "Permission denied" not in said:
            self._refused_since = None
            return None
        self._refused_since = now if self._refused_since is None else self._refused_since
        if now - self._refused_since < _CERTAIN:
            return None
        refused = self._failed(
            "login_refused",
            f"it answers by SSH and refuses the login of {self.login}: {self.last}",
            "Give a key that the order's users have (ansible_ssh_private_key_file of the group machines, or an agent)."
            " For a machine that others log in to, order ready: address",
        )
        # It may be somebody else's machine, who has the key.
        return refused if self.machine["ordered"] else self._noted(refused)

    def _cloud_init(self, attempt: Attempt) -> Row | None:
        found = _STATUS.search(attempt.said)
        status = found[1].strip() if found else ""
        if status in ("done", "disabled"):
            return self._row()
        if status == "error" or status.startswith("degraded"):
            return self._failed(
                "cloud_init_failed",
                f"cloud-init ended with {status}",
                "Look at /var/log/cloud-init-output.log and cloud-init status --long in the machine",
            )
        if attempt.rc == 127:
            return self._failed("no_cloud_init", "its image has no cloud-init", "Order it with ready: ssh")
        self.last = f"cloud-init is {status or 'not there yet'}"
        return None

    def late(self, seconds: float) -> Row:
        """The row of a machine that isn't ready in time."""
        return self._failed(
            "not_ready",
            f"it is not ready ({self.machine['ready']}) after {seconds:g} s: {self.last}",
            "Look at its console (virtuoso.grid.report makes a screenshot), or at the way to it: virtuoso.grid.doctor"
            f" -e machine={self.machine['name']}. It may take longer: virtuoso_ready_timeout; order ready: address to"
            " not wait for a login",
        )

    def _noted(self, failed: Row) -> Row:
        """A failure as a note: the machine is served."""
        note = f"{failed['msg']}. {failed['failure']['remedy']}"
        return t.cast(Row, {"name": self.machine["name"], "changed": False, "ready": None, "note": note})

    def _row(self) -> Row:
        return t.cast(Row, {"name": self.machine["name"], "changed": False, "ready": self.machine["ready"]})

    def _failed(self, code: str, msg: str, remedy: str) -> Row:
        name = self.machine["name"]
        return t.cast(
            Row,
            {
                "name": name,
                "changed": False,
                "ready": None,
                "failed": True,
                "msg": f"machine {name}: {msg}",
                "failure": {
                    "code": code,
                    "object": f"machine {name}",
                    "tried": f"log in as {self.login}",
                    "remedy": remedy,
                },
            },
        )
