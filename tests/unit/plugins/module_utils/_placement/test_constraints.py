# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a machine may be: site, features, with and apart from others; what an owner may have; ratios."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.board import Past, Quota
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.greedy import solve
from ansible_collections.virtuoso.grid.plugins.module_utils._placement.model import Demand, Provider, Rules, Use

GIB = 2**30


def provider(name, **fields):
    free = {"cpus": 4, "memory": 16 * GIB, "memory_free": 16 * GIB, "disk": 100 * GIB, "disk_free": 100 * GIB}
    return Provider(**{"name": name, "site": f"site-{name}", **free, **fields})


def demand(name, memory=GIB, **fields):
    lists = {field: frozenset(fields.pop(field, ())) for field in ("features", "tags", "affinity", "anti_affinity")}
    return Demand(**{"name": name, "key": f"key-{name}", "use": Use(1, memory, 0), "owner": "alice", **lists, **fields})


def answers(demands, providers=(provider("p1"), provider("p2"), provider("p3")), **past):
    return solve(demands, providers, rules=Rules(host_reserve=0), past=Past(**past))


def where(demands, *args, **past):
    return [answer.provider for answer in answers(demands, *args, **past)]


def codes(demands, *args, **past):
    return [answer.error and answer.error.code for answer in answers(demands, *args, **past)]


def placed(name, at, memory=GIB, **fields):
    """What the past has of a machine that is held on a provider."""
    other = demand(name, memory, at=at, **fields)
    return {"others": [other], "held": {at: {other.key: other.use}}}


def test_site_and_features():
    providers = [provider("p1"), provider("p2", features=frozenset({"kvm", "gpu"}))]
    assert where([demand("a", site="site-p2"), demand("b", features=["gpu"])], providers) == ["p2", "p2"]
    refused = answers([demand("a", site="site-p1", features=["gpu"])], providers)[0]
    assert refused.reasons == {"p1": "lacks the feature gpu", "p2": "is at site site-p2, not at site-p1"}


def test_machines_that_must_be_together_go_where_all_fit():
    pair = [demand("a", 6 * GIB, affinity=["b"]), demand("b", 12 * GIB)]
    big = [provider("p1"), provider("p2", memory=20 * GIB, memory_free=20 * GIB)]
    assert where(pair, big) == ["p2", "p2"] and where(pair[::-1], big) == ["p2", "p2"]
    alone = answers(pair)
    assert [answer.error.code for answer in alone] == ["no_provider", "no_provider"]
    assert alone[0].reasons["p1"] == "needs 12 GiB of memory, 10 GiB free (for b; a, b must be together)"


def test_a_chain_of_wishes_is_one_group():
    chain = [demand("a", affinity=["b"]), demand("b", affinity=["tag:db"]), demand("c", tags=["db"]), demand("d")]
    first, second, third, free = where(chain)
    assert first == second == third != free


def test_apart_by_name_and_by_tag():
    machines = [demand(f"web{number}", tags=["web"], anti_affinity=["tag:web"]) for number in range(4)]
    assert where(machines) == ["p1", "p2", "p3", None]
    refused = answers(machines)[3]
    assert refused.reasons["p1"] == "has web0, which it must be apart from"
    crowded = [provider("p1"), provider("p2", memory_allocated=8 * GIB)]
    assert where([demand("a"), demand("b", anti_affinity=["a"])], crowded) == ["p1", "p2"]


def test_placed_machines_bind_from_either_side():
    there = placed("db1", "p2", tags=["db"])
    assert where([demand("web1", affinity=["db1"])], **there) == ["p2"]
    assert where([demand("web1", affinity=["tag:db"])], **there) == ["p2"]
    assert where([demand("web1", anti_affinity=["db1"])], [provider("p2")], **there) == [None]
    shy = placed("db1", "p1", anti_affinity=["web1"])
    assert where([demand("web1")], **shy) == ["p2"]
    refused = answers([demand("web1", affinity=["db1"])], [provider("p1"), provider("p2", memory_free=0)], **there)[0]
    assert refused.reasons["p1"] == "is not p2, where the machines are that it must be with"


def test_another_owners_machines_bind_nobody():
    there = placed("db1", "p1", owner="bob", tags=["db"], anti_affinity=["web1"])
    assert where([demand("web1", 12 * GIB, anti_affinity=["tag:db", "db1"])], [provider("p1")], **there) == ["p1"]


@pytest.mark.parametrize(
    ("machines", "past", "expected"),
    [
        ([demand("a", affinity=["b"]), demand("b", anti_affinity=["a"])], {}, ["impossible_affinity"] * 2),
        ([demand("a", affinity=["nobody"])], {}, ["affinity_unknown"]),
        ([demand("a", affinity=["tag:nothing"])], {}, [None]),
        ([demand("a", anti_affinity=["nobody"])], {}, [None]),
    ],
)
def test_impossible_wishes_fail_alone(machines, past, expected):
    assert codes([*machines, demand("other")], **past) == [*expected, None]


