# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbook ``images`` makes of a wish and of the hosts' answers."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._play import images as play

WISH = {
    "capture": "",
    "rollback": "",
    "name": "",
    "version": "",
    "flatten": "",
    "new_version": "",
    "discard": False,
    "prune": False,
}
ORDERS = [
    {"name": "web1", "uuid": "u1", "provider": "p1", "spec": {"image": "tiny@3"}},
    {"name": "web2", "uuid": "u2", "provider": "p1", "spec": {"image": "sha256:" + "0" * 64}},
    {"name": "web3", "uuid": "u3", "provider": "p2", "spec": {"image": "tiny"}},
    {"name": "later", "uuid": "u4", "provider": None, "spec": {"image": "tiny"}},
]


def work(host, **wish):
    found = play.image_work(ORDERS, host, ["p1", "p2"], ["p1", "p2"], {**WISH, **wish})
    return {key: found[key] for key in ("captured", "rolled_back")}


def test_each_host_looks_after_its_own_machines():
    wish = {"capture": ["web1", "web3"], "name": "web", "version": 2}
    assert work("p1", **wish)["captured"] == [{"name": "web", "machine": "u1", "version": "2"}]
    assert work("p2", **wish)["captured"] == [{"name": "web", "machine": "u3", "version": "2"}]
    assert work("server", **wish) == work("p1") == {"captured": [], "rolled_back": []}


def test_a_name_that_was_not_given():
    assert [entry["name"] for entry in work("p1", capture="web1,web2")["captured"]] == ["tiny", "web2"]
    assert "version" not in work("p1", capture="web1")["captured"][0]


def test_roll_back():
    wish = {"rollback": "web3", "name": "web", "version": "2"}
    assert work("p2", **wish)["rolled_back"] == [{"machine": "u3", "name": "web", "version": "2"}]


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        ({}, ""),
        ({"capture": "web1,web2"}, ""),
        ({"capture": "web1", "version": "2"}, ""),
        ({"capture": "web1,web2", "version": "2"}, "one version"),
        ({"capture": "web3"}, "web3"),
        ({"rollback": ["later"], "name": "x", "version": "1"}, "later"),
        ({"rollback": "web1", "name": "x"}, "-e version"),
        ({"rollback": "web1", "version": "1"}, "-e image"),
        ({"flatten": "web"}, "NAME@VERSION"),
        ({"flatten": "web@2"}, ""),
        ({"prune": True}, "p2"),
    ],
)
def test_what_can_not_be_meant(wish, text):
    refusal = play.image_work(ORDERS, "p1", ["p1"], ["p1", "p2"], {**WISH, **wish})["refusal"]
    assert text in refusal and bool(text) == bool(refusal)


def test_pruning_with_all_providers():
    work = play.image_work(ORDERS, "p1", ["p1", "p2", "server"], ["p1", "p2"], {**WISH, "prune": True})
    assert work["refusal"] == ""


def test_layers_in_use():
    stored = {"p1": {"used": ["b", "a"]}, "p2": {"used": []}, "p3": {}}
    machines = [{"image": {"name": "x", "digest": "c"}}, {"foreign": True}, {"image": {"digest": ""}}]
    assert play.image_stores(stored, machines)["in_use"] == ["a", "b", "c"]


def image(reference, digest="sha256:" + "a" * 64, complete=True):
    return {
        "reference": reference,
        "digest": digest,
        "layers": [digest],
        "virtual_size": 2**30,
        "size": 2**20,
        "created": "now",
        "complete": complete,
    }


def test_rows():
    stored = {
        "p1": {"images": [image("web@2"), image("tiny@1")]},
        "p2": {"images": [image("web@2", complete=False), image("tiny@1", "sha256:" + "b" * 64)]},
        "p3": {"unreachable": True},
    }
    rows = play.image_stores(stored)["rows"]
    assert [(row["name"], row["hosts"]) for row in rows] == [
        ("tiny@1", ["p1"]),
        ("tiny@1", ["p2"]),
        ("web@2", ["p1", "p2 (incomplete)"]),
    ]
    assert rows[0]["disk"] == "1 GiB" and rows[0]["digest"] == "sha256:" + "a" * 12
