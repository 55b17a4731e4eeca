# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the task that moves machines tells the store, and what it leaves to the task after it."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._information.registration.transaction import register
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import listing
from ansible_collections.virtuoso.grid.plugins.plugin_utils import _recorder
from ansible_collections.virtuoso.grid.plugins.plugin_utils._recorder import Recorder, marked

UUIDS = {name: f"00000000-0000-4000-8000-00000000000{number}" for number, name in enumerate("ab")}
HOSTS = [
    {"name": name, "site": name, "kind": "provider", "address": f"198.18.0.2{number}"}
    for number, name in enumerate(("p1", "p2"), start=1)
]


def machine(name, provider, **more):
    known = {
        "name": name,
        "uuid": UUIDS[name],
        "owner": "alice",
        "image": {"name": "tiny@1", "digest": "sha256:" + "a" * 64},
        "addresses": [],
    }
    return {**known, "provider": provider, "state": "running", "generation": 1, **more}


@pytest.fixture
def store(tmp_path):
    """A store with two machines on p1."""
    register(
        "grid.db", {"providers": HOSTS, "machines": [machine("a", "p1"), machine("b", "p1")]}, directory=str(tmp_path)
    )
    return tmp_path / "grid.db"


def places(store):
    return {row["name"]: row["provider"] for row in listing.read(str(store))[0]}


def test_machines_are_where_they_came_to_be_and_each_is_told_by_itself(store):
    recorder = Recorder({"store": "grid.db", "providers": HOSTS}, str(store.parent))
    bad = machine("b", "nowhere")
    assert recorder.record([machine("a", "p2", generation=2), bad]) == {UUIDS["a"]}
    assert places(store) == {"a": "p2", "b": "p1"}
    assert marked([{"uuid": UUIDS["a"]}, {"uuid": UUIDS["b"]}], {UUIDS["a"]}) == [
        {"uuid": UUIDS["a"], "recorded": True},
        {"uuid": UUIDS["b"]},
    ]


def test_without_anything_to_say_no_store_is_made(tmp_path):
    assert Recorder({"store": "grid.db"}, str(tmp_path)).record([]) == set()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", ["store", "library", "bug", "provider"])
def test_what_goes_wrong_is_left_to_the_task_that_comes_after(store, monkeypatch, fault):
    hosts = HOSTS
    if fault == "store":
        store.write_bytes(b"x" * 5000)
    elif fault == "library":
        monkeypatch.setattr(_recorder, "_ROOM", "no_such_module")
    elif fault == "bug":
        monkeypatch.setattr(_recorder, "_loaded", lambda: {"register": lambda *dummy, **more: {}["missing"]})
    else:
        hosts = [*HOSTS[:1], {**HOSTS[1], "kind": "castle"}]
    assert Recorder({"store": str(store), "providers": hosts}, "/").record([machine("a", "p2", generation=2)]) == set()
