# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network that machines join by default: what a change of its settings leads to."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import nat_network as net

WANTED = {
    "name": "virtuoso",
    "bridge": "virtuoso0",
    "address": "192.168.140.1",
    "prefix": 24,
    "dhcp_start": "192.168.140.2",
    "dhcp_end": "192.168.140.254",
}
# As libvirt 9 returns it
DEFINED = """<network connections='1'>
  <name>virtuoso</name><uuid>7c63b4c6-1f5b-4f0a-9d53-1b3c6a6f0f0e</uuid>
  <forward mode='nat'><nat><port start='1024' end='65535'/></nat></forward>
  <bridge name='virtuoso0' stp='off' delay='0'/><mac address='52:54:00:3b:2a:1c'/>
  <ip address='192.168.140.1' prefix='24'><dhcp><range start='192.168.140.2' end='192.168.140.254'/></dhcp></ip>
</network>"""
NETMASK = DEFINED.replace("prefix='24'", "netmask='255.255.255.0'")
ROUTED = DEFINED.replace("mode='nat'", "mode='route'")
NOW = net.read(DEFINED)


def plan(*states, defined=None, autostart=True, guests=0, restart=False, **change):
    """:param states: the network as it is now, and as it is defined, where these are not as wanted first."""
    now, known = states or (NOW, defined or NOW)
    return net.decide(net.checked({**WANTED, **change}), known, now, autostart, guests, restart)


@pytest.mark.parametrize("definition", [DEFINED, NETMASK])
def test_the_same_is_the_same_however_libvirt_writes_it(definition):
    assert net.read(definition) == WANTED and plan(net.read(definition), net.read(definition)) == ([], False)


def test_what_is_written_is_read_again():
    assert net.read(net.text(WANTED)) == WANTED


def test_a_host_that_has_none():
    assert plan(None, None, autostart=False) == (["define", "start", "autostart"], False)
    assert plan(None, NOW, autostart=False) == (["start", "autostart"], False)


RANGE = {"dhcp_start": "192.168.140.100", "dhcp_end": "192.168.140.200"}
OTHER = {"address": "192.168.150.1", "dhcp_start": "192.168.150.2", "dhcp_end": "192.168.150.9"}


@pytest.mark.parametrize("guests", [0, 3])
def test_another_range_takes_effect_at_once(guests):
    assert plan(guests=guests, **RANGE) == (["range"], False)


@pytest.mark.parametrize("change", [OTHER, {"prefix": 25, "dhcp_end": "192.168.140.99"}, {"bridge": "br7"}])
def test_another_change_waits_where_it_would_cut_machines_off(change):
    assert plan(**change) == (["define", "restart"], False)
    assert plan(guests=2, **change) == (["define"], True)
    assert plan(guests=2, restart=True, **change) == (["define", "restart"], False)
    # Again: it is defined already, and still waits.
    later = net.read(net.text(net.checked({**WANTED, **change})))
    assert plan(guests=2, defined=later, **change) == ([], True)
    assert plan(guests=2, defined=later, restart=True, **change) == (["restart"], False)


def test_a_new_range_does_not_leave_an_older_change_waiting():
    waiting = net.read(net.text(net.checked({**WANTED, **OTHER})))
    assert plan(guests=2, defined=waiting, **RANGE) == (["define", "range"], False)
    assert plan(guests=2, defined=waiting) == (["define"], False)


def test_a_network_of_another_kind_becomes_ours():
    assert plan(net.read(ROUTED), net.read(ROUTED)) == (["define", "restart"], False)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../x"},
        {"bridge": "a-name-of-16-char"},
        {"address": "192.168.140.0"},
        {"address": "192.168.140.255"},
        {"address": "fd00::1"},
        {"address": "x"},
        {"prefix": 31},
        {"prefix": 33},
        {"dhcp_start": "192.168.140.9", "dhcp_end": "192.168.140.8"},
        {"dhcp_end": "192.168.141.9"},
        {"dhcp_start": None},
    ],
)
def test_what_can_not_be_is_refused(change):
    with pytest.raises(GridError) as caught:
        net.checked({**WANTED, **change})
    assert caught.value.code == "invalid_network" and "virtuoso_provider_network" in caught.value.remedy


def test_who_is_on_it():
    card = "<interface type='network'><source network='{}'/><target dev='{}'/></interface>"
    domain = "<domain><name>{}</name><devices>{}</devices></domain>"
    running = [
        domain.format("web1", card.format("virtuoso", "vnet0") + card.format("lan", "vnet1")),
        domain.format("db1", card.format("lan", "vnet2")),
        domain.format("bare", ""),
    ]
    assert net.guests_of(running, "virtuoso") == [("web1", "vnet0")]
