# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a play tells the networks of machines, and what it sees of the networks."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._ethernet import card_mac, mac_address, mac_prefix
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan import model
from ansible_collections.virtuoso.grid.plugins.module_utils._play import networks as play

WEB = {"uuid": "u1", "name": "web1", "network": "lan", "site": "a", "address": {"method": "dhcp", "ip": "192.0.2.7"}}
DB = {"uuid": "u2", "name": "db1", "network": "virtuoso", "site": "a"}
OLD = {"uuid": "u3", "name": "old1", "network": "lan", "site": "b"}
HOMES = {"home1": [{"network": "lan", "dhcp": {"first": "x"}}, {"network": "unused"}], "home2": None}


def test_machines_go_to_their_network_s_home_with_the_address_that_they_have_there():
    known = [{"uuid": "u3", "mac": "72:00:00:00:00:01"}, {"uuid": "u1", "mac": None}]
    (share,) = play.machine_networks({"p1": [WEB, DB, OLD]}, known, HOMES)["homes"]
    assert (share["home"], share["network"], share["dhcp"]) == ("home1", "lan", True)
    assert [machine["name"] for machine in share["machines"]] == ["web1", "old1"]
    assert [machine["mac"] for machine in share["machines"]] == [mac_address("lan", "a", "u1"), "72:00:00:00:00:01"]
    assert [machine["address"] for machine in share["machines"]] == ["192.0.2.7", None]
    assert play.machine_networks({"p1": [DB], "p2": None}, homes=HOMES)["homes"] == []


def test_a_deployments_machines_join_by_the_address_that_they_have_or_will_have():
    entry = {"uuid": "5f0d5b1e-6c1c-4f3a-9c0f-2d6a1f0e8b11", "name": "a", "network": "lan", "site": "site-p1"}
    (machine,) = play.machine_networks({"p1": [entry], "p2": None})["cards"]
    assert machine == {"provider": "p1", "network": "lan", "mac": mac_address("lan", "site-p1", entry["uuid"])}
    known = [{"uuid": entry["uuid"], "mac": "02:00:00:00:00:07"}]
    (machine,) = play.machine_networks({"p1": [entry]}, known)["cards"]
    both = play.machine_networks({"p1": [{**entry, "extra_networks": ["san"]}]}, known)["cards"]
    assert both == [machine, {"provider": "p1", "network": "san", "mac": card_mac("san", machine["mac"])}]
    assert both[1]["mac"].startswith(mac_prefix("san", "")[:5]) and both[1]["mac"].endswith(":00:00:00:07")
    assert machine["mac"] == "02:00:00:00:00:07"


LAN = {"name": "lan", "home": "home1"}


def link(**fields):
    return {"device": "tap5", "network": "lan", "peer": "p2", "transport": "ssh", "state": "down", **fields}


@pytest.mark.parametrize(
    ("transport", "where"),
    [
        ("ssh", "virtuoso-overlay-ssh@tap5"),
        ("vxlan", "UDP port 4789"),
        ("wireguard", "virtuoso-overlay-wireguard"),
        ("evpn", "virtuoso-overlay-frr"),
    ],
)
def test_a_link_that_is_down_says_where_to_look_by_its_transport(transport, where):
    down = link(transport=transport, peers=[], vteps=[])
    (text,) = play.overlay_lacks({"p1": {"links": [down, {**down, "state": "up"}]}})["links"]
    assert "tap5 to p2" in text and where in text and ("overlay-ssh" in text) == (transport == "ssh")


def test_every_transport_says_where_to_look():
    assert set(play.WHERE_TO_LOOK) == {*model.TRANSPORTS, play.EVPN}


def test_hosts_that_bgp_has_not_told_of_are_named_with_their_network():
    peers = [{"name": name, "address": f"192.0.2.{number}"} for number, name in enumerate(("p1", "p2", "p3"))]
    heard = link(transport="evpn", state="up", peers=peers, vteps=[{"peer": "p1", "address": "192.0.2.0"}])
    infos = {"home1": {"links": [heard]}}
    assert play.overlay_lacks(infos)["peers"] == ["p2 of network lan", "p3 of network lan"]
    assert play.overlay_lacks(infos, hosts=["home1", "p1", "p2"])["peers"] == ["p2 of network lan"]
    assert play.overlay_lacks({"home1": {"msg": "no answer"}}) == {"networks": [], "links": [], "peers": []}


def test_whether_a_host_lacks_a_network():
    infos = {name: {"part": {"networks": [{"name": "lan"}]}} for name in ("home1", "p1", "p2")}
    other = {"name": "other", "home": "home1"}
    assert play.overlay_lacks(infos, [LAN])["networks"] == []
    assert play.overlay_lacks(infos, [LAN, other])["networks"] == ["other on home1", "other on p1", "other on p2"]
    assert play.overlay_lacks(infos, [{**other, "hosts": ["home1", "p2"]}])["networks"] == [
        "other on home1",
        "other on p2",
    ]
    without = {**infos, "p2": {"part": {}}}
    assert play.overlay_lacks(without, [LAN])["networks"] == ["lan on p2"]
    assert play.overlay_lacks(without, [{**LAN, "hosts": ["p1"]}])["networks"] == []


def test_a_network_s_own_interfaces():
    names = play.network_interfaces("lan")
    assert names["bridge"] == model.bridge_name("lan") and [len(name) for name in names["cable"]] == [12, 12]
