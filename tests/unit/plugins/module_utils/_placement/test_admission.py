# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reservations: admitted while at every moment the sum stays within the bound, kept for their owner, written with the
placement."""

from __future__ import annotations

import itertools
import random

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.account import Account, pledged
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.board import Past
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.greedy import solve
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import Demand, Provider, Rules, Slot, Use

GIB = 2**30
RULES = Rules(host_reserve=0, cpu_overcommit=4, reservation_bound=0.75)


def provider(name="p1", **fields):
    free = {"cpus": 4, "memory": 16 * GIB, "memory_free": 16 * GIB, "disk": 100 * GIB, "disk_free": 100 * GIB}
    return Provider(**{"name": name, **free, **fields})


def day(number):
    return f"2027-01-{number:02}T00:00:00Z"


def slot(key=None, cpus=1.0, memory=0, begin=1, end=2, owner="alice"):
    return Slot(key, owner, 100000, round(cpus * 100000), memory, day(begin), day(end))


def account(*slots):
    made = Account(provider(), RULES)
    for each in slots:
        made.reserve(each)
    return made


def test_the_bound_may_be_reached_and_not_passed():
    # three of four CPUs may be reserved
    assert account(slot("a", 2.0)).refuse(slot("b", 1.0)) is None
    reason = account(slot("a", 2.0)).refuse(slot("b", 1.01))
    assert reason == "needs 1.01 CPUs reserved, 1 left at 2027-01-01T00:00:00Z (3 of 4 may be reserved)"


def test_tenths_add_up_to_the_bound():
    made = account(*(slot(f"m{number}", 0.1) for number in range(29)))
    assert made.refuse(slot("last", 0.1)) is None and made.refuse(slot("last", 0.1001)) is not None


def test_only_what_is_at_the_same_time_counts():
    made = account(slot("a", 2.0, begin=1, end=3), slot("b", 2.0, begin=5, end=7))
    assert made.refuse(slot("c", 3.0, begin=3, end=5)) is None
    assert "at 2027-01-05" in made.refuse(slot("c", 2.0, begin=3, end=6))
    assert made.refuse(slot("c", 1.0, begin=1, end=9)) is None


def test_a_machines_own_reservation_does_not_count_against_its_change():
    assert account(slot("a", 3.0)).refuse(slot("a", 2.5)) is None


def test_memory_is_never_reserved_twice():
    made = account(slot("a", 0.1, 10 * GIB))
    assert made.refuse(slot("b", 0.1, 6 * GIB)) is None
    assert made.refuse(slot("b", 0.1, 7 * GIB)) == "needs 7 GiB of memory reserved, 6 GiB left at 2027-01-01T00:00:00Z"


def test_an_owners_machines_use_up_his_floor():
    floor = slot(None, 2.0, 8 * GIB)
    assert account(floor).refuse(slot("a", 2.5, 8 * GIB)) is None
    assert account(floor).refuse(slot("a", 1.5, owner="bob")) is not None
    assert pledged([floor, slot("a", 1.0, 10 * GIB), slot("b", 0.5, owner="bob")]) == (2.5, 10 * GIB)


@pytest.mark.parametrize("seed", range(50))
def test_no_moment_ever_has_more_than_the_bound(seed):
    """Against a plain count over all moments."""
    dice, made, admitted = random.Random(seed), account(), []
    for number in range(30):
        begin = dice.randint(1, 20)
        wanted = slot(
            f"m{number}", dice.randint(1, 30) / 10, dice.randint(0, 8) * GIB, begin, begin + dice.randint(1, 8)
        )
        fits = all(
            sum(each.rate for each in (*admitted, wanted) if each.at(day(moment))) <= 3 + 1e-6
            and sum(each.memory for each in (*admitted, wanted) if each.at(day(moment))) <= 16 * GIB
            for moment in range(1, 30)
            if wanted.at(day(moment))
        )
        assert (made.refuse(wanted) is None) == fits
        if fits:
            made.reserve(wanted)
            admitted.append(wanted)
    assert 1 < len(admitted) < 30


def demand(name, memory=GIB, owner="alice", **fields):
    return Demand(name, name, Use(1, memory, 0), owner=owner, **fields)


def where(demands, slots, providers=(provider("p1"), provider("p2", memory_allocated=GIB))):
    return [answer.provider for answer in solve(demands, providers, rules=RULES, past=Past(slots=slots))]


def test_a_machine_goes_where_its_reservation_is_admitted():
    wanted = demand("a", slot=slot("a", 2.0))
    full = {"p1": [slot("other", 2.0)]}
    assert where([wanted], {}) == ["p1"] and where([wanted], full) == ["p2"]
    assert where([demand("a", slot=slot("a", 2.0, begin=2, end=3))], full) == ["p1"]
    refused = solve([wanted], [provider("p1")], rules=RULES, past=Past(slots=full))[0]
    assert refused.error.code == "no_provider" and "2 CPUs reserved, 1 left" in refused.reasons["p1"]


def test_machines_of_one_batch_share_the_bound():
    batch = [demand(name, slot=slot(name, 2.0)) for name in "abc"]
    assert where(batch, {}) == ["p1", "p2", None]


def test_what_is_reserved_for_one_owner_is_not_free_for_another():
    kept = {"p1": [slot(None, 1.0, 12 * GIB, begin=5, end=6)]}
    for memory, owner, expected in ((5, "bob", None), (4, "bob", "p1"), (16, "alice", "p1"), (17, "alice", None)):
        assert where([demand("a", memory * GIB, owner)], kept, [provider()]) == [expected]


def test_a_floor_is_used_up_by_its_owners_machines():
    kept = {"p1": [slot(None, 0.1, 8 * GIB)]}
    machines = [demand("a", 8 * GIB), demand("b", 8 * GIB, "bob"), demand("c", GIB)]
    for order in itertools.permutations(machines[:2]):
        assert where([*order, machines[2]], kept, [provider()]) == ["p1", "p1", None]


def test_reserved_cpus_carry_no_other_machines():
    # four CPUs carry four each; two of them are reserved for Alice
    kept = {"p1": [slot(None, 2.0)]}
    batch = [demand(f"m{number}", 0, "bob") for number in range(10)]
    assert where(batch, kept, [provider()]).count("p1") == 8
