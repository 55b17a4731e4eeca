# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Better answers than the greedy one: valid, never worse, the same for the same input, with and without OR-Tools."""

from __future__ import annotations

import random
import statistics

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._placement import cp_sat, improvement
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.board import Board, Past, Quota
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.greedy import bundles, settle
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import Demand, Provider, Rules, Slot, Use
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.problem import State, Weights, read

GIB = 2**30
RULES = Rules(host_reserve=0, cpu_overcommit=4)
LAYERS = ["sha256:" + letter * 64 for letter in "ab"]
ENGINES = pytest.mark.parametrize("library", [True, False], ids=["cp-sat", "local"])


class Endless(improvement.Clock):
    """A clock that never cuts: what is tried is counted, so tests need no time."""

    def __init__(self):
        super().__init__(1000.0, lambda: 0.0)


def provider(name, memory=16, **fields):
    free = {"cpus": 4, "memory": memory * GIB, "memory_free": memory * GIB, "disk": 100 * GIB, "disk_free": 100 * GIB}
    return Provider(**{"name": name, **free, **fields})


def demand(name, memory=1.0, cpus=1, disk=0, digest=None, **fields):
    lists = {field: frozenset(fields.pop(field, ())) for field in ("tags", "affinity", "anti_affinity")}
    use = Use(cpus, int(memory * GIB), disk, digest, 2 * GIB if digest else 0)
    return Demand(name, name, use, owner=fields.pop("owner", "alice"), **lists, **fields)


def place(demands, providers, past=Past(), library=True, within=1.0, seed=0, weights=Weights()):
    return improvement.place(
        demands, providers, past, RULES, within=within, seed=seed, library=library, weights=weights, clock=Endless()
    )


def where(demands, providers, **options):
    return [answer.provider for answer in place(demands, providers, **options)[0]]


@ENGINES
def test_what_greedy_can_not_fit_is_fitted(library):
    """In list order the small ones spread and leave no room for the large ones."""
    machines = [demand(f"s{number}", 4) for number in range(4)] + [demand("large", 16)]
    providers = [provider("p1"), provider("p2")]
    assert where(machines, providers, within=None).count(None) == 1
    found = where(machines, providers, library=library)
    assert None not in found and len(set(found[:4])) == 1 and found[4] not in found[:4]


@ENGINES
def test_evenness_is_better_than_greedy(library):
    dice = random.Random(7)
    machines = [demand(f"m{number}", dice.choice([0.5, 1, 2, 4]), dice.choice([1, 2, 4])) for number in range(24)]
    providers = [provider(f"p{number}") for number in range(6)]

    def uneven(answers):
        sums = {each.name: 0 for each in providers}
        for machine, answer in zip(machines, answers):
            sums[answer.provider] += machine.use.memory / GIB
        return statistics.pstdev(sums.values())

    answers, told = place(machines, providers, library=library)
    assert told.cost < told.greedy and told.engine == ("cp-sat" if library else "local search")
    assert uneven(answers) < uneven(place(machines, providers, within=None)[0])


def test_cp_sat_proves_what_is_best_and_tells_its_gap():
    machines = [demand(f"m{number}", goal="price") for number in range(6)]
    providers = [provider("dear", price=2.0), provider("cheap", memory=4, price=1.0), provider("worst", price=9.0)]
    answers, told = place(machines, providers)
    assert sorted(answer.provider for answer in answers) == ["cheap"] * 4 + ["dear"] * 2
    assert told.optimal and told.gap == 0 and not told.cut


@ENGINES
def test_packing_opens_no_provider_more_than_needed(library):
    """First fit in list order needs three: 6+6, 10, 10."""
    machines = [demand(f"m{number}", memory, goal="pack") for number, memory in enumerate([6, 6, 10, 10])]
    providers = [provider(f"p{number}") for number in range(4)]
    assert len(set(where(machines, providers, within=None))) == 3
    assert len(set(where(machines, providers, library=library))) == 2


@ENGINES
def test_an_image_decides_between_what_is_as_even(library):
    machines = [demand(f"a{number}", digest=LAYERS[0]) for number in range(2)] + [
        demand(f"b{number}", digest=LAYERS[1]) for number in range(2)
    ]
    providers = [provider("p1", digests=frozenset(LAYERS[:1])), provider("p2", digests=frozenset(LAYERS[1:]))]
    assert where([machines[2], machines[0], machines[1], machines[3]], providers, library=library) == [
        "p2",
        "p1",
        "p1",
        "p2",
    ]


