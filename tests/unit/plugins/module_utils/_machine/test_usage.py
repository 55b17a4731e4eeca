# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine gets of the processors, and the most that it may."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._machine import usage


@pytest.mark.parametrize(
    "first, second, percent",
    [((10.0, 0), (12.0, 10**9), 50.0), ((0.0, 5), (1.0, 5), 0.0), ((1.0, 5), (1.0, 9), None), ((1.0, 5), (2.0, 4), None), ((0.0, 0), (2.0, 3 * 10**9), 150.0)],
)
def test_share(first, second, percent):
    assert usage.share(first, second) == percent


@pytest.mark.parametrize(
    "vcpus, limit, percent", [(1, None, 100.0), (2, {"period": 100000, "quota": 25000}, 50.0), (1, {"period": 1000, "quota": 4000}, 100.0)]
)
def test_ceiling(vcpus, limit, percent):
    assert usage.ceiling(vcpus, limit) == percent


def test_machines_that_go_away_meanwhile_are_left_out(mocker):
    here, gone = mocker.Mock(), mocker.Mock()
    here.info.side_effect = [(1, 0, 0, 1, 0), (1, 0, 0, 1, 10**9)]
    gone.info.side_effect = [(1, 0, 0, 1, 0), usage.libvirt.libvirtError("gone")]
    facts = {uuid: {"vcpus": 1, "cpu_limit": None, "usage": None} for uuid in ("a", "b")}
    usage.watch({"a": here, "b": gone}, facts, 0.01)
    assert facts["a"]["usage"]["cpu"] > 0 and facts["b"]["usage"] is None
