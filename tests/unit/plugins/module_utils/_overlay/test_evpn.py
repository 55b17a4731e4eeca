# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""EVPN: who is on the mesh, in which steps it comes and goes, and what FRR and the kernel are told."""

from __future__ import annotations

import json
import re

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host import apply, evpn, interfaces, speaker
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.rules import rules
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan import model, topology
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.guests import follow
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.phases import overlay_plan
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.site import traffic

NAMES = ("home1", "p1", "p2", "p3")
HOSTS = {
    name: {"address": f"192.0.2.{place}", "port": 22, "site": f"site-{name}"} for place, name in enumerate(NAMES, 1)
}
STAR = {"name": "lan", "home": "home1"}
LAN = {**STAR, "topology": "evpn"}
DEVICE = model.mesh_device("lan")


def path(udp=True, ssh=True, mtu=1500):
    return {
        "udp_in": udp,
        "udp_out": udp,
        "ssh": ssh,
        "ssh_trouble": None if ssh else "timed out",
        "rtt": 0.01,
        "path_mtu": mtu if udp else None,
    }


def probes(*, no_udp=(), no_ssh=(), **facts):
    """What was found between all. :param no_udp: pairs of hosts. :param facts: others of a host."""
    found = {}
    for one in NAMES:
        paths = {
            other: path(
                udp={one, other} not in [set(pair) for pair in no_udp],
                ssh={one, other} not in [set(pair) for pair in no_ssh],
            )
            for other in NAMES
            if other != one
        }
        kernel = {"vxlan": None, "wireguard": "none", "evpn": None}
        found[one] = {
            "kernel": kernel,
            "addresses": ["127.0.0.1", HOSTS[one]["address"]],
            "paths": paths,
            **facts.get(one, {}),
        }
    return found


def rows(plan):
    return {tuple(row["between"]): row["transport"] for row in plan["links"]}


def roles(phase):
    """Roles by host and the kind of the link's other end."""
    return {
        host: {(link["peer"], link["transport"]): link["role"] for link in part["links"]}
        for host, part in phase.items()
    }


def final(networks=(LAN,), facts=None, parts=None, hosts=HOSTS):
    return overlay_plan(list(networks), hosts, facts or probes(), parts or {})["phases"][-1]


def test_every_host_is_on_the_mesh_and_has_a_session_with_the_home_alone():
    plan = overlay_plan([LAN], HOSTS, probes())
    assert (
        rows(plan) == {("home1", name): "evpn" for name in NAMES[1:]}
        and plan["networks"][0]["mtu"] == 1450
        and len(plan["phases"]) == 1
    )
    assert all(row["vni"] is None for row in plan["links"]), "they are the network's, which is no link's of its own"
    (home,), (leaf,) = (plan["phases"][0][name]["links"] for name in ("home1", "p1"))
    assert home["vni"] == leaf["vni"] == model.network_vni("lan")
    assert [peer["name"] for peer in home["peers"] if peer["speaks"]] == list(NAMES[1:])
    assert [peer["name"] for peer in leaf["peers"] if peer["speaks"]] == ["home1"] and len(leaf["peers"]) == 3
    assert plan["phases"][0]["p1"]["peers"] == ["192.0.2.1", "192.0.2.3", "192.0.2.4"], "frames come from all of them"


def test_what_is_as_planned_stays_so_and_machines_change_nothing_but_guests():
    first = final()
    assert overlay_plan([LAN], HOSTS, probes(), first)["phases"] == [first]
    moved = follow(first["p1"], "p1", [{"provider": "p2", "network": "lan", "mac": "02:00:00:00:00:01"}])
    assert moved["forwarding"] == [] and moved["links"] == first["p1"]["links"], (
        "BGP tells where it is, not entries of ours"
    )


def test_a_host_that_udp_does_not_reach_hangs_off_the_home_by_a_tap():
    plan = overlay_plan([LAN], HOSTS, probes(no_udp=[("home1", "p2"), ("p1", "p2"), ("p3", "p2")]))
    assert rows(plan) == {("home1", "p1"): "evpn", ("home1", "p3"): "evpn", ("home1", "p2"): "ssh"}
    (row,) = [row for row in plan["links"] if row["transport"] == "ssh"]
    assert row["reason"].startswith("not by EVPN: ") and "no UDP from home1 to p2" in row["reason"]
    assert roles(plan["phases"][0])["home1"] == {("*", "evpn"): "evpn", ("p2", "ssh"): "tree"}
    assert {peer["name"] for peer in plan["phases"][0]["p1"]["links"][0]["peers"]} == {"home1", "p3"}