@ENGINES
def test_a_fast_provider_gets_what_must_be_brought(library):
    machines = [demand(f"m{number}", goal="price", digest=LAYERS[0]) for number in range(2)]
    providers = [provider("p1", speed=1e6), provider("p2", speed=1e9)]
    assert where(machines, providers, library=library) == ["p2", "p2"]


@ENGINES
def test_apart_and_together_hold_in_better_answers(library):
    machines = [demand(f"web{number}", 1 + number % 3, tags=["web"], anti_affinity=["tag:web"]) for number in range(4)]
    machines += [demand(f"db{number}", 2, affinity=["web0"]) for number in range(2)] + [
        demand(f"m{number}") for number in range(8)
    ]
    found = where(machines, [provider(f"p{number}") for number in range(4)], library=library)
    assert len(set(found[:4])) == 4 and found[4] == found[5] == found[0] and None not in found


@ENGINES
def test_quota_holds_in_better_answers(library):
    machines = [demand(f"m{number}", number % 3 + 1, cpus=number % 2 + 1) for number in range(10)]
    past = Past(quotas={"alice": Quota(machines=4)})
    answers, dummy = place(machines, [provider("p1"), provider("p2")], past, library)
    assert [answer.error and answer.error.code for answer in answers] == [None] * 4 + ["quota_exceeded"] * 6


def test_one_machine_and_nothing_to_place_need_no_search():
    assert place([demand("a")], [provider("p1"), provider("p2")])[1].engine == "greedy"
    held = Past(held={"p1": {"a": Use(1, GIB, 0), "b": Use(1, GIB, 0)}})
    answers, told = place([demand("a", at="p1"), demand("b", at="p1")], [provider("p1"), provider("p2")], held)
    assert told.engine == "greedy" and [answer.provider for answer in answers] == ["p1", "p1"]


def test_what_is_placed_stays_whatever_would_be_better():
    held = Past(held={"p1": {f"old{number}": Use(1, 2 * GIB, 0) for number in range(4)}})
    old = [demand(f"old{number}", 2, at="p1") for number in range(4)]
    found = where(
        [*old, *(demand(f"m{number}", 2) for number in range(4))], [provider("p1"), provider("p2")], past=held
    )
    assert found == ["p1"] * 4 + ["p2"] * 4


def test_without_the_library_the_answer_says_so(monkeypatch):
    monkeypatch.setattr(cp_sat.importlib.util, "find_spec", lambda name: None)
    machines = [demand(f"m{number}", number % 3 + 1) for number in range(6)]
    answers, told = place(machines, [provider("p1"), provider("p2")])
    assert not cp_sat.available() and told.engine == "local search" and all(answer.provider for answer in answers)


def test_the_clock_cuts_and_says_so():
    ticks = iter(range(10**6))
    machines = [demand(f"m{number}", number % 5 + 1, cpus=number % 3 + 1) for number in range(12)]
    clock = improvement.Clock(1.0, lambda: float(next(ticks)))
    answers, told = improvement.place(
        machines, [provider(f"p{number}") for number in range(4)], Past(), RULES, within=1.0, library=False, clock=clock
    )
    assert told.cut and all(answer.provider for answer in answers)


