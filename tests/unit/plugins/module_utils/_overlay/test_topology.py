# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From any tree to any other: no loop, and never a path lost that was there, however the hosts' steps fall together."""

from __future__ import annotations

import itertools
import random

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan import topology

HOSTS = ["a", "b", "c", "d", "e"]


def random_tree(source):
    """Any tree over the hosts, each edge by any transport."""
    order = source.sample(HOSTS, len(HOSTS))
    return {
        (*topology.edge(host, source.choice(order[:place])), source.choice(("vxlan", "ssh")))
        for place, host in enumerate(order)
        if place
    }


def flooded(roles):
    """Directed links over which each host floods: an end floods only if its own role says so and the other end is
    there."""
    found = []
    for (host, key), role in roles.items():
        peer = key[0] if key[1] == host else key[1]
        if role == "tree" and (peer, key) in roles:
            found.append((host, peer, key))
    return found


def goes_round(links):
    """Whether a frame could pass the same directed link twice: bridges send it to every port but the one it came by."""
    after = {link: [other for other in links if other[0] == link[1] and other[2] != link[2]] for link in links}
    state = {}

    def visit(link):
        state[link] = "open"
        for other in after[link]:
            if state.get(other) == "open" or (other not in state and visit(other)):
                return True
        state[link] = "done"
        return False

    return any(link not in state and visit(link) for link in links)


def joined(roles):
    """Pairs of hosts with a way between them for what is known by address."""
    pairs = [key for (host, key) in roles if host == key[0] and (key[1], key) in roles]
    return {
        frozenset(pair)
        for pair in itertools.combinations(HOSTS, 2)
        if pair[1] in topology.reachable(pair[0], [key[:2] for key in pairs])
    }


def states(phases, before):
    """Every mixture of two phases that follow each other, host by host."""
    for old, new in zip([dict.fromkeys(before, "tree"), *phases], phases):
        for number in range(len(HOSTS) + 1):
            for ahead in itertools.combinations(HOSTS, number):
                yield {
                    (host, key): role
                    for host in HOSTS
                    for key, role in (new if host in ahead else old).items()
                    if host in key[:2]
                }


@pytest.mark.parametrize("seed", range(40))
def test_no_step_makes_a_loop_or_loses_a_path(seed):
    source = random.Random(seed)
    before, after = random_tree(source), random_tree(source)
    everybody = {frozenset(pair) for pair in itertools.combinations(HOSTS, 2)}
    phases = topology.phases(before, after)
    for roles in states(phases, before):
        assert not goes_round(flooded(roles)), roles
        assert joined(roles) == everybody
    assert phases[-1] == dict.fromkeys(after, "tree")


def test_the_simulation_sees_a_loop_and_a_lost_path():
    ring = dict.fromkeys([("a", "b", "x"), ("b", "c", "x"), ("a", "c", "x")], "tree")
    everywhere = {(host, key): "tree" for key in ring for host in key[:2]}
    assert goes_round(flooded(everywhere)) and topology.has_loop(ring)
    assert frozenset("ad") not in joined(everywhere)
    # Two transports between the same two are a loop as well.
    assert topology.has_loop([("a", "b", "vxlan"), ("a", "b", "ssh")])


def test_links_are_added_or_removed_in_one_step_and_nothing_changes_where_nothing_does():
    tree = {("a", "b", "vxlan")}
    assert topology.phases([], tree) == topology.phases(tree, tree) == [{("a", "b", "vxlan"): "tree"}]
    assert topology.phases(tree, []) == [{}]


SITE = {"home": "h", "p1": "x", "p2": "x", "q1": "y"}
MS = {("home", "p1"): 10, ("home", "p2"): 11, ("home", "q1"): 40, ("p1", "p2"): 1, ("p1", "q1"): 5, ("p2", "q1"): 6}


def latency(one, other):
    return MS[topology.edge(one, other)]


def test_a_star_links_each_site_with_the_home_and_its_others_with_its_first():
    tree = topology.tree_of("star", "home", list(SITE), SITE, latency, lambda one, other: True)
    assert tree == {("home", "p1"), ("home", "q1"), ("p1", "p2")}


def test_a_star_goes_through_another_where_the_home_can_not_be_reached():
    tree = topology.tree_of(
        "star", "home", list(SITE), SITE, latency, lambda one, other: {one, other} != {"home", "q1"}
    )
    assert tree == {("home", "p1"), ("p1", "p2"), ("p1", "q1")}


def test_the_tree_is_the_one_of_least_latency():
    assert topology.tree_of("tree", "home", list(SITE), SITE, latency, lambda one, other: True) == {
        ("home", "p1"),
        ("p1", "p2"),
        ("p1", "q1"),
    }


@pytest.mark.parametrize("seed", range(10))
def test_no_other_tree_is_lighter(seed):
    source = random.Random(seed)
    weight = {topology.edge(*pair): source.randint(1, 20) for pair in itertools.combinations(HOSTS, 2)}
    found = topology.spanning_tree("a", HOSTS, lambda one, other: weight[topology.edge(one, other)])
    trees = (edges for edges in itertools.combinations(weight, len(HOSTS) - 1) if not topology.has_loop(edges))
    assert sum(weight[pair] for pair in found) == min(sum(weight[pair] for pair in edges) for edges in trees)
