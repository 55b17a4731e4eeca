# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's part as batches, rules and files; what isn't ours is left alone."""

from __future__ import annotations

import json

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host import apply, interfaces, sessions, wireguard
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan import matrix, model
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.site import (
    libvirt_networks,
    needs,
    probe,
    traffic,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.site import (
    part as site,
)

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKAvoXb0sbRv8LMyLVoHhxJgIKBoRkx3fr7prbz"
PART = {
    "networks": [{"name": "lan", "bridge": "vb0000000001", "mtu": 1450, "spoofing": False}],
    "links": [
        {
            "device": "vt0000000001",
            "network": "lan",
            "peer": "p1",
            "role": "tree",
            "transport": "vxlan",
            "reason": "",
            "remote": "192.0.2.2",
            "vni": 7,
        },
        {
            "device": "tap12",
            "network": "lan",
            "peer": "p2",
            "role": "shortcut",
            "transport": "ssh",
            "reason": "",
            "remote": "192.0.2.3",
            "port": 22,
            "end": "client",
            "host_key": KEY,
        },
        {
            "device": "tap13",
            "network": "lan",
            "peer": "p3",
            "role": "tree",
            "transport": "ssh",
            "reason": "",
            "remote": "192.0.2.4",
            "port": 22,
            "end": "server",
            "client_key": KEY,
        },
    ],
    "guests": [{"device": "vm020000000001", "mac": "02:00:00:00:00:01", "network": "lan"}],
    "forwarding": [{"device": "tap12", "mac": "02:00:00:00:00:02"}],
    "peers": ["192.0.2.2"],
}
EMPTY = {"networks": [], "links": [], "guests": [], "forwarding": [], "peers": []}


def there(**changed):
    """The interfaces once all is made."""
    found = {}
    for name, want in interfaces.wanted_links(PART).items():
        found[name] = {
            **want,
            "alias": interfaces.MARK,
            "up": True,
            "role": interfaces.ROLES[want["role"]] if "role" in want else None,
        }
    return {**found, **changed}


def test_ports_have_their_role_before_they_are_up_and_bridges_come_first():
    lines = interfaces.steps(interfaces.wanted_links(PART), {})
    assert lines[0].startswith("link add name vb0000000001 type bridge")
    assert lines.index(
        "link set dev tap12 type bridge_slave flood off mcast_flood off bcast_flood off learning off"
    ) < lines.index("link set dev tap12 up")
    assert "link add name vt0000000001 type vxlan id 7 remote 192.0.2.2 dstport 4789 nolearning noudpcsum" in lines


def test_inside_wireguard_there_are_checksums():
    secured = {**PART, "links": [{**PART["links"][0], "transport": "wireguard", "inner": "fd76::1"}]}
    assert "link add name vt0000000001 type vxlan id 7 remote fd76::1 dstport 4789 nolearning" in interfaces.steps(
        interfaces.wanted_links(secured), {}
    )


def test_nothing_is_done_where_all_is_as_it_should_be_and_what_is_not_wanted_goes():
    assert interfaces.steps(interfaces.wanted_links(PART), there()) == []
    foreign = {"eth0": {"alias": None, "kind": None, "up": True}}
    lines = interfaces.steps({}, there(**foreign))
    assert (
        all(line.startswith("link delete") for line in lines)
        and lines[-1].endswith("vb0000000001")
        and not any("eth0" in line for line in lines)
    )


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"mtu": 1400}, "mtu 1450"),
        ({"remote": "192.0.2.9"}, "link delete dev vt0000000001"),
        ({"up": False}, "vt0000000001 up"),
    ],
)
def test_only_what_differs_is_changed(changed, line):
    lines = interfaces.steps(interfaces.wanted_links(PART), there(vt0000000001={**there()["vt0000000001"], **changed}))
    assert line in lines[0]


def test_an_interface_of_somebody_else_is_named_and_left_alone():
    assert interfaces.foreign(interfaces.wanted_links(PART), there(vb0000000001={"alias": None})) == ["vb0000000001"]


def test_forwarding_entries_come_and_go():
    assert interfaces.forwarding_steps(PART, {("tap12", "02:00:00:00:00:09")}) == [
        "fdb delete 02:00:00:00:00:09 dev tap12 master",
        "fdb replace 02:00:00:00:00:02 dev tap12 master static sticky",
    ]


def test_traffic_is_told_by_names_and_a_pair_that_was_counted_on_two_hosts_once():
    row = {"source": "02:00:00:00:00:01", "destination": "02:00:00:00:00:02", "bytes": 100, "packets": 2}
    names = {"02:00:00:00:00:01": "web1"}
    told = matrix.named([row], names)
    assert (told[0]["source_name"], told[0]["destination_name"]) == ("web1", None)
    link = {"network": "lan", "peer": "p2", "transport": "ssh", "tx_bytes": 7, "tx_packets": 1}
    rows = matrix.traffic_rows({"p1": {"traffic": told, "links": [link]}, "p2": {"traffic": told, "links": []}})
    assert [(row["name"], row["bytes"], row["packets"]) for row in rows] == [
        ("web1 > 02:00:00:00:00:02", 200, 4),
        ("lan: p1 > p2 (ssh)", 7, 1),
    ]


