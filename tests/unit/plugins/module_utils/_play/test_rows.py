# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tasks of a play did to each machine."""

from __future__ import annotations

from ansible_collections.virtuoso.grid.plugins.module_utils._play import rows as play
from ansible_collections.virtuoso.grid.plugins.module_utils._play.rows import side_failures


def step_rows(result, machines, host):
    return play.step_rows({"started": result}, machines, host)["started"]


def home_failures(results):
    return play.step_rows({"told": {"results": results}}, [], "p")["told"]


def test_rows_of_a_step_are_the_machines_own_or_the_steps_failure():
    machines = [{"name": "a", "uuid": "u-a"}, {"name": "b", "uuid": "u-b"}]
    assert step_rows({"machines": [{"name": "a"}]}, machines, "p") == [{"name": "a", "provider": "p"}]
    absent = {"name": None, "uuid": "u-b", "state": "absent"}
    assert step_rows({"machines": [absent]}, machines, "p") == [
        {"name": "b", "uuid": "u-b", "state": "absent", "provider": "p"}
    ]
    assert step_rows({"skipped": True}, machines, "p") == []
    rows = step_rows({"unreachable": True, "msg": "no route"}, machines, "p")
    assert [row["failure"]["code"] for row in rows] == ["provider_unreachable"] * 2
    assert "p: machine a: no route" == rows[0]["msg"]
    rows = step_rows({"failed": True, "msg": "x", "failure": {"code": "libvirt_unreachable"}}, machines[:1], "p")
    assert rows[0]["failure"] == {"code": "libvirt_unreachable"}
    assert (
        step_rows({"failed": False, "msg": "x", "failure": {"code": "libvirt_unreachable"}}, machines[:1], "p") == rows
    )


def test_each_step_has_its_rows_under_its_name():
    found = play.step_rows({"started": {"machines": [{"name": "a"}]}, "observed": {"skipped": True}}, [], "p")
    assert found == {"started": [{"name": "a", "provider": "p"}], "observed": []}


def test_what_homes_refused_are_rows():
    refused = {
        "name": "web1",
        "uuid": "u1",
        "changed": False,
        "failed": True,
        "msg": "home1: web1 is taken",
        "failure": {"code": "name_taken"},
    }
    item = {"home": "home1", "machines": [{"name": "web1", "uuid": "u1"}, {"name": "old1", "uuid": "u3"}]}
    rows = home_failures(
        [{"machines": [refused, {"name": "old1", "uuid": "u3", "changed": True}]}, {"item": item, "changed": True}]
    )
    assert rows == [refused]
    rows = home_failures([{"unreachable": True, "msg": "no route", "item": item}])
    assert [row["failure"]["code"] for row in rows] == ["home_unreachable"] * 2 and "home1" in rows[0]["msg"]
    rows = home_failures([{"failed": False, "failure": {"code": "no_dhcp_server"}, "msg": "m", "item": item}])
    assert [row["failure"]["code"] for row in rows] == ["no_dhcp_server"] * 2


def test_what_no_machine_depends_on_is_told_once_and_where_it_was():
    steps = {
        "announced": "announce machines",
        "exports": "stop exports",
        "homes": "tell the home",
        "displays": "photograph",
    }
    broken = {
        "failed": False,
        "failed_when_result": False,
        "msg": "nft said no\nmore",
        "failure": {"code": "nft_failed"},
    }
    crashed = {"failed": False, "exception": "Traceback...", "msg": "Module result deserialization failed"}
    once = {"msg": "no such unit", "failure": {"code": "export_failed"}}
    hosts = {
        "p1": {
            "announced": broken,
            "exports": {"skipped": True},
            "homes": {"results": [{**once, "item": "home1"}, {"item": "home2"}]},
        },
        "p2": {"announced": {"changed": True}, "exports": crashed, "homes": {"results": [{**once, "item": "home1"}]}},
        "p3": {
            "displays": {"machines": [{"name": "a"}, {"name": "b", "failed": True, "msg": "b: no VNC"}]},
            "announced": {"unreachable": True, "msg": "no route"},
        },
        "p4": {},
    }
    assert side_failures(hosts, steps) == [
        "p1: could not announce machines: nft said no (nft_failed)",
        "home1: could not tell the home: no such unit (export_failed)",
        "p2: could not stop exports: Module result deserialization failed",
        "p3: could not announce machines: no route",
        "p3: could not photograph: b: no VNC",
    ]
