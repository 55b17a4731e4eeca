# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines a play is about, of all that were ordered (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

Machine = t.Dict[str, t.Any]

ALL = "all"
_SHOWN = 50
"""So many names are told to who doesn't know them."""


def names_of(select: t.Any) -> list[str]:
    """The names of the option ``select``: a list, or text with commas; none where all are meant, or none was said.

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


def chosen(machines: t.Sequence[Machine], select: t.Any, limit: t.Collection[str] | None) -> list[Machine]:
    """Those that are meant, in their order.

    :param machines: all there are, as :func:`views.machine_view` shows them.
    :param select: ``all``, names as a list or separated by commas, or nothing.
    :param limit: names of machines and of providers, to which the play is limited; ``None`` where it isn't.
    :raises GridError: ``machine_unknown``, with ``known``; ``nothing_chosen`` where neither says which, because nobody
        should have all by a slip of the pen.
    """
    names = names_of(select)
    known = [machine["name"] for machine in machines]
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    told = f"Known are: {', '.join(known[:_SHOWN]) or 'none'}{more}"
    unknown = list(dict.fromkeys(name for name in names if name not in known))
    if unknown:
        raise GridError("machine_unknown", f"No such machine: {', '.join(unknown)}", remedy=told, unknown=unknown)
    if not names and limit is None and select != ALL:
        remedy = f"Say which machines: --limit with names of machines or providers, -e machines=web1,web2, or -e machines=all. {told}"
        raise GridError("nothing_chosen", "nothing says which machines are meant", remedy=remedy)
    within = [
        machine for machine in machines if limit is None or machine["name"] in limit or machine["provider"] in limit
    ]
    return [machine for machine in within if not names or machine["name"] in names]


def of_store(store: str, machines: list[Machine], select: t.Any, limit: t.Collection[str] | None) -> list[Machine]:
    """All, where neither is said; else as :func:`chosen`, whose error tells the store."""
    if select is None and limit is None:
        return machines
    try:
        return chosen(machines, select, limit)
    except GridError as exc:
        raise exc.on(object=f"store {store}", tried="choose the machines")