def test_keys_are_admitted_for_one_tap_only_and_host_keys_are_known():
    files = sessions.ssh_files(PART, "/x")
    assert files["/x/authorized_keys"] == f'restrict,command="/bin/false",tunnel="13" {KEY} tap13\n'
    assert (
        files["/x/ssh/tap12.known_hosts"] == f"tap12 {KEY}\n"
        and "StrictHostKeyChecking yes" in files["/x/ssh/tap12.conf"]
    )
    assert sessions.clients(PART) == ["tap12"] and sessions.ssh_files(EMPTY, "/x") == {}


@pytest.mark.parametrize(
    "broken",
    [
        {"links": [{**PART["links"][0], "device": "eth0"}]},
        {"links": [{**PART["links"][0], "remote": "1.2.3.4 up; x"}]},
        {"guests": [{**PART["guests"][0], "mac": "02:00:00:00:00:01\n"}]},
        {"links": [{**PART["links"][2], "client_key": 'ssh-ed25519 AAAA"\ncommand="x'}]},
    ],
)
def test_a_part_with_words_that_are_none_is_refused(broken):
    assert apply.check(PART) == PART
    with pytest.raises(apply.OverlayError) as caught:
        apply.check({**PART, **broken})
    assert caught.value.code == "invalid_part"


def test_wireguards_settings_have_no_secret_and_only_peers_with_keys():
    part = {
        "wireguard": {
            "port": 51820,
            "peers": [
                {"remote": "192.0.2.2", "port": 51820, "address": "fd76::1", "key": key} for key in ("A" * 43 + "=", "")
            ],
        }
    }
    text = wireguard.settings(part)
    assert text.count("[Peer]") == 1 and "PrivateKey" not in text and "AllowedIPs = fd76::1/128" in text
    assert wireguard.address("p1") == wireguard.address("p1") != wireguard.address("p2")


def test_an_announcement_is_a_rarp_broadcast_of_the_machine():
    frame = site.announcement("02:00:00:00:00:01")
    assert (
        len(frame) == 60
        and frame[:6] == b"\xff" * 6
        and frame[6:12] == bytes.fromhex("020000000001")
        and frame[12:14] == b"\x80\x35"
    )


def test_the_matrix_is_read_from_what_nft_says():
    element = {
        "elem": {"val": {"concat": ["02:00:00:00:00:01", "ff:ff:ff:ff:ff:ff"]}, "counter": {"packets": 3, "bytes": 180}}
    }
    text = json.dumps({"nftables": [{"metainfo": {}}, {"set": {"name": "matrix", "elem": [element]}}]})
    assert traffic.read_matrix(text) == [
        {"source": "02:00:00:00:00:01", "destination": "ff:ff:ff:ff:ff:ff", "bytes": 180, "packets": 3}
    ]
    assert traffic.read_matrix("") == []


def test_libvirts_networks_come_and_go_and_a_foreign_one_is_left_alone():
    bridge = model.bridge_name("lan")
    text = libvirt_networks.text("lan", bridge)
    assert libvirt_networks.read(text) == (bridge, True) and libvirt_networks.read(
        "<network><name>lan</name><bridge name='virbr0'/></network>"
    ) == (
        "virbr0",
        False,
    )
    assert libvirt_networks.decide({"lan": bridge}, {}) == [("define", "lan"), ("start", "lan")]
    assert libvirt_networks.decide({"lan": bridge}, {"lan": (bridge, True, True)}) == []
    assert libvirt_networks.decide({}, {"lan": (bridge, True, True), "virtuoso": ("virtuoso0", True, False)}) == [
        ("remove", "lan")
    ]
    with pytest.raises(GridError) as caught:
        libvirt_networks.decide({"lan": bridge}, {"lan": ("virbr0", True, False)})
    assert caught.value.code == "network_name_taken"


def test_userspace_wireguard_counts_where_its_programs_are(monkeypatch):
    monkeypatch.setattr(probe, "_lacks", lambda transport, words: "the kernel has none")
    monkeypatch.setattr(probe.os.path, "exists", lambda path: True)
    assert probe.kernel(lambda name: True)["wireguard"] is None
    assert "wireguard-go isn't installed" in probe.kernel(lambda name: None)["wireguard"]
    assert probe.kernel(lambda name: name != "wg")["wireguard"] == "wireguard-tools isn't installed"


def test_a_host_that_answers_is_asked_for_larger_frames_for_some_rounds_only():
    prober = probe.Prober("a", [{"name": "b", "address": "192.0.2.2"}])
    assert prober.sizes("b") == [0, *probe.SIZES] == prober.sizes("b"), "nothing is known of who is silent"
    prober.rtt["b"], prober.largest["b"] = 0.01, 1422
    rounds = [prober.sizes("b") for dummy in range(20)]
    assert rounds[0] == [0, 8972, 1472] and rounds[-1] == [0] and 3 <= rounds.count(rounds[0]) <= 10


def test_what_a_host_has_of_what_links_need():
    told = "installed iproute2\nconfig-files frr\ninstalled nftables\ninstalled other\n\n"
    assert needs.installed(["nftables", "iproute2", "frr", "wireguard-tools"], told) == ["iproute2", "nftables"]
    shadow = "root:!:1:0:::::\nvirtuoso-tap:*:1::::::\nvirtuoso:!:1::::::\nodd\n"
    assert [needs.password(shadow, name) for name in ("virtuoso-tap", "virtuoso", "odd", "nobody")] == [
        "*",
        "!",
        None,
        None,
    ]
    found = needs.needs([])
    assert found["packages"] == [] and found["account"] is False
