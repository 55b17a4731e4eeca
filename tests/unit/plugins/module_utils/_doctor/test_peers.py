# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts connect to which."""

from __future__ import annotations

from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.decide.peers import Node, peers_of, roles_of

GROUPS = {"providers": ["p1", "p2"], "image_servers": ["store"], "homes": ["home1", "p2"]}
NODES = [
    Node(name, f"{name}.example", 2222 if name == "p2" else 22, roles_of(name, GROUPS))
    for name in ("p1", "p2", "store", "home1", "web1")
]


def ports(name):
    return {peer["name"]: peer["ports"] for peer in peers_of(name, NODES)}


def test_roles_follow_from_groups():
    assert roles_of("p2", GROUPS) == {"provider", "home"}
    assert roles_of("p1", GROUPS, "p1") == {"provider", "image_server"}
    assert roles_of("web1", GROUPS, "p1") == frozenset()


def test_providers_reach_each_other_on_all_ports_and_the_image_server_for_images():
    assert ports("p1") == {"p2": [2222, 10808, 10872, 49215], "store": [22, 10808, 10872], "home1": [22]}


def test_an_image_server_fetches_captured_images_and_no_more():
    assert ports("store")["p1"] == [22, 10808]


def test_homes_are_joined_by_ssh():
    assert ports("home1") == {"p1": [22], "p2": [2222], "store": [22]}


def test_what_is_no_host_of_the_grid_is_left_alone():
    assert ports("web1") == {}
    assert all("web1" not in ports(name) for name in ("p1", "p2", "store"))
