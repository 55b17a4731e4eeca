# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a machine that moves without running: to whom they are given, and whether there is a way to them."""

from __future__ import annotations

import json
import socket

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._migration.host import offering


def test_files_are_given_to_the_target_alone_and_not_to_be_written():
    argv = offering.arguments({"disk.qcow2": "/d/a,b.qcow2", "seed.iso": "/d/seed.iso"}, 10810, "p2")
    rules = json.loads(argv[argv.index("--object", 2) + 1])
    assert rules["policy"] == "deny" and {rule["match"] for rule in rules["rules"]} == set(offering.identities("p2"))
    assert "verify-peer=yes" in argv[2] and argv.count("--export") == 2
    assert all(
        "read-only=on" in each and each.endswith((",file.filename=/d/a,,b.qcow2", "/d/seed.iso"))
        for each in argv
        if each.startswith("driver=raw")
    )
    assert all(each.endswith("writable=off") for each in argv if each.startswith("type=nbd"))


def test_an_offer_that_cannot_be_reached_is_told_apart():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        way = {"host": "127.0.0.1", "port": server.getsockname()[1]}
        with pytest.raises(offering.GridError) as caught:
            offering.require_way(way)
        # By that code the controller offers its own way.
        assert caught.value.code == "source_unreachable"
        server.listen()
        offering.require_way(way)
