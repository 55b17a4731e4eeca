# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which provider for which machine: constraints and their reasons, goals, what stays, and that nothing is promised
twice."""

from __future__ import annotations

import dataclasses
import random

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.account import Account
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.greedy import solve
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import (
    Demand,
    Provider,
    Rules,
    Use,
    newest_machine_type,
)

GIB = 2**30
RULES = Rules(host_reserve=0, cpu_overcommit=4)
LAYER = "sha256:" + "a" * 64


def provider(name="p1", **fields):
    """4 CPUs, 16 GiB of memory, 100 GiB of disk, all free."""
    free = {
        "cpus": 4,
        "memory": 16 * GIB,
        "memory_free": 16 * GIB,
        "disk": 100 * GIB,
        "disk_free": 100 * GIB,
        "networks": frozenset({"virtuoso"}),
    }
    return Provider(**{"name": name, "site": f"site-{name}", **free, **fields})


def demand(name="web1", cpus=1, memory=GIB, disk=GIB, digest=None, layer_size=0, **fields):
    return Demand(
        **{
            "name": name,
            "key": name,
            "use": Use(cpus, memory, disk, digest, layer_size),
            "network": "virtuoso",
            **fields,
        }
    )


def where(demands, providers, held=None, stored=None, rules=RULES):
    return [answer.provider for answer in solve(demands, providers, held, stored, rules)]


def only(demands, providers, **options):
    answers = solve(demands, providers, rules=RULES, **options)
    assert len(answers) == 1
    return answers[0]


def test_it_goes_where_all_its_networks_are():
    there = provider("p2", networks=frozenset({"virtuoso", "lan"}))
    wanted = demand(extra_networks=frozenset({"lan"}))
    assert where([wanted], [provider("p1"), there]) == ["p2"]
    assert only([wanted], [provider("p1")]).reasons == {"p1": "has no active network lan (it has virtuoso)"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"reachable": False}, "is not reachable in this run"),
        ({"reachable": False, "trouble": "libvirt is down"}, "is not reachable in this run: libvirt is down"),
        ({"measured": False}, "did not report what it has"),
        ({"architecture": "aarch64"}, "is aarch64, the image is made for x86_64"),
        ({"networks": frozenset({"default"})}, "has no active network virtuoso (it has default)"),
        ({"networks": frozenset()}, "has no active network virtuoso (it has none)"),
        ({"memory_free": 3 * GIB}, "needs 8 GiB of memory, 3 GiB free"),
        ({"memory_allocated": 15 * GIB}, "needs 8 GiB of memory, 1 GiB free"),
        ({"memory_allocated": 20 * GIB}, "needs 8 GiB of memory, 0 B free"),
        ({"cpus_allocated": 14}, "needs 4 virtual CPUs, 2 free (4 CPUs carry 4 each)"),
        ({"disk_free": 10 * GIB}, "needs 21 GiB of disk, 10 GiB free"),
        ({"disk_allocated": 90 * GIB}, "needs 21 GiB of disk, 10 GiB free"),
    ],
)
def test_each_provider_that_can_not_hold_it_tells_one_reason(fields, reason):
    wanted = demand(cpus=4, memory=8 * GIB, disk=20 * GIB, digest=LAYER, layer_size=GIB)
    refused = only([wanted], [provider("p1", **fields)])
    assert refused.provider is None and refused.reasons == {"p1": reason}
    assert (
        refused.error.code == "no_provider"
        and refused.error.details["reasons"] == {"p1": reason}
        and reason in refused.error.msg
    )
    chosen = only([wanted], [provider("p1", **fields), provider("p2")])
    assert chosen.provider == "p2" and chosen.reasons == {"p1": reason}


def test_a_network_that_nobody_has_is_named_and_so_is_what_to_do():
    others = [provider(name, networks=frozenset({"default"})) for name in ("p1", "p2")]
    error = only([demand()], others).error
    assert "p1 has no active network virtuoso" in error.msg and "virtuoso_networks" in error.remedy
    # Where one lacks something else, the network is not all there is to it.
    assert "virtuoso_networks" not in only([demand()], [*others, provider("p3", measured=False)]).error.remedy


def test_without_providers_the_error_says_so():
    error = only([demand()], []).error
    assert error.code == "no_provider" and "there is no provider" in error.msg


def test_a_provider_that_lists_no_networks_is_not_judged_by_them():
    assert where([demand(network="other")], [provider(networks=None)]) == ["p1"]


def test_the_last_byte_can_be_used_and_no_more():
    exactly = provider(memory_free=GIB, cpus=1, cpus_allocated=3, disk_free=GIB)
    assert where([demand()], [exactly]) == ["p1"]
    assert where([demand(memory=GIB + 1)], [exactly]) == [None]
    assert where([demand(cpus=2)], [exactly]) == [None]
    assert where([demand(disk=GIB + 1)], [exactly]) == [None]
    assert where([demand()], [exactly], rules=Rules(host_reserve=1)) == [None]


def test_a_layer_is_counted_once_a_provider_and_not_where_it_lies():
    machines = [demand(f"web{number}", disk=GIB, digest=LAYER, layer_size=2 * GIB) for number in range(3)]
    assert where(machines, [provider(disk_free=4 * GIB)]) == ["p1", "p1", None]
    assert where(machines, [provider(disk_free=3 * GIB, digests=frozenset({LAYER}))]) == ["p1", "p1", "p1"]


def test_accounts_release_what_they_held():
    account = Account(provider(), RULES)
    free = (account.free().cpus, account.free().memory, account.free().disk)
    account.hold("a", Use(1, GIB, GIB, LAYER, GIB))
    account.hold("b", Use(2, GIB, GIB, LAYER, 7 * GIB))
    account.hold("b", Use(1, GIB, GIB, LAYER, 3 * GIB))
    assert (account.free().cpus, account.free().memory, account.free().disk) == (
        free[0] - 2,
        free[1] - 2 * GIB,
        free[2] - 3 * GIB,
    )
    account.release("a")
    account.release("b")
    account.release("b")
    assert (account.free().cpus, account.free().memory, account.free().disk) == free


def test_balance_spreads_equal_machines_over_equal_providers_wherever_the_image_lies():
    machines = [demand(f"web{number}", digest=LAYER, layer_size=GIB) for number in range(4)]
    assert where(machines, [provider("p1"), provider("p2", digests=frozenset({LAYER}))]) == ["p2", "p1", "p1", "p2"]


def test_balance_takes_what_is_least_allocated_after_placing():
    assert where([demand()], [provider("p1", memory_allocated=4 * GIB), provider("p2", memory_allocated=3 * GIB)]) == [
        "p2"
    ]
    assert where([demand()], [provider("p1", cpus_allocated=8), provider("p2", memory_allocated=4 * GIB)]) == ["p2"]
    assert where([demand()], [provider("p1", memory=8 * GIB, memory_free=8 * GIB), provider("p2")]) == ["p2"]


def test_pack_fills_the_fullest_that_can_hold_it():
    providers = [provider("p1"), provider("p2", memory_allocated=4 * GIB), provider("p3", memory_allocated=15 * GIB)]
    machines = [demand(f"web{number}", memory=4 * GIB, goal="pack") for number in range(5)]
    assert where(machines, providers) == ["p2", "p2", "p2", "p1", "p1"]


@pytest.mark.parametrize(("goal", "fact"), [("price", "price"), ("interactivity", "latency")])
def test_price_and_interactivity_take_the_least_and_balance_what_is_equal(goal, fact):
    machines = [demand(f"web{number}", goal=goal) for number in range(2)]
    told = [provider("p1"), provider("p2", **{fact: 2.0}), provider("p3", **{fact: 1.0}), provider("p4", **{fact: 1.0})]
    assert where(machines, told) == ["p3", "p4"]
    assert where(machines, [provider("p1"), provider("p2")]) == ["p1", "p2"]


def test_what_is_placed_stays_even_where_another_would_be_better():
    full = provider("p1", memory_allocated=10 * GIB)
    held = {"p1": {"web1": Use(1, GIB, GIB)}}
    assert where([demand(at="p1")], [full, provider("p2")], held) == ["p1"]


def test_what_exists_stays_even_where_nothing_is_free():
    full = provider("p1", memory_free=0, memory_allocated=16 * GIB, machines=frozenset({"web1"}))
    use = {"web1": Use(1, GIB, GIB)}
    assert where([demand(at="p1", exists=True)], [full, provider("p2")], {"p1": use}, use) == ["p1"]


def test_growth_of_what_exists_needs_room_and_never_moves_it():
    small, stored = {"web1": Use(1, GIB, GIB)}, {"web1": Use(1, GIB, GIB)}
    providers = [provider("p1", memory_free=2 * GIB, machines=frozenset({"web1"})), provider("p2")]
    assert where([demand(memory=3 * GIB, at="p1", exists=True)], providers, {"p1": small}, stored) == ["p1"]
    answer = only([demand(memory=4 * GIB, at="p1", exists=True)], providers, held={"p1": small}, stored=stored)
    assert answer.error.code == "no_provider" and answer.error.details["reasons"] == {
        "p1": "needs 3 GiB of memory, 2 GiB free"
    }


def test_a_future_that_outgrew_its_place_goes_elsewhere():
    held = {"p1": {"web1": Use(1, GIB, GIB)}}
    assert where([demand(memory=4 * GIB, at="p1")], [provider("p1", memory_free=2 * GIB), provider("p2")], held) == [
        "p2"
    ]


def test_what_is_held_by_others_is_not_free_until_it_is_defined():
    held = {"p1": {"other": Use(1, 10 * GIB, GIB)}}
    assert where([demand(memory=8 * GIB)], [provider("p1")], held) == [None]
    defined = provider("p1", memory_allocated=10 * GIB, machines=frozenset({"other"}))
    assert where([demand(memory=6 * GIB)], [defined], held) == ["p1"]


@pytest.mark.parametrize("providers", [[], [provider("p1", reachable=False)], [provider("p2")]])
@pytest.mark.parametrize("exists", [True, False])
def test_a_machine_on_an_unreachable_provider_is_not_moved(providers, exists):
    answer = only([demand(at="p1", exists=exists)], [*providers, provider("p3")])
    assert answer.provider is None and answer.error.code == "provider_unreachable"


def test_where_libvirt_has_the_machine_counts_more_than_the_store():
    there = provider("p2", machines=frozenset({"web1"}))
    assert where([demand()], [provider("p1"), there]) == ["p2"]
    assert where([demand(at="p1", exists=True)], [provider("p1"), there]) == ["p2"]


def test_several_copies():
    copies = [provider(name, machines=frozenset({"web1"})) for name in ("p1", "p2")]
    assert only([demand()], copies).error.code == "several_copies"
    assert where([demand(at="p2", exists=True)], copies) == ["p2"]
    assert where([demand()], [copies[0], dataclasses.replace(copies[1], running=frozenset({"web1"}))]) == ["p2"]


def test_the_order_of_providers_makes_no_difference():
    machines = [demand(f"web{number}", memory=(number % 5 + 1) * GIB) for number in range(12)]
    providers = [provider(f"p{number}", memory_allocated=number * GIB // 3) for number in range(4)]
    assert where(machines, providers) == where(machines, providers[::-1]) == where(machines, providers)


def random_case(seed):
    """Providers partly used, with holds and defined machines, and machines of all sizes and goals."""
    dice = random.Random(seed)
    providers = []
    for number in range(dice.randint(1, 6)):
        memory, disk, cpus = dice.randint(1, 32) * GIB, dice.randint(1, 60) * GIB, dice.randint(1, 8)
        providers.append(
            provider(
                f"p{number}",
                cpus=cpus,
                cpus_allocated=dice.randint(0, cpus * 2),
                memory=memory,
                memory_free=dice.randint(0, memory),
                memory_allocated=dice.randint(0, memory),
                disk=disk,
                disk_free=dice.randint(0, disk),
                disk_allocated=dice.randint(0, disk),
                digests=frozenset({LAYER} if dice.random() < 0.3 else ()),
                machines=frozenset(f"m{dice.randint(0, 60)}" for dummy in range(3)),
            )
        )
    demands, held, stored = [], {}, {}
    for number in range(dice.randint(1, 40)):
        use = Use(
            dice.randint(1, 4),
            dice.randint(1, 6 * 1024) * 2**20,
            dice.randint(0, 8 * GIB),
            LAYER if dice.random() < 0.5 else None,
            GIB,
        )
        at = dice.choice(providers).name if dice.random() < 0.3 else None
        if at:
            held.setdefault(at, {})[f"m{number}"] = use
            stored[f"m{number}"] = Use(1, GIB, GIB)
        if dice.random() < 0.8:
            demands.append(
                Demand(
                    f"m{number}",
                    f"m{number}",
                    use,
                    network="virtuoso",
                    goal=dice.choice(["balance", "pack", "price"]),
                    at=at,
                )
            )
    return demands, providers, held, stored


@pytest.mark.parametrize("seed", range(200))
def test_nothing_placed_exceeds_what_is_there(seed):
    demands, providers, held, stored = random_case(seed)
    rules = Rules(host_reserve=GIB // 4, cpu_overcommit=2)
    answers = solve(demands, providers, held, stored, rules)
    assert [(answer.provider, answer.reasons) for answer in answers] == [
        (answer.provider, answer.reasons) for answer in solve(demands, providers[::-1], held, stored, rules)
    ]
    for each in providers:
        placed = [asked for asked, answer in zip(demands, answers) if answer.provider == each.name]
        new = [asked for asked in placed if asked.at != each.name and asked.key not in each.machines]
        if not new:
            continue  # what was promised before may exceed what is measured now; nothing is added then
        others = [
            use
            for key, use in held.get(each.name, {}).items()
            if key not in each.machines and key not in {asked.key for asked in demands}
        ]
        uses = others + [asked.use for asked in placed if asked.key not in each.machines]
        layers = GIB if any(use.digest for use in uses) and LAYER not in each.digests else 0
        assert sum(use.cpus for use in uses) <= each.cpus * 2 - each.cpus_allocated
        assert (
            sum(use.memory for use in uses)
            <= min(each.memory_free, each.memory - each.memory_allocated) - rules.host_reserve
        )
        disk = sum(use.disk for use in uses)
        if any(asked.use.disk for asked in new):
            assert disk + layers <= min(each.disk_free, each.disk - each.disk_allocated)


@pytest.mark.parametrize(
    ("types", "newest"),
    [
        ([{"pc-q35-7.2", "pc-q35-10.0"}, {"pc-q35-7.2"}], "pc-q35-7.2"),
        ([{"pc-q35-7.2", "pc-q35-10.0"}, {"pc-q35-9.1", "pc-q35-10.0"}], "pc-q35-10.0"),
        ([{"pc-q35-7.2"}, {"pc-q35-8.0"}], None),
        ([{"pc-i440fx-7.2", "q35", "pc-q35-7.2; id"}], None),
        ([], None),
    ],
)
def test_the_machine_type_that_all_share(types, newest):
    providers = [provider(f"p{number}", machine_types=frozenset(names)) for number, names in enumerate(types)]
    assert newest_machine_type([*providers, provider("down", reachable=False)]) == newest
