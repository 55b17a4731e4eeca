# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module image_transfer connects before it loads the rest of its code, and only where something is missing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer import channel, plan
from ansible_collections.virtuoso.grid.plugins.modules import image_transfer

SOURCE = plan.Source("home1", "198.18.0.11", 22, "virtuoso", "/k", "/h")
DIGESTS = ["sha256:" + letter * 64 for letter in "ab"]
ITEMS = [plan.Item("x", "1", digest, None, None) for digest in DIGESTS]

READ = """
import sys
from ansible_collections.virtuoso.grid.plugins.modules import image_transfer
package = "ansible_collections.virtuoso.grid.plugins.module_utils._image."
assert package + "transfer.link" in sys.modules
later = ("store.depot", "transfer.fetch", "transfer.feed", "transfer.receive")
print([name for name in later if package + name in sys.modules])
"""


@pytest.fixture(name="depot")
def _depot(tmp_path):
    depot = Depot(str(tmp_path))
    depot.prepare()
    return depot


def test_what_the_connection_needs_not_is_read_while_it_is_made():
    done = subprocess.run(
        [sys.executable, "-c", READ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"[]\n"


def test_a_connection_begins_only_where_a_layer_is_missing(tmp_path, depot, monkeypatch):
    monkeypatch.setattr(plan, "ssh_argv", lambda source: ["cat"])
    with image_transfer.begin(str(tmp_path), SOURCE, ITEMS) as begun:
        assert begun.source == SOURCE
    for digest in DIGESTS:
        with open(depot.layer_path(digest), "wb"):
            pass
    assert image_transfer.begin(str(tmp_path), SOURCE, ITEMS) is None
    os.unlink(depot.layer_path(DIGESTS[1]))
    with image_transfer.begin(str(tmp_path), SOURCE, ITEMS):
        pass


def test_that_there_is_no_ssh_is_left_to_whoever_needs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(channel, "BOUND_TO_US", ("/nonexistent",))
    assert image_transfer.begin(str(tmp_path), SOURCE, ITEMS) is None
