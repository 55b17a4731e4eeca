# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From networks, hosts and probes to each host's part."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._ethernet import mac_prefix
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan import model, topology, transport
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.guests import follow
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.phases import overlay_plan, with_keys

NAMES = ("home1", "p1", "p2")
HOSTS = {
    name: {"address": f"192.0.2.{place}", "port": 22, "site": f"site-{name}"} for place, name in enumerate(NAMES, 1)
}
LAN = {"name": "lan", "home": "home1"}
NO_WIREGUARD = {"vxlan": None, "wireguard": "the kernel has none"}


def path(udp=True, ssh=True, rtt=0.02, mtu=1500):
    return {
        "udp_in": udp,
        "udp_out": udp,
        "ssh": ssh,
        "ssh_trouble": None if ssh else "timed out",
        "rtt": rtt,
        "path_mtu": mtu if udp else None,
    }


def probes(kernel=None, **changed):
    """What was found between all; changed are paths by ``one_other``."""
    return {
        one: {
            "kernel": kernel or NO_WIREGUARD,
            "paths": {other: changed.get(f"{one}_{other}") or path() for other in NAMES if other != one},
        }
        for one in NAMES
    }


def behind_walls():
    """As the lab's WAN: home1 hears nothing unasked, p2 has no UDP."""
    no = path(udp=False)
    closed = path(udp=False, ssh=False)
    half = {**path(), "udp_in": True, "udp_out": False}
    return probes(
        p1_home1={**closed, "udp_out": False},
        p2_home1=closed,
        home1_p2=no,
        p1_p2=no,
        p2_p1=no,
        home1_p1={**half, "udp_in": False},
    )


def edges(plan):
    return {tuple(link["between"]): (link["transport"], link["kind"]) for link in plan["links"]}


def test_a_star_over_open_paths_is_plain_vxlan():
    plan = overlay_plan([LAN], HOSTS, probes())
    assert edges(plan) == {("home1", "p1"): ("vxlan", "tree"), ("home1", "p2"): ("vxlan", "tree")}
    assert plan["networks"][0]["mtu"] == 1450 and len(plan["phases"]) == 1
    ends = [link for part in plan["phases"][0].values() for link in part["links"]]
    assert len({link["vni"] for link in ends}) == 2 and len(ends) == 4
    assert plan["phases"][0]["p1"]["peers"] == ["192.0.2.1"]


def test_firewalls_leave_ssh_from_whoever_may_begin():
    plan = overlay_plan([LAN], HOSTS, behind_walls())
    assert set(edges(plan).values()) == {("ssh", "tree")}
    assert [link["end"] for link in plan["phases"][0]["home1"]["links"]] == ["client", "client"]
    reason = next(link["reason"] for link in plan["links"] if link["between"] == ["home1", "p2"])
    assert "no UDP from home1 to p2" in reason and "wireguard" in reason


@pytest.mark.parametrize(
    "kernel, transport_name", [(NO_WIREGUARD, "ssh"), ({"vxlan": None, "wireguard": None}, "wireguard")]
)
def test_where_encryption_is_required_plain_vxlan_is_never_chosen(kernel, transport_name):
    plan = overlay_plan([{**LAN, "encrypted": True}], HOSTS, probes(kernel))
    assert {link["transport"] for link in plan["links"]} == {transport_name}
    with pytest.raises(GridError) as caught:
        overlay_plan(
            [{**LAN, "encrypted": True, "transports": [{"between": ["home1", "p1"], "transport": "vxlan"}]}],
            HOSTS,
            probes(kernel),
        )
    assert caught.value.code == "transport_unusable"


def test_wireguard_has_its_peers_keys_and_room_for_vxlan_inside():
    plan = overlay_plan([{**LAN, "encrypted": True}], HOSTS, probes({"vxlan": None, "wireguard": None}))
    phases = with_keys(plan["phases"], {name: {"wireguard": f"key-{name}"} for name in NAMES}, {})
    home = phases[-1]["home1"]
    assert [(peer["name"], peer["key"]) for peer in home["wireguard"]["peers"]] == [("p1", "key-p1"), ("p2", "key-p2")]
    assert plan["networks"][0]["mtu"] == 1370 and home["wireguard"]["mtu"] == 1440
    assert all(link["inner"].startswith("fd76:") and link["device"].startswith("vw") for link in home["links"])
    # Plain VXLAN is admitted from nobody.
    assert home["peers"] == []


def test_a_kernel_without_vxlan_takes_the_next_and_says_so():
    plan = overlay_plan([LAN], HOSTS, probes({"vxlan": "the kernel has none", "wireguard": "the kernel has none"}))
    assert {link["transport"] for link in plan["links"]} == {"ssh"} and all(
        "the kernel has none" in link["reason"] for link in plan["links"]
    )


