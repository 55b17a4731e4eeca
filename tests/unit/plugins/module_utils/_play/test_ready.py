# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a machine is ready as it was ordered, and what is said of one that isn't."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._play.ready import (
    Attempt,
    Judge,
    awaited,
    wish_of,
    with_address,
)

KEY = [{"name": "alice", "ssh_authorized_keys": ["ssh-ed25519 AAAA"]}]


def order(name="web1", **spec):
    return {"name": name, "uuid": f"u-{name}", "spec": {"name": name, "image": "tiny", **spec}}


@pytest.mark.parametrize(
    ("spec", "wish"),
    [
        ({}, "address"),
        ({"users": [{"name": "alice", "ssh_authorized_keys": []}]}, "address"),
        ({"users": KEY}, "ssh"),
        ({"users": KEY, "ready": "none"}, "none"),
        ({"ready": "cloud_init"}, "cloud_init"),
    ],
)
def test_an_order_says_when_or_else_whether_somebody_has_a_key(spec, wish):
    assert wish_of(order(**spec)) == wish


def test_only_machines_that_run_are_logged_in_to():
    orders = [
        *(order(name, users=KEY) for name in ("a", "b", "c", "d")),
        order("e"),
        order("f", users=KEY, ready="none"),
        order("g", ready="cloud_init"),
    ]
    rows = [{"name": name, "state": "running"} for name in ("a", "e", "f", "g")]
    rows += [{"name": "b", "state": "stopped"}, {"name": "c", "state": "running", "failed": True}]
    assert awaited(orders, rows) == [
        {"name": "a", "ready": "ssh", "ordered": False},
        {"name": "g", "ready": "cloud_init", "ordered": True},
    ]
    assert with_address(orders) == [f"u-{name}" for name in "abcdeg"]


def judge(ready="ssh", ordered=True):
    return Judge({"name": "web1", "ready": ready, "ordered": ordered}, "alice")


LOST = Attempt(None, "Connection refused")
REFUSED = Attempt(None, "alice@192.0.2.7: Permission denied (publickey).")


def test_a_login_that_worked_is_all_that_ssh_asks_for():
    tried = judge()
    assert tried.see(LOST, 0) is None
    assert tried.see(Attempt(0, ""), 1) == {"name": "web1", "changed": False, "ready": "ssh"}


def test_a_login_has_to_be_refused_for_a_while():
    tried = judge()
    # The key came after the server.
    assert tried.see(REFUSED, 0) is tried.see(LOST, 10) is tried.see(REFUSED, 20) is None
    row = tried.see(REFUSED, 40)
    assert row["failed"] and row["failure"]["code"] == "login_refused" and "Permission denied" in row["msg"]


def test_somebody_elses_machine_is_served_and_noted():
    tried = judge(ordered=False)
    tried.see(REFUSED, 0)
    row = tried.see(REFUSED, 40)
    assert "failed" not in row and "ready: address" in row["note"]


@pytest.mark.parametrize(
    ("attempt", "code", "ready"),
    [
        (Attempt(0, "status: done\n"), None, "cloud_init"),
        (Attempt(0, "\nstatus: disabled\n"), None, "cloud_init"),
        (Attempt(2, "status: running\n"), "not_ready", None),
        (Attempt(0, "status: not started"), "not_ready", None),
        (Attempt(1, "status: error\n"), "cloud_init_failed", None),
        (Attempt(2, "status: degraded done\n"), "cloud_init_failed", None),
        (Attempt(127, "sh: cloud-init: not found"), "no_cloud_init", None),
        (LOST, "not_ready", None),
    ],
)
def test_cloud_init_has_to_end_well(attempt, code, ready):
    tried = judge("cloud_init")
    row = tried.see(attempt, 0) or tried.late(300)
    assert row["ready"] == ready and (row.get("failure") or {}).get("code") == code
    if code == "not_ready":
        assert "300 s" in row["msg"] and "virtuoso.grid.doctor -e machine=web1" in row["failure"]["remedy"]
