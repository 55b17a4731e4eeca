# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays that place at the same time, as processes of their own."""

from __future__ import annotations

import multiprocessing

from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store

GIB = 2**30


def code(result):
    return result.get("failure", {}).get("code")


def _play(make_plays, path, number, placed):
    """One play: orders three machines of 1 GiB and places them on providers that it measured before the others came."""
    play = make_plays(path)
    machines = play.order(*(f"web-{number}-{count}" for count in range(3)))
    placed.put(
        [
            (result["name"], result.get("provider"), code(result))
            for result in play.place(machines, {"memory": 8 * GIB}, {"memory": 8 * GIB})
        ]
    )


def test_plays_at_once_never_promise_the_same_gigabyte_and_lose_nothing(tmp_path, make_plays):
    context = multiprocessing.get_context("fork")
    placed, path = context.Queue(), tmp_path / "grid.db"
    processes = [context.Process(target=_play, args=(make_plays, path, number, placed)) for number in range(8)]
    for process in processes:
        process.start()
    results = [result for dummy in processes for result in placed.get(timeout=60)]
    for process in processes:
        process.join()
    providers = [provider for dummy, provider, dummy in results]
    assert (providers.count("p1"), providers.count("p2"), providers.count(None)) == (8, 8, 8)
    assert {failure for dummy, provider, failure in results if provider is None} == {"no_provider"}
    with Store(str(path)).reading() as connection:
        rows = {row["name"]: row["provider"] for row in query.machines(connection)}
    assert rows == {name: provider for name, provider, dummy in results}


def _last_gigabyte(make_plays, path, number, go, placed):
    """A play that has made up its mind before anyone has written anything."""
    play = make_plays(path)
    machine = play.order(f"web-{number}")
    go.wait()
    late = play.propose(machine, {"memory": GIB}, within=0.1)
    go.wait()
    result = play.place(machine, {"memory": GIB}, proposal=late)[0]
    placed.put((late, result.get("provider"), code(result)))


def test_the_last_gigabyte_is_promised_once_though_all_were_proposed_it(tmp_path, make_plays):
    context, number = multiprocessing.get_context("fork"), 4
    placed, path = context.Queue(), tmp_path / "grid.db"
    go = context.Barrier(number)
    processes = [
        context.Process(target=_last_gigabyte, args=(make_plays, path, each, go, placed)) for each in range(number)
    ]
    for process in processes:
        process.start()
    results = [placed.get(timeout=60) for dummy in processes]
    for process in processes:
        process.join()
    assert all(list(late.values()) == ["p1"] for late, dummy, dummy in results)
    assert sorted(str(provider) for dummy, provider, dummy in results) == ["None"] * 3 + ["p1"]
    assert [failure for dummy, provider, failure in results if provider is None] == ["no_provider"] * 3