def test_a_site_without_any_path_is_told_with_every_probe_that_failed():
    closed = path(udp=False, ssh=False)
    with pytest.raises(GridError) as caught:
        overlay_plan([LAN], HOSTS, probes(p2_home1=closed, home1_p2=closed, p1_p2=closed, p2_p1=closed))
    assert caught.value.code == "no_path" and caught.value.details["hosts"] == ["p2"]
    assert all(word in caught.value.msg for word in ("vxlan: no UDP", "wireguard: ", "ssh: no SSH", "timed out"))


@pytest.mark.parametrize(
    ("networks", "code"),
    [
        ([LAN, {**LAN, "name": "other", "vni": model.network_vni("lan")}], "vni_overlap"),
        ([LAN, LAN], "duplicate_network"),
        ([{**LAN, "mtu": 100}], "invalid_mtu"),
        ([{**LAN, "mtu": 1500}], "mtu_too_large"),
        ([{**LAN, "vni": 2**24}], "invalid_vni"),
        ([{**LAN, "home": "nobody"}], "unknown_host"),
        ([{"name": "Bad Name", "home": "home1"}], "invalid_network"),
        ([{**LAN, "colour": "red"}], "invalid_network"),
        ([{**LAN, "topology": "ring"}], "invalid_network"),
    ],
)
def test_bad_networks_are_refused(networks, code):
    with pytest.raises(GridError) as caught:
        overlay_plan(networks, HOSTS, probes())
    assert caught.value.code == code


def test_overlapping_mac_prefixes_are_refused():
    names = {}
    for number in range(200000):
        name = f"net{number}"
        other = names.setdefault(mac_prefix(name, "")[:5], name)
        if other != name:
            break
    with pytest.raises(GridError) as caught:
        overlay_plan([{**LAN, "name": name}, {**LAN, "name": other}], HOSTS, probes())
    assert caught.value.code == "mac_overlap"


def test_a_shortcut_stands_beside_the_tree_with_an_entry_for_each_machine_behind_it():
    network = {**LAN, "shortcuts": [["p2", "p1"]]}
    machines = [
        {"provider": "p2", "network": "lan", "mac": "02:00:00:00:00:01"},
        {"provider": "p1", "network": "lan", "mac": "02:00:00:00:00:02"},
    ]
    plan = overlay_plan([network], HOSTS, probes(), {}, machines)
    assert edges(plan)["p1", "p2"] == ("vxlan", "shortcut")
    device = model.link_device("vxlan", "lan", "p1", "p2")
    resting, parts = plan["phases"]
    assert [link["role"] for link in resting["p1"]["links"] if link["peer"] == "p2"] == ["standby"], (
        "nothing is sent over it before both ends are up"
    )
    assert resting["p1"]["forwarding"] == resting["p2"]["forwarding"] == []
    assert (
        parts["p1"]["forwarding"] == [{"device": device, "mac": "02:00:00:00:00:01"}]
        and parts["home1"]["forwarding"] == []
    )
    # A machine that moves takes its entries along, and is a guest where it is now and nowhere else.
    moved = {host: follow(part, host, [{**machines[0], "provider": "p1"}]) for host, part in parts.items()}
    assert moved["p1"]["forwarding"] == [] and len(moved["p1"]["guests"]) == 2 and moved["p2"]["guests"] == []
    assert {entry["mac"] for entry in moved["p2"]["forwarding"]} == {"02:00:00:00:00:01", "02:00:00:00:00:02"}
    assert (
        moved
        == overlay_plan([network], HOSTS, probes(), {}, [{**machines[0], "provider": "p1"}, machines[1]])["phases"][-1]
    )
    gone = {host: follow(part, host, [], ["02:00:00:00:00:01"]) for host, part in parts.items()}
    assert gone["p1"]["forwarding"] == [] and gone["p2"]["guests"] == []


def test_a_shortcut_that_goes_is_not_sent_over_any_more_before_it_is_taken_away():
    machines = [
        {"provider": host, "network": "lan", "mac": f"02:00:00:00:00:0{number}"}
        for number, host in enumerate(("p1", "p2"))
    ]
    there = overlay_plan([{**LAN, "shortcuts": [["p2", "p1"]]}], HOSTS, probes(), {}, machines)["phases"][-1]
    assert overlay_plan([{**LAN, "shortcuts": [["p2", "p1"]]}], HOSTS, probes(), there, machines)["phases"] == [there]
    resting, final = overlay_plan([LAN], HOSTS, probes(), there, machines)["phases"]
    assert [link["role"] for link in resting["p1"]["links"] if link["peer"] == "p2"] == ["standby"]
    assert resting["p1"]["forwarding"] == final["p1"]["forwarding"] == []
    assert [link["peer"] for link in final["p1"]["links"]] == ["home1"]


