# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look, decide and move within one task, where moves are all that is to be done."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._migration import once, steps
from ansible_collections.virtuoso.grid.plugins.module_utils._migration import plan as play
from ansible_collections.virtuoso.grid.plugins.plugin_utils._served import Served
from ansible_collections.virtuoso.grid.plugins.plugin_utils._stations import Background, Result

View = t.Mapping[str, t.Any]

NOT_HERE: Result = {"changed": False, "over": False}
"""Nothing was done: it takes more than this."""


def looked_at(
    stations: t.Mapping[str, Served], hosts: t.Mapping[str, View], moves: t.Sequence[View], common: View
) -> dict[str, Result]:
    """What each host says of the machines and of itself."""

    def look(name: str) -> t.Callable[[], Result]:
        asked = {
            **common,
            "step": "look",
            "path": hosts[name]["path"],
            "facts": True,
            "machines": play.asked(moves, name),
        }
        return lambda: stations[name].run(asked)

    work = {name: Background(look(name)) for name in stations}
    return {name: each.result() for name, each in work.items()}


def at_once(
    moves: t.Sequence[View],
    hosts: t.Mapping[str, View],
    looked: t.Mapping[str, View],
    wanted: View,
    journey: t.Callable[[View], t.List[Result]],
) -> Result:
    """Decide and move; or nothing, where there is more to be done than that.

    :param hosts: by name, as :func:`once.end` makes them.
    :param wanted: ``mode``, ``dead``, ``speeds``, ``reserve``, ``per_host``, ``per_link``, ``networks``.
    :param journey: makes one; its machines as they are then.
    """
    if not once.seen_by_all(looked):
        return NOT_HERE
    sites = {name: host["site"] for name, host in hosts.items()}
    options = {key: wanted[key] for key in ("mode", "dead", "speeds", "reserve")}
    decided = play.plan(moves, looked, sites=sites, **options)
    waves = steps.waves(decided["moves"], wanted["per_host"], wanted["per_link"])
    if not once.simple(decided, wanted["networks"]) or not once.apart(waves):
        return NOT_HERE
    rows, seen = list(decided["rows"]), list(decided["seen"])
    for wave in waves:

        def work(each: View) -> t.Callable[[], Result]:
            return lambda: {"machines": journey(each)}

        made = {f"{each['source']}>{each['target']}": Background(work(each)) for each in wave}
        outcome = steps.outcome(steps.arrived(wave, {name: each.result() for name, each in made.items()}))
        rows += outcome["rows"]
        # What is seen later counts.
        seen = [row for row in seen if row["uuid"] not in {later["uuid"] for later in outcome["seen"]}] + outcome[
            "seen"
        ]
    return {"changed": any(row.get("changed") for row in rows), "over": True, "rows": rows, "seen": seen}
