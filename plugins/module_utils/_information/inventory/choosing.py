# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines that a play is about, chosen by name and by the limit of the play (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.inventory.views import MachineView as Machine

ALL = "all"
_SHOWN = 50
"""How many of the known names an error lists."""


def names_of(select: object) -> list[str]:
    """The names in the option ``select``, a list or text with commas. Empty if it is ``all`` or not given.

    :raises GridError: ``invalid_options``.
    """
    if select is None or select == ALL:
        return []
    names = select.split(",") if isinstance(select, str) else select
    if not isinstance(names, t.Sequence) or not all(isinstance(name, str) for name in names):
        raise GridError(
            "invalid_options",
            "the machines are to be names",
            remedy="Give all, a list of names, or names separated by commas",
        )
    return [name.strip() for name in names if name.strip()]


def chosen(machines: t.Sequence[Machine], select: object, limit: t.Collection[str] | None) -> list[Machine]:
    """The machines that ``select`` and ``limit`` name, in the order of ``machines``.

    :param machines: all machines of the store.
    :param select: ``all``, names as a list or separated by commas, or nothing.
    :param limit: names of machines and providers that the play is limited to; ``None`` if it isn't limited.
    :raises GridError: ``machine_unknown``; ``nothing_chosen`` if neither is given, so that nobody gets all machines by
        a typing error.
    """
    names = names_of(select)
    known = [machine["name"] for machine in machines]
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    listed = f"Known are: {', '.join(known[:_SHOWN]) or 'none'}{more}"
    unknown = list(dict.fromkeys(name for name in names if name not in known))
    if unknown:
        raise GridError("machine_unknown", f"No such machine: {', '.join(unknown)}", remedy=listed, unknown=unknown)
    if not names and limit is None and select != ALL:
        remedy = (
            "Say which machines: --limit with names of machines or providers, -e machines=web1,web2, "
            f"or -e machines=all. {listed}"
        )
        raise GridError("nothing_chosen", "nothing says which machines are meant", remedy=remedy)
    within = [
        machine for machine in machines if limit is None or machine["name"] in limit or machine["provider"] in limit
    ]
    return [machine for machine in within if not names or machine["name"] in names]


def of_store(store: str, machines: list[Machine], select: object, limit: t.Collection[str] | None) -> list[Machine]:
    """All machines if neither ``select`` nor ``limit`` is given, else those of :func:`chosen`.

    :param store: its location, for errors.
    """
    if select is None and limit is None:
        return machines
    try:
        return chosen(machines, select, limit)
    except GridError as exc:
        raise exc.on(object=f"store {store}", tried="choose the machines") from None