def test_what_is_as_planned_stays_so():
    first = overlay_plan([LAN], HOSTS, probes())["phases"][-1]
    assert overlay_plan([LAN], HOSTS, probes(), first)["phases"] == [first]


def test_another_transport_comes_before_the_old_one_goes():
    before = overlay_plan([LAN], HOSTS, probes())["phases"][-1]
    plan = overlay_plan([LAN], HOSTS, behind_walls(), before)
    kinds = [sorted((link["transport"], link["role"]) for link in phase["p1"]["links"]) for phase in plan["phases"]]
    assert kinds == [
        [("ssh", "standby"), ("vxlan", "tree")],
        [("ssh", "standby"), ("vxlan", "standby")],
        [("ssh", "tree")],
    ]


def test_a_host_that_does_not_answer_keeps_its_links():
    before = overlay_plan([LAN], HOSTS, probes())["phases"][-1]
    hosts = {**HOSTS, "p2": {**HOSTS["p2"], "reached": False}}
    known = {name: part for name, part in before.items() if name != "p2"}
    plan = overlay_plan([LAN], hosts, probes(), known)
    assert set(plan["phases"][-1]) == {"home1", "p1"} and plan["phases"][-1]["home1"] == before["home1"]
    # One that was never there is left out.
    assert edges(overlay_plan([LAN], hosts, probes())) == {("home1", "p1"): ("vxlan", "tree")}


def test_a_kept_link_is_part_of_the_tree_so_that_no_loop_is_there_when_its_host_comes_back():
    probe = probes(
        home1_p1=path(rtt=0.1),
        p1_home1=path(rtt=0.1),
        home1_p2=path(rtt=0.01),
        p2_home1=path(rtt=0.01),
        p1_p2=path(rtt=0.01),
        p2_p1=path(rtt=0.01),
    )
    tree = {**LAN, "topology": "tree"}
    before = overlay_plan([tree], HOSTS, probe)
    assert set(edges(before)) == {("home1", "p2"), ("p1", "p2")}
    hosts = {**HOSTS, "p2": {**HOSTS["p2"], "reached": False}}
    known = {name: part for name, part in before["phases"][-1].items() if name != "p2"}
    assert not topology.has_loop(set(edges(overlay_plan([tree], hosts, probe, known))))


def test_an_empty_list_leaves_nothing():
    before = overlay_plan([LAN], HOSTS, probes())["phases"][-1]
    phases = overlay_plan([], HOSTS, probes(), before)["phases"]
    assert [set(map(len, part.values())) for part in phases[-1].values()] == [{0}] * 3


def test_the_transport_that_is_named_is_taken_or_refused():
    named = model.parse_network({**LAN, "transports": [{"between": ["p1", "home1"], "transport": "ssh"}]}, NAMES)
    assert transport.choose(named, "home1", "p1", probes())["transport"] == "ssh"
    with pytest.raises(GridError) as caught:
        transport.choose(named, "home1", "p1", probes(home1_p1=path(ssh=False), p1_home1=path(ssh=False)))
    assert caught.value.code == "transport_unusable"


def test_a_changed_host_key_is_an_error_unless_it_is_said_to_be_new():
    seen = {name: {**found, "host_key": f"key-{name}"} for name, found in behind_walls().items()}
    first = with_keys(overlay_plan([LAN], HOSTS, seen)["phases"], {}, {name: f"key-{name}" for name in NAMES})[-1]
    assert overlay_plan([LAN], HOSTS, seen, first, (), {"p1": "key-p1"})["phases"]
    changed = {**seen, "p1": {**seen["p1"], "host_key": "other"}}
    for parts, known in (({}, {"p1": "key-p1"}), (first, {})):
        with pytest.raises(GridError) as caught:
            overlay_plan([LAN], HOSTS, changed, parts, (), known)
        assert caught.value.code == "host_key_changed" and "p1" in str(caught.value)
    assert overlay_plan([LAN], HOSTS, changed, first, (), {"p1": ""})["phases"]


def test_a_network_with_machines_on_it_does_not_go():
    before = overlay_plan([LAN], HOSTS, probes())["phases"][-1]
    with pytest.raises(GridError) as caught:
        overlay_plan(
            [],
            HOSTS,
            probes(),
            before,
            [{"provider": "p1", "network": "lan", "mac": "02:00:00:00:00:01", "name": "web1"}],
        )
    assert caught.value.code == "network_in_use" and "web1" in str(caught.value)