def random_case(seed):
    dice = random.Random(seed)
    providers = []
    for number in range(dice.randint(2, 6)):
        memory = dice.randint(4, 24)
        used = dice.randint(0, memory // 2) * GIB
        facts = {"memory_allocated": used, "digests": frozenset(dice.sample(LAYERS, dice.randint(0, 2)))}
        disk = dice.randint(4, 40) * GIB
        measured = {"price": dice.randint(1, 3), "speed": dice.choice([1e7, 1e8]), "disk": disk, "disk_free": disk}
        providers.append(provider(f"p{number}", memory, cpus=dice.randint(1, 6), **facts, **measured))
    machines = []
    for number in range(dice.randint(2, 24)):
        wish = {
            "goal": dice.choice(["balance", "balance", "pack", "price"]),
            "tags": dice.sample(["x", "y"], dice.randint(0, 1)),
        }
        if dice.random() < 0.2:
            wish["anti_affinity"] = ["tag:x"]
        elif dice.random() < 0.2 and number:
            wish["affinity"] = [f"m{dice.randrange(number)}"]
        if dice.random() < 0.3:
            begin = dice.randint(1, 5)
            wish["slot"] = Slot(
                f"m{number}", "alice", 1000, dice.randint(100, 1500), GIB, f"2027-0{begin}", f"2027-0{begin + 3}"
            )
        size = dice.choice([0.5, 1, 1.5, 3, 6])
        machines.append(
            demand(
                f"m{number}", size, dice.randint(1, 4), dice.randint(0, 4) * GIB, dice.choice([None, *LAYERS]), **wish
            )
        )
    return machines, providers


def check_valid(machines, providers, found):
    """Against a plain sum over what each provider got."""
    names = {machine.name: machine for machine in machines}
    for each in providers:
        got = [machine for machine, name in zip(machines, found) if name == each.name]
        assert sum(machine.use.memory for machine in got) <= each.memory - each.memory_allocated
        assert sum(machine.use.cpus for machine in got) <= each.cpus * 4
        layers = {machine.use.digest for machine in got} - each.digests - {None}
        assert sum(machine.use.disk for machine in got) + len(layers) * 2 * GIB <= each.disk
        for month in range(1, 10):
            now = [machine.slot for machine in got if machine.slot and machine.slot.at(f"2027-0{month}")]
            assert sum(slot.rate for slot in now) <= each.cpus * 0.9 + 1e-6
        for machine in got:
            others = [other for other in got if other is not machine]
            if machine.anti_affinity:
                assert not [other for other in others if "x" in other.tags]
    for machine, name in zip(machines, found):
        for friend in machine.affinity:
            assert found[machines.index(names[friend])] == name


@ENGINES
@pytest.mark.parametrize("seed", range(40))
def test_every_better_answer_is_valid_and_not_worse_and_the_same_again(seed, library):
    machines, providers = random_case(seed)
    greedy = where(machines, providers, within=None)
    answers, told = place(machines, providers, library=library, within=0.2, seed=seed)
    found = [answer.provider for answer in answers]
    check_valid(machines, providers, found)
    assert found.count(None) <= greedy.count(None) and told.cost <= told.greedy + 1e-6
    assert (found, told.cost) == (
        where(machines, providers, library=library, within=0.2, seed=seed),
        place(machines, providers, library=library, within=0.2, seed=seed)[1].cost,
    )
    for answer in answers:
        if answer.error is not None and answer.error.code == "no_provider":
            assert set(answer.reasons) == {each.name for each in providers}


@pytest.mark.parametrize("seed", range(10))
def test_the_states_cost_does_not_drift(seed):
    """What is kept up to date move by move is what it is reckoned from nothing."""
    machines, providers = random_case(seed)
    board = Board(machines, providers, Past(), RULES)
    problem = read(board, machines, bundles(machines, board, settle(machines, board)))
    state, dice = State(problem, [-1] * len(problem.items)), random.Random(seed)
    for dummy in range(300):
        number = dice.randrange(len(problem.items))
        if state.where[number] >= 0:
            state.take(number)
        target = dice.randrange(len(problem.rooms))
        if state.fits(number, target):
            rise = state.uneven(-1, target, state.net(number))
            state.put(number, target)
            assert state.uneven() == pytest.approx(rise, abs=1e-9)
    fresh = State(problem, state.where)
    assert state.cost == pytest.approx(fresh.cost, abs=1e-3) and state.free == fresh.free


def test_large_problems_are_solved_part_by_part(monkeypatch):
    monkeypatch.setattr(improvement, "_WHOLE", 0)
    dice = random.Random(3)
    machines = [demand(f"m{number}", dice.choice([0.5, 1, 2, 4]), dice.choice([1, 2, 4])) for number in range(60)]
    providers = [provider(f"p{number:02}") for number in range(20)]
    answers, told = place(machines, providers)
    check_valid(machines, providers, [answer.provider for answer in answers])
    assert told.engine == "cp-sat" and told.cost < told.greedy and told.gap is None