def test_of_two_that_do_not_reach_each_other_one_is_on_the_mesh_and_the_other_has_no_vxlan():
    plan = overlay_plan([LAN], HOSTS, probes(no_udp=[("p1", "p2")]))
    assert rows(plan) == {("home1", "p1"): "evpn", ("home1", "p3"): "evpn", ("home1", "p2"): "ssh"}, (
        "FRR takes any VXLAN device of a bridge for the mesh"
    )
    # Where the tap can't begin with the home it begins with another one of the mesh.
    plan = overlay_plan([LAN], HOSTS, probes(no_udp=[("p1", "p2")], no_ssh=[("home1", "p2")]))
    assert rows(plan)["p1", "p2"] == "ssh"


def test_a_host_without_any_way_is_told_with_every_probe_that_failed():
    alone = [(name, "p2") for name in ("home1", "p1", "p3")]
    with pytest.raises(GridError) as caught:
        overlay_plan([LAN], HOSTS, probes(no_udp=alone, no_ssh=alone))
    assert caught.value.code == "no_path" and caught.value.details["hosts"] == ["p2"] and "no SSH" in caught.value.msg


def test_without_two_hosts_that_reach_each_other_it_is_refused():
    with pytest.raises(GridError) as caught:
        overlay_plan([LAN], HOSTS, probes(no_udp=[("home1", name) for name in NAMES[1:]]))
    assert caught.value.code == "evpn_unusable" and "no UDP from home1 to p1" in caught.value.msg
    with pytest.raises(GridError) as caught:
        overlay_plan([LAN], HOSTS, probes(home1={"addresses": ["10.0.0.1"]}))
    assert caught.value.code == "evpn_unusable" and "is not an address of its own" in caught.value.msg


def test_a_host_behind_address_translation_or_known_by_a_name_only_is_not_on_the_mesh():
    assert rows(overlay_plan([LAN], HOSTS, probes(p2={"addresses": ["10.0.0.1"]})))["home1", "p2"] == "ssh"
    named = {**HOSTS, "p2": {**HOSTS["p2"], "address": "p2.example.org"}}
    assert rows(overlay_plan([LAN], named, probes()))["home1", "p2"] == "ssh"


def test_somebody_elses_frr_is_refused():
    kernel = {"vxlan": None, "wireguard": "none", "evpn": "an FRR of somebody else's runs here (frr.service)"}
    with pytest.raises(GridError) as caught:
        overlay_plan([LAN], HOSTS, probes(p1={"kernel": kernel}))
    assert (
        caught.value.code == "foreign_frr"
        and caught.value.details.get("host", "p1") == "p1"
        and "runs here" in caught.value.msg
    )
    assert overlay_plan([STAR], HOSTS, probes(p1={"kernel": kernel}))["phases"], "it is of no matter elsewhere"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"encrypted": True}, "evpn_not_encrypted"),
        ({"shortcuts": [["p1", "p2"]]}, "invalid_network"),
        ({"asn": 65535}, "invalid_asn"),
        ({"asn": 3320}, "invalid_asn"),
        ({"transports": [{"between": ["p1", "p2"], "transport": "wireguard"}]}, "invalid_network"),
    ],
)
def test_what_evpn_can_not_do_is_refused(fields, code):
    with pytest.raises(GridError) as caught:
        overlay_plan([{**LAN, **fields}], HOSTS, probes())
    assert caught.value.code == code


def test_networks_on_one_host_have_one_autonomous_system():
    with pytest.raises(GridError) as caught:
        overlay_plan([LAN, {**LAN, "name": "san", "asn": 64513}], HOSTS, probes())
    assert caught.value.code == "asn_differs"
    apart = [
        {**LAN, "hosts": ["home1", "p1"]},
        {**LAN, "name": "san", "home": "p2", "hosts": ["p2", "p3"], "asn": 64513},
    ]
    assert len(overlay_plan(apart, HOSTS, probes())["links"]) == 2


def _walk(before, networks, facts=None):
    plan = overlay_plan(networks, HOSTS, facts or probes(), before)
    return [roles(phase) for phase in plan["phases"]], plan["phases"]


def test_from_star_to_evpn_bgp_begins_when_no_link_beside_the_mesh_is_left():
    star = final([STAR])
    seen, phases = _walk(star, [LAN])
    steps = [(phase["p1"].get(("home1", "vxlan")), phase["p1"].get(("*", "evpn"))) for phase in seen]
    assert steps == [
        ("tree", "standby"),
        ("standby", "standby"),
        ("resting", "flooding"),
        ("resting", "tree"),
        (None, "tree"),
        (None, "evpn"),
    ]
    assert [evpn.wanted(phase["p1"]) for phase in phases] == ["none"] * 5 + ["runs"]


