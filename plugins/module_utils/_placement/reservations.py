# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reservations of owners on providers, for machines to come: read from options, admitted or refused, written."""

from __future__ import annotations

import functools
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query, schema, writing
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.records import ReservationRow
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import (
    check_text,
    parse_reservation,
    shorten,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.account import Account
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.board import Board
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.holding import columns_of
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.inputs import read_provider
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import Rules, Slot
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.stored import Known, read_known, slot_of_row
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, attempt
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size, parse_size

if t.TYPE_CHECKING:
    import sqlalchemy as sa

_FIELDS = ("owner", "provider", "period", "slice", "cpus", "memory", "from", "to")
_MOST_CPUS = 4096


def read_reservation(given: object, *, absent: bool) -> tuple[str, Slot]:
    """The name of the provider and what is reserved there. A reservation to be given up needs no period and slice.

    :raises GridError: ``invalid_reservation``, ``invalid_owner``, and as :func:`parse_reservation`.
    """
    needed = ("owner", "provider", "from", "to") if absent else ("owner", "provider", "from", "to", "period", "slice")
    entry = given if isinstance(given, t.Mapping) else {}
    unknown = sorted(str(field) for field in set(entry) - set(_FIELDS))
    missing = [field for field in needed if entry.get(field) is None]
    if unknown or missing:
        wrong = f"unknown fields: {shorten(', '.join(unknown))}" if unknown else f"without {', '.join(missing)}"
        raise GridError(
            "invalid_reservation", f"not a reservation, {wrong}", remedy=f"Give a mapping of {', '.join(_FIELDS)}"
        )
    cpus = entry.get("cpus", 1)
    if (
        isinstance(cpus, bool)
        or not str(cpus).isascii()
        or not str(cpus).isdigit()
        or not 1 <= int(str(cpus)[:9]) <= _MOST_CPUS
    ):
        raise GridError(
            "invalid_reservation", f"cpus {shorten(cpus)} is not a number", remedy=f"Give 1 to {_MOST_CPUS}"
        )
    wanted = parse_reservation(
        {"period": "100 ms", "slice": "1 ms", **{key: entry[key] for key in entry if entry[key] is not None}}
    )
    memory = parse_size(entry["memory"], "memory") if entry.get("memory") is not None else 0
    owner = check_text("owner", entry["owner"])
    return str(entry["provider"]), Slot(
        None, owner, wanted["period"], wanted["slice"] * int(cpus), memory, wanted["from"], wanted["to"]
    )


class _Ledger:
    """The providers as the store knows them, with everything that is held and reserved on them."""

    def __init__(self, connection: sa.Connection, known: Known, rules: Rules) -> None:
        self.known = known
        hosts = query.hosts(connection, kinds=("provider",))
        self.uuids = {row["name"]: row["uuid"] for row in hosts}
        providers = [read_provider({**(row["facts"] or {}), "name": row["name"], "machines": ()}) for row in hosts]
        defined: dict[str, set[str]] = {}
        for uuid, row in known.rows.items():
            if row["provider"] and not row["future"]:
                defined.setdefault(row["provider"], set()).add(uuid)
        self.board = Board((), providers, known.past(()), rules)
        for name, account in self.board.accounts.items():
            # What exists is included in the provider's own measurements.
            for uuid in defined.get(name, ()):
                whole = known.uses[uuid]
                account.hold(
                    uuid, whole.beyond(whole), owner=known.rows[uuid]["owner"], whole=whole, slot=account.slot_of(uuid)
                )

    def account(self, name: str) -> Account:
        """A provider's account.

        :raises GridError: ``unknown_provider``, ``provider_unmeasured``.
        """
        account = self.board.accounts.get(name)
        if account is None:
            raise GridError(
                "unknown_provider",
                f"the store has no provider {shorten(name)}; it has {', '.join(self.board.accounts) or 'none'}",
                remedy="Run virtuoso.grid.setup or deploy, which register the providers",
            )
        if not account.provider.measured:
            raise GridError(
                "provider_unmeasured",
                f"nothing was measured of {name} yet",
                remedy="Run a deployment, which registers what it has",
            )
        return account

    def admit(self, name: str, slot: Slot) -> None:
        """Count the reservation.

        :raises GridError: ``reservation_refused``, and as :meth:`account`.
        """
        account = self.account(name)
        reason = account.refuse(slot)
        if reason is None:
            account.reserve(slot)
            free = account.free()
            if free.memory < 0:
                left = format_size(max(0, free.memory + slot.memory))
                reason = f"needs {format_size(slot.memory)} of memory, {left} are not taken"
            elif free.cpus < 0:
                reason = f"needs {slot.rate:.3g} CPUs, which what runs there leaves no room for"
            if reason is not None:
                account.withdraw(slot)
        if reason is not None:
            raise GridError(
                "reservation_refused",
                f"{name} can't admit it: it {reason}",
                remedy="Reserve less, at another time or on another provider",
                provider=name,
                reason=reason,
            )


def _same_time(row: ReservationRow, name: str, slot: Slot) -> bool:
    mine = row["machine"] is None and row["provider"] == name and row["owner"] == slot.owner
    return mine and (row["begin"], row["end"]) == (slot.begin, slot.end)


def _shown(slot: Slot | None) -> dict[str, int] | None:
    return None if slot is None else {"period": slot.period, "slice": slot.slice, "memory": slot.memory}


def _write(connection: sa.Connection, old: ReservationRow | None, new: ReservationRow | None) -> None:
    """Replace a reservation."""
    rows = [] if new is None else [{**_columns(new), "provider": new["provider_uuid"]}]
    writing.delete(connection, [old["uuid"]] if old else [])
    writing.add_objects(connection, "reservation", rows)
    writing.insert(connection, schema.RESERVATION, rows)


def _columns(row: ReservationRow) -> dict[str, object]:
    return {column: value for column, value in row.items() if column != "provider_uuid"}


def serve(
    connection: sa.Connection,
    entries: t.Sequence[object],
    rules: Rules,
    *,
    absent: bool,
    check: bool,
    hold: int,
    now: str,
) -> tuple[list[Result], list[dict[str, str]]]:
    """Reserve, change or give up; what can't be admitted fails alone. Returns results and diffs.

    :param check: decide only, write nothing.
    :param hold: seconds for which room is held for a future machine.
    """
    ledger = _Ledger(connection, read_known(connection, hold=hold, now=now), rules)
    rows = list(ledger.known.reservations)
    diffs: list[dict[str, str]] = []

    def replace(name: str, old: Slot | None, new: Slot | None) -> None:
        """Count the new reservation instead of the old one. If it is refused, the old one counts as before."""
        if new is not None and new.end <= now:
            raise GridError(
                "reservation_over", f"it would have ended at {new.end}", remedy="Give a time in to that is to come"
            )
        account = ledger.account(name)
        if old is not None:
            account.withdraw(old)
        if new is None:
            return
        try:
            ledger.admit(name, new)
        except GridError:
            if old is not None:
                account.reserve(old)
            raise

    def one(given: object) -> Result:
        name, slot = read_reservation(given, absent=absent)
        ledger.account(name)
        row = next((row for row in rows if _same_time(row, name, slot)), None)
        old, wanted = slot_of_row(row) if row else None, None if absent else slot
        about = {"owner": slot.owner, "provider": name, "from": slot.begin, "to": slot.end}
        if old == wanted:
            return {**about, "uuid": row["uuid"] if row else None}
        replace(name, old, wanted)
        new: ReservationRow | None = None
        if wanted is not None:
            new = {
                **columns_of(wanted),
                "uuid": writing.new_uuid(),
                "provider": name,
                "provider_uuid": ledger.uuids[name],
                "state": "admitted",
                "created": now,
            }
            rows.append(new)
        if row is not None:
            rows.remove(row)
        if not check:
            _write(connection, row, new)
        subject = f"reservation of {slot.owner} on {name} from {slot.begin} to {slot.end}"
        diffs.append(diff(subject, _shown(old), _shown(wanted)))
        return {**about, "uuid": new["uuid"] if new and not check else None, "changed": True}

    return [
        attempt(f"entry {position}", functools.partial(one, given), kind="reservation", tried="admit the reservation")
        for position, given in enumerate(entries, 1)
    ], diffs
