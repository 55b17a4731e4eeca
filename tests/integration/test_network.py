# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A provider's network whose settings change: at once where libvirt can, and nothing cuts machines off unasked."""

from __future__ import annotations

import re
import typing as t

import pytest
from conftest import Row, shell, task

HOST = "provider1"
NAME = "it-net"
FIRST = {"name": NAME, "bridge": "itnet0", "address": "198.18.181.1", "prefix": 24}
RANGE = {"dhcp_start": "198.18.181.2", "dhcp_end": "198.18.181.99"}
GUEST = f"""<domain type='qemu'><name>{NAME}</name><memory unit='MiB'>32</memory><os><type arch='x86_64'>hvm</type></os>
<devices><interface type='network'><source network='{NAME}'/></interface></devices></domain>"""


def network(check: bool = False, **more: t.Any) -> Row:
    return task(HOST, "virtuoso.grid.provider_network", {**FIRST, **RANGE, **more}, check=check)


def plugged() -> bool:
    """Whether the guest's card is on the network's bridge."""
    return shell(HOST, "bridge link show | grep -c 'master itnet0' || true") == "1"


@pytest.fixture(scope="module", autouse=True)
def _away() -> t.Iterator[None]:
    remove = f"virsh -q destroy {NAME}; virsh -q net-destroy {NAME}; virsh -q net-undefine {NAME}; true"
    shell(HOST, remove)
    yield
    shell(HOST, remove)


def test_settings_that_change_under_a_running_machine():
    assert network(check=True)["actions"] == ["define", "start", "autostart"]
    assert network()["actions"] == ["define", "start", "autostart"] and network()["changed"] is False
    shell(HOST, f"cat >/tmp/it-net.xml <<'END'\n{GUEST}\nEND\nvirsh -q create /tmp/it-net.xml; rm /tmp/it-net.xml")
    assert plugged()

    narrow = {"dhcp_start": "198.18.181.50", "dhcp_end": "198.18.181.60"}
    assert network(**narrow)["actions"] == ["range"] and plugged()
    for when in ("", "--inactive"):
        assert re.findall(r"range start='(\S+)'", shell(HOST, f"virsh net-dumpxml {when} {NAME}")) == ["198.18.181.50"]
    assert network(**narrow)["changed"] is False

    moved = {"address": "198.18.182.1", "dhcp_start": "198.18.182.2", "dhcp_end": "198.18.182.99"}
    kept = network(**moved)
    assert kept["actions"] == ["define"] and kept["restart_required"] and kept["machines"] == [NAME]
    assert "virtuoso_provider_network_restart" in str(kept["warnings"])
    again = network(**moved)
    assert again["changed"] is False and again["restart_required"] and "198.18.181.1/" in shell(HOST, "ip -br addr")

    # Back, with yet another range: what waited doesn't come with the next start.
    assert network(dhcp_start="198.18.181.70", dhcp_end="198.18.181.80")["actions"] == ["define", "range"] and plugged()
    for when in ("", "--inactive"):
        assert re.findall(r"range start='(\S+)'", shell(HOST, f"virsh net-dumpxml {when} {NAME}")) == ["198.18.181.70"]
    assert network(**moved)["restart_required"]

    done = network(**moved, restart=True)
    assert done["actions"] == ["restart"] and not done["restart_required"] and plugged()
    assert "198.18.182.1/" in shell(HOST, "ip -br addr show itnet0") and network(**moved)["changed"] is False
