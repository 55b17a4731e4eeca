# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Round trips by TCP handshakes, with a real listener and one that is gone."""

from __future__ import annotations

import socket

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import latency


def test_a_listener_is_measured_and_a_closed_port_is_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        measured = latency.round_trip("127.0.0.1", port)
        assert measured is not None and measured > 0
    assert latency.round_trip("127.0.0.1", port) is None
    assert latency.round_trip("no such host", 22) is None


def test_of_several_peers_at_a_site_the_nearest_counts(monkeypatch):
    times = {"a": 0.03, "b": 0.01, "c": None, "d": 0.5}
    monkeypatch.setattr(latency, "round_trip", lambda address, port: times[address])
    peers = [
        {"site": site, "address": address}
        for site, address in (("north", "a"), ("north", "b"), ("south", "c"), ("east", "d"))
    ]
    assert latency.latencies(peers) == [{"site": "east", "seconds": 0.5}, {"site": "north", "seconds": 0.01}]
    assert latency.latencies([]) == []