def test_no_host_learns_by_the_mesh_what_came_from_itself():
    """Where one is a phase ahead, it floods to the mesh what still comes to it by a link that goes; the mesh brings
    that to its sender as well."""
    star = final([STAR])
    phases = [star, *overlay_plan([LAN], HOSTS, probes(), star)["phases"]]
    for old, new in zip(phases, phases[1:]):
        for ahead, behind in ((new, old), (old, new)):
            floods = [
                link
                for link in ahead["home1"]["links"]
                if link["peer"] == "*" and interfaces.ROLES[link["role"]][0] == "on"
            ]
            # Whether p1 still sends to home by the link between them.
            sends = any(
                link["peer"] == "home1" and link["role"] in ("tree", "standby") for link in behind["p1"]["links"]
            )
            learns = [
                link
                for link in (*old["p1"]["links"], *new["p1"]["links"])
                if link["peer"] == "*" and interfaces.ROLES[link["role"]][1] == "on"
            ]
            assert not (floods and sends and learns), (roles(old), roles(new))


def test_from_evpn_to_star_bgp_is_silent_everywhere_before_it_ends():
    seen, phases = _walk(final(), [STAR])
    steps = [(phase["p1"].get(("*", "evpn")), phase["p1"].get(("home1", "vxlan"))) for phase in seen]
    assert steps == [("frozen", None), ("tree", "standby"), ("standby", "standby"), ("resting", "tree"), (None, "tree")]
    assert [evpn.wanted(phase["p1"]) for phase in phases] == ["frozen"] + ["none"] * 4


def test_one_that_was_silenced_is_not_asked_for_its_sessions(monkeypatch):
    asked = []
    monkeypatch.setattr(
        speaker, "sessions", lambda: asked.append("asked") or {"192.0.2.1": {"state": "Established", "seconds": 1}}
    )
    monkeypatch.setattr(apply, "fdb", list)
    monkeypatch.setattr(traffic, "state_of", lambda device: "up")
    monkeypatch.setattr(traffic, "statistics", lambda device: {})
    dummy, phases = _walk(final(), [STAR])
    assert evpn.wanted(phases[0]["p1"]) == "frozen"
    for phase in phases:
        assert all(row["state"] == "up" for row in traffic.links(phase["p1"])) and asked == []
    assert [row["state"] for row in traffic.links(final()["p1"])] == ["up"] and asked == ["asked"]


def test_a_host_that_leaves_the_mesh_has_its_tap_from_the_first_phase_on():
    # Keys of links that a part doesn't have are removed, and this one was made before the first phase.
    seen, dummy = _walk(final(), [LAN], probes(no_udp=[(name, "p2") for name in ("home1", "p1", "p3")]))
    steps = [(phase["p2"].get(("*", "evpn")), phase["p2"].get(("home1", "ssh"))) for phase in seen]
    assert steps == [
        ("frozen", "standby"),
        ("tree", "standby"),
        ("standby", "standby"),
        ("resting", "tree"),
        (None, "tree"),
    ]


@pytest.mark.parametrize("ways", [([STAR], [LAN]), ([LAN], [STAR])], ids=["to", "from"])
def test_no_moment_of_a_change_has_a_loop_whichever_hosts_are_a_phase_ahead(ways):
    before = final(ways[0])
    phases = [before, *overlay_plan(ways[1], HOSTS, probes(), before)["phases"]]
    for number, (old, new) in enumerate(zip(phases, phases[1:])):
        for ahead in range(1 << len(NAMES)):
            mixed = {host: (new if ahead >> place & 1 else old)[host] for place, host in enumerate(NAMES)}
            edges = set()
            for host, part in mixed.items():
                for link in part["links"]:
                    # A frame goes round only where both ends flood.
                    if interfaces.ROLES[link["role"]][0] == "on":
                        edges.add((host, "") if link["peer"] == "*" else tuple(sorted((host, link["peer"]))))
            both = {
                pair
                for pair in edges
                if "" in pair or all(_floods(mixed[host], other) for host, other in (pair, pair[::-1]))
            }
            assert not topology.has_loop(both), (number, ahead)


def _floods(part, peer):
    return any(link["peer"] == peer and interfaces.ROLES[link["role"]][0] == "on" for link in part["links"])


