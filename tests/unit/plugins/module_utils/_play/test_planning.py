# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each host is to have of the networks, from what all of them have."""

from __future__ import annotations

from ansible_collections.virtuoso.grid.plugins.module_utils._play import planning as play

NAMES = ("home1", "p1", "p2")
LAN = {"name": "lan", "home": "home1"}


def test_an_error_of_the_plan_is_a_row():
    told = play.plan_networks([{"name": "bad name!"}], {})
    assert told["failed"] and told["failure"]["code"]


def test_hosts_that_answered_are_planned_for_and_the_others_keep_what_they_have():
    open_path = {"udp_in": True, "udp_out": True, "ssh": True, "ssh_trouble": None, "rtt": 0.02, "path_mtu": 1500}
    places = {name: {"address": f"192.0.2.{place}", "port": 22, "site": name} for place, name in enumerate(NAMES, 1)}
    kernel = {"vxlan": None, "wireguard": "the kernel has none"}
    probes = {
        name: {"kernel": kernel, "paths": {other: open_path for other in NAMES if other != name}} for name in NAMES
    }
    reached = {name: {**place, "probe": probes[name], "part": {}} for name, place in places.items()}
    guest = {"mac": "02:00:00:00:00:07", "network": "lan", "name": "web1"}
    plan = play.plan_networks([LAN], {**reached, "p1": {**reached["p1"], "machines": [guest, {"name": "foreign"}]}})
    assert [row["name"] for row in plan["rows"]] == ["lan home1 - p1", "lan home1 - p2"]
    parts = plan["phases"][-1]
    assert set(parts) == set(NAMES) and [each["mac"] for each in parts["p1"]["guests"]] == [guest["mac"]]
    # Its libvirt doesn't answer, and p2 is out of reach.
    again = play.plan_networks(
        [LAN],
        {
            **{name: {**reached[name], "part": parts[name], "machines": None} for name in ("home1", "p1")},
            "p2": places["p2"],
        },
    )
    assert again["phases"] == [{name: parts[name] for name in ("home1", "p1")}]
