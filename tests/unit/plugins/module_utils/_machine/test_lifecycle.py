# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is changed in a running machine."""

from __future__ import annotations

import libvirt
import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.life import lifecycle


def test_the_disk_s_limits_are_told_live_and_those_not_named_are_lifted(mocker):
    machine = mocker.Mock()
    lifecycle.Machine._change_live(machine, "disk_io", {"read_bytes": 2**20})
    told = {"read_bytes_sec": 2**20, "write_bytes_sec": 0, "read_iops_sec": 0, "write_iops_sec": 0}
    machine.domain.setBlockIoTune.assert_called_once_with("vda", told, libvirt.VIR_DOMAIN_AFFECT_LIVE)


@pytest.mark.parametrize(
    ("field", "after", "told"),
    [
        ("cpu_shares", 300, {"cpu_shares": 300}),
        ("cpu_limit", {"period": 50000, "quota": 10000}, {"vcpu_period": 50000, "vcpu_quota": 10000}),
        ("cpu_limit", None, {"vcpu_quota": -1}),
    ],
)
def test_the_scheduler_is_told_live(mocker, field, after, told):
    machine = mocker.Mock()
    lifecycle.Machine._change_live(machine, field, after)
    machine.domain.setSchedulerParametersFlags.assert_called_once_with(told, libvirt.VIR_DOMAIN_AFFECT_LIVE)