@pytest.mark.parametrize("ways", [([STAR], [LAN]), ([LAN], [STAR])], ids=["to", "from"])
def test_a_change_that_was_interrupted_goes_on_without_old_and_new_links_flooding_together(ways):
    before = final(ways[0])
    phases = overlay_plan(ways[1], HOSTS, probes(), before)["phases"]
    for reached in phases:
        # Onward, and back.
        for networks in ways:
            again = overlay_plan(networks, HOSTS, probes(), reached)["phases"]
            for old, new in zip([reached, *again], again):
                for part in (old["p1"], new["p1"]):
                    flooding = [link["device"] for link in part["links"] if interfaces.ROLES[link["role"]][0] == "on"]
                    assert len(flooding) <= 1, (roles(old), roles(new))
            assert roles(again[-1]) == roles(final(networks))


def test_a_host_that_does_not_answer_stays_on_the_mesh():
    before = final()
    hosts = {**HOSTS, "p2": {**HOSTS["p2"], "reached": False}}
    known = {name: part for name, part in before.items() if name != "p2"}
    assert final(facts=probes(), parts=known, hosts=hosts) == known
    # One that was never there is left out.
    assert {peer["name"] for peer in final(hosts=hosts)["home1"]["links"][0]["peers"]} == {"p1", "p3"}


def test_while_a_host_with_a_vxlan_link_does_not_answer_the_network_does_not_become_evpn():
    star = final([STAR])
    hosts = {**HOSTS, "p2": {**HOSTS["p2"], "reached": False}}
    with pytest.raises(GridError) as caught:
        overlay_plan([LAN], hosts, probes(), {name: part for name, part in star.items() if name != "p2"})
    assert caught.value.code == "host_unreached" and "p2" in caught.value.msg


def _said(text):
    """Settings by neighbor."""
    return {
        address: re.findall(rf"^ +neighbor {address} .*$", text, re.MULTILINE)
        for address in re.findall(r"neighbor (\S+) remote-as", text)
    }


@pytest.mark.parametrize("host", ["home1", "p1", "p2"])
def test_a_second_network_of_another_home_changes_nothing_of_a_session_that_is_there(host):
    # FRR begins a session anew where its neighbor becomes a client: the first network would be silent for as long.
    first, both = (
        _said(evpn.settings(final(networks)[host])) for networks in ([LAN], [LAN, {**LAN, "name": "san", "home": "p2"}])
    )
    assert first and {address: both[address] for address in first} == first


def test_frr_reflects_at_the_home_and_tells_only_what_is_of_meshes():
    part = final()
    home, leaf = evpn.settings(part["home1"]), evpn.settings(part["p1"])
    assert home.count("route-reflector-client") == 3 and leaf.count("route-reflector-client") == 1
    assert (
        leaf.count("remote-as") == 1
        and " neighbor 192.0.2.1 remote-as 64512\n" in leaf
        and " bgp router-id 192.0.2.2\n" in leaf
    )
    assert f"bgp extcommunity-list standard virtuoso permit rt 64512:{model.network_vni('lan')}\n" in leaf
    assert "  advertise-all-vni\n" in leaf and "  neighbor 192.0.2.1 route-map virtuoso out\n" in leaf
    assert evpn.settings(final([STAR])["p1"]) is None


def test_a_running_frr_is_told_what_goes_and_what_comes_and_another_system_is_begun_anew():
    two = [LAN, {**LAN, "name": "san", "home": "p2", "hosts": ["p1", "p2"]}]
    before, after = evpn.settings(final(two)["p1"]), evpn.settings(final()["p1"])
    told = evpn.changes(before, after)
    assert "no bgp extcommunity-list standard virtuoso permit rt 64512:%d\n" % model.network_vni("san") in told
    assert (
        "router bgp 64512\n no neighbor 192.0.2.3\nexit\n" in told
        and told.endswith(after)
        and " no neighbor 192.0.2.1\n" not in told
    )
    back = evpn.changes(before=after, after=before)
    assert back.endswith(before) and back.count("no neighbor") == 0
    assert evpn.changes(after, evpn.settings(final([{**LAN, "asn": 64600}])["p1"])) is None


def test_the_mesh_floods_to_all_by_entries_of_ours_only_until_bgp_does():
    part = final()["p1"]
    entries = [
        {"mac": evpn.ALL, "ifname": DEVICE, "dst": dst, "state": "permanent"} for dst in ("192.0.2.1", "192.0.2.99")
    ]
    gone = f"fdb delete {evpn.ALL} dev {DEVICE} dst 192.0.2.99 self"
    assert evpn.mesh_steps(part, entries) == [gone], "a host that is of it no more"
    joining = {**part, "links": [{**part["links"][0], "role": "standby"}]}
    assert evpn.mesh_steps(joining, entries) == [gone] + [
        f"fdb append {evpn.ALL} dev {DEVICE} dst 192.0.2.{n} self permanent" for n in (3, 4)
    ]
    assert len(evpn.mesh_steps(joining, entries, {DEVICE})) == 3, "a device that is made anew has none"


