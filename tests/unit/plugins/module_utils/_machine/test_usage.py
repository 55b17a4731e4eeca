# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine gets of the processors, and the most that it may."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state import usage


@pytest.mark.parametrize(
    "first, second, percent",
    [
        ((10.0, 0), (12.0, 10**9), 50.0),
        ((0.0, 5), (1.0, 5), 0.0),
        ((1.0, 5), (1.0, 9), None),
        ((1.0, 5), (2.0, 4), None),
        ((0.0, 0), (2.0, 3 * 10**9), 150.0),
    ],
)
def test_share(first, second, percent):
    assert usage.share(first, second) == percent


@pytest.mark.parametrize(
    "vcpus, limit, percent",
    [(1, None, 100.0), (2, {"period": 100000, "quota": 25000}, 50.0), (1, {"period": 1000, "quota": 4000}, 100.0)],
)
def test_ceiling(vcpus, limit, percent):
    assert usage.ceiling(vcpus, limit) == percent


def test_machines_that_go_away_meanwhile_are_left_out(mocker):
    here, gone = mocker.Mock(), mocker.Mock()
    here.info.side_effect = [(1, 0, 0, 1, 0), (1, 0, 0, 1, 10**9)]
    here.blockStats.side_effect = [(1, 0, 1, 0, 0), (9, 4096, 1, 8192, 0)]
    gone.blockStats.return_value = (1, 0, 1, 0, 0)
    gone.info.side_effect = [(1, 0, 0, 1, 0), usage.libvirt.libvirtError("gone")]
    facts = {uuid: {"vcpus": 1, "cpu_limit": None, "usage": None} for uuid in ("a", "b")}
    usage.watch({"a": here, "b": gone}, facts, 0.01)
    assert (
        facts["a"]["usage"]["cpu"] > 0
        and facts["a"]["usage"]["disk"]["write"] >= 2 * facts["a"]["usage"]["disk"]["read"] > 0
    )
    assert facts["b"]["usage"] is None


@pytest.mark.parametrize(
    "first, second, seconds, bytes_a_second",
    [
        ((0, 0), (2000, 500), 2.0, {"read": 1000, "write": 250}),
        ((9, 0), (0, 0), 1.0, None),
        ((0, 0), (0, 0), 0.0, None),
    ],
)
def test_rate(first, second, seconds, bytes_a_second):
    assert usage.rate(first, second, seconds) == bytes_a_second


def test_what_was_ordered_and_what_libvirt_has(mocker):
    performance = {"cpu_shares": 300, "disk_io": {"read_iops": 100}}
    assert usage.ordered({"wishes": {"performance": performance}}, {"vcpus": 2, "memory": 1, "mac": "x"}) == {
        "vcpus": 2,
        "memory": 1,
        **performance,
    }
    assert usage.ordered({"wishes": {}}, {"vcpus": 2, "memory": 1}) == {"vcpus": 2, "memory": 1}
    domain = mocker.Mock()
    domain.schedulerParametersFlags.return_value = {
        "cpu_shares": 300,
        "vcpu_period": 100000,
        "vcpu_quota": 17592186044415,
    }
    domain.blockIoTune.return_value = {"read_iops_sec": 100, "write_iops_sec": 0, "group_name": "x"}
    live = {"vcpus": 1, "memory": 2**20}
    assert usage.given(domain, live) == {**live, "cpu_shares": 300, "cpu_limit": None, "disk_io": {"read_iops": 100}}
    domain.schedulerParametersFlags.return_value["vcpu_quota"] = 25000
    assert usage.given(domain, live)["cpu_limit"] == {"period": 100000, "quota": 25000}
    domain.blockIoTune.side_effect = usage.libvirt.libvirtError("no such call")
    assert "disk_io" not in usage.given(domain, live) and usage.given(domain, None) is None
