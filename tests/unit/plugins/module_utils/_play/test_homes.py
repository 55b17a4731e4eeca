# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment tells homes, and what it makes of their answers."""

from __future__ import annotations

from ansible_collections.virtuoso.grid.plugins.module_utils._ethernet import mac_address
from ansible_collections.virtuoso.grid.plugins.module_utils._play import homes as play

WEB = {"uuid": "u1", "name": "web1", "network": "lan", "site": "a", "address": {"method": "dhcp", "ip": "192.0.2.7"}}
DB = {"uuid": "u2", "name": "db1", "network": "virtuoso", "site": "a"}
OLD = {"uuid": "u3", "name": "old1", "network": "lan", "site": "b"}
HOMES = {"home1": [{"network": "lan", "dhcp": {"first": "x"}}, {"network": "unused"}], "home2": None}


def test_machines_go_to_their_network_s_home_with_the_address_that_they_have_there():
    (share,) = play.home_machines(
        [WEB, DB, OLD], HOMES, [{"uuid": "u3", "mac": "72:00:00:00:00:01"}, {"uuid": "u1", "mac": None}]
    )
    assert (share["home"], share["network"], share["dhcp"]) == ("home1", "lan", True)
    assert [machine["name"] for machine in share["machines"]] == ["web1", "old1"]
    assert [machine["mac"] for machine in share["machines"]] == [mac_address("lan", "a", "u1"), "72:00:00:00:00:01"]
    assert [machine["address"] for machine in share["machines"]] == ["192.0.2.7", None]
    assert play.home_machines([DB], HOMES) == []


def test_answers_are_joined_and_refusals_are_rows():
    results = [
        {"leases": {"m1": {"address": "192.0.2.7"}}},
        {"failed": True},
        {"leases": {"m2": {"address": "192.0.2.8"}}},
    ]
    assert set(play.home_leases(results)) == {"m1", "m2"}
    refused = {
        "name": "web1",
        "uuid": "u1",
        "changed": False,
        "failed": True,
        "msg": "home1: web1 is taken",
        "failure": {"code": "name_taken"},
    }
    item = {"home": "home1", "machines": [{"name": "web1", "uuid": "u1"}, {"name": "old1", "uuid": "u3"}]}
    rows = play.home_refusals(
        [{"machines": [refused, {"name": "old1", "uuid": "u3", "changed": True}]}, {"item": item, "changed": True}]
    )
    assert rows == [refused]
    rows = play.home_refusals([{"unreachable": True, "msg": "no route", "item": item}])
    assert [row["failure"]["code"] for row in rows] == ["home_unreachable"] * 2 and "home1" in rows[0]["msg"]
    rows = play.home_refusals([{"failed": False, "failure": {"code": "no_dhcp_server"}, "msg": "m", "item": item}])
    assert [row["failure"]["code"] for row in rows] == ["no_dhcp_server"] * 2