def test_what_was_learned_on_a_link_that_rests_is_forgotten():
    part = {**final()["p1"], "links": [{**final()["p1"]["links"][0], "role": "resting"}]}
    entries = [
        {"mac": "02:00:00:00:00:01", "ifname": DEVICE, "master": "vb0", "state": ""},
        {"mac": "02:00:00:00:00:02", "ifname": DEVICE, "master": "vb0", "state": "permanent"},
        {"mac": "02:00:00:00:00:03", "ifname": DEVICE, "dst": "192.0.2.1", "state": ""},
        {"mac": "02:00:00:00:00:04", "ifname": "eth0", "master": "vb0", "state": ""},
    ]
    assert evpn.resting_steps(part, entries) == [f"fdb delete 02:00:00:00:00:01 dev {DEVICE} master"]


def test_the_mesh_has_one_device_without_learning_and_bgp_is_admitted_from_whom_it_is_spoken_with():
    part = final()["p1"]
    lines = interfaces.steps(interfaces.wanted_links(part), {})
    assert (
        f"link add name {DEVICE} type vxlan id {model.network_vni('lan')} local 192.0.2.2 dstport 4789 nolearning "
        "noudpcsum" in lines
    )
    assert f"link set dev {DEVICE} type bridge_slave flood on mcast_flood on bcast_flood on learning off" in lines
    text = rules(part)
    assert (
        "tcp dport 179 ip saddr { 192.0.2.1 } accept" in text and 'tcp dport 179 iifname != "lo" counter drop' in text
    )
    assert "dport 179" not in rules(final([STAR])["p1"])
    changing = overlay_plan([LAN], HOSTS, probes(), final([STAR]))["phases"][0]["p1"]
    beside = model.link_device("vxlan", "lan", "home1", "p1")
    assert f'"{beside}" . "{DEVICE}"' in rules(changing) and f'"{DEVICE}" . "{beside}"' not in rules(changing)


@pytest.mark.parametrize(
    "broken", [{"local": "1.2.3.4 up"}, {"asn": "64512\n"}, {"vni": "x"}, {"peers": [{"address": "p1; reboot"}]}]
)
def test_a_part_with_words_that_are_none_is_refused(broken):
    part = final()["p1"]
    assert apply.check(part) == part
    with pytest.raises(apply.OverlayError) as caught:
        apply.check({**part, "links": [{**part["links"][0], **broken}]})
    assert caught.value.code == "invalid_part"


def test_whose_frr_it_is_follows_from_its_service_and_its_settings():
    untouched = "# default to using syslog. /etc/rsyslog.d/45-frr.conf places the log in\n#\nlog syslog informational\n"
    assert (
        evpn.owned_by_somebody(None, False, False) is None and evpn.owned_by_somebody(untouched, False, False) is None
    )
    assert "runs here" in evpn.owned_by_somebody(untouched, True, True) and "at boots" in evpn.owned_by_somebody(
        untouched, False, True
    )
    assert "router ospf" in evpn.owned_by_somebody(untouched + "router ospf\n", False, False)


def test_overlay_info_tells_of_each_end_what_bgp_says():
    link = final()["p1"]["links"][0]
    entries = [
        {"mac": evpn.ALL, "ifname": DEVICE, "dst": "192.0.2.1"},
        {"mac": "02:00:00:00:00:03", "ifname": DEVICE, "dst": "192.0.2.3"},
        {"mac": "02:00:00:00:00:03", "ifname": DEVICE, "master": "vb0"},
    ]
    row = traffic.mesh_row(link, "up", entries, {"192.0.2.1": {"state": "Established", "seconds": 7}})
    assert row["state"] == "up" and row["vteps"] == [{"peer": "home1", "address": "192.0.2.1"}]
    assert row["macs"] == [{"mac": "02:00:00:00:00:03", "vtep": "192.0.2.3"}]
    assert row["sessions"] == [{"peer": "home1", "address": "192.0.2.1", "state": "Established", "seconds": 7}]
    assert (
        traffic.mesh_row(link, "up", [], {})["state"] == "down"
        and traffic.mesh_row({**link, "role": "tree"}, "up", [], {})["state"] == "up"
    )
    json.dumps(row)