def test_with_machines_on_two_providers_is_impossible():
    one, other = placed("db1", "p1", tags=["db"]), placed("db2", "p2", tags=["db"])
    past = {"others": one["others"] + other["others"], "held": {**one["held"], **other["held"]}}
    refused = answers([demand("web1", affinity=["tag:db"]), demand("free")], **past)
    assert refused[0].error.code == "impossible_affinity" and "db1 is on p1 and db2 is on p2" in refused[0].error.msg
    assert refused[1].provider == "p3"


def test_errors_of_a_group_are_told_of_each_machine():
    refused = answers([demand("a", affinity=["b"]), demand("b", anti_affinity=["a"])])
    assert refused[0].error is not refused[1].error


@pytest.mark.parametrize(
    ("quota", "text"),
    [
        (Quota(machines=2), "alice may have 2 (machines), has 2 and would get 1 more"),
        (Quota(memory=3 * GIB - 1), "alice may have 3 GiB (memory), has 2 GiB and would get 1 GiB more"),
        (Quota(vcpus=2), "alice may have 2 (vcpus), has 2 and would get 1 more"),
        (Quota(memory=0), "alice may have 0 B (memory), has 1 GiB and would get 1 GiB more"),
    ],
)
def test_a_quota_counts_what_is_placed_and_what_is_being_placed(quota, text):
    machines = [demand("a"), demand("b"), demand("free", owner="bob")]
    refused = answers(machines, quotas={"alice": quota}, **placed("db1", "p1"))
    last = [answer for answer in refused[:2] if answer.error][-1].error
    assert last.code == "quota_exceeded" and last.msg == text and refused[2].provider is not None
    allowed = quota.machines or quota.vcpus or (1 if quota.memory == 0 else 2)
    assert sum(answer.provider is not None for answer in refused[:2]) == allowed - 1


def test_a_quota_for_all_counts_each_owner_alone_and_yields_to_his_own():
    machines = [demand(f"{owner}{number}", owner=owner) for owner in ("alice", "bob") for number in range(2)]
    assert codes(machines, quotas={"*": Quota(machines=1)}) == [None, "quota_exceeded"] * 2
    assert codes(machines, quotas={"*": Quota(machines=1), "bob": Quota()}) == [None, "quota_exceeded", None, None]


def test_what_is_placed_stays_when_its_quota_shrinks_and_may_not_grow():
    there = placed("a", "p1")
    there["others"] = []
    assert where([demand("a", at="p1")], quotas={"alice": Quota(machines=0, memory=0)}, **there) == ["p1"]
    assert codes([demand("a", 2 * GIB, at="p1")], quotas={"alice": Quota(memory=GIB)}, **there) == ["quota_exceeded"]
    # and what it has is still held
    held = [demand("a", 2 * GIB, at="p1"), demand("b", 16 * GIB, owner="bob")]
    assert where(held, [provider("p1")], quotas={"alice": Quota(memory=GIB)}, **there) == [None, None]


def test_a_group_counts_as_one_against_the_quota():
    group = [demand("a", affinity=["b"]), demand("b")]
    assert codes(group, quotas={"alice": Quota(machines=1)}) == ["quota_exceeded", "quota_exceeded"]
    assert codes(group, quotas={"alice": Quota(machines=2)}) == [None, None]


def test_overcommit_ratios():
    machines = [demand(f"m{number}", 6 * GIB) for number in range(6)]
    for ratio, number in ((1.0, 2), (1.5, 4), (0.5, 1)):
        rules = Rules(host_reserve=0, memory_overcommit=ratio)
        got = [answer.provider for answer in solve(machines, [provider("p1")], rules=rules)]
        assert got.count("p1") == number
    disks = [Demand(f"m{number}", f"m{number}", Use(1, 1, 60 * GIB)) for number in range(4)]
    for ratio, number in ((1.0, 1), (2.0, 3)):
        rules = Rules(host_reserve=0, disk_overcommit=ratio)
        assert [answer.provider for answer in solve(disks, [provider("p1")], rules=rules)].count("p1") == number


def test_latency_is_the_one_to_the_owners_home():
    providers = [
        provider("p1", latency={"home1": 5.0, "home2": 50.0}),
        provider("p2", latency={"home1": 40.0, "home2": 4.0}),
    ]
    machines = [demand("a", goal="interactivity", home="home1"), demand("b", goal="interactivity", home="home2")]
    assert where(machines, providers) == ["p1", "p2"]
