# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records that planning works on: hosts, machines, probe results, and the rows of a plan."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host.records import Part


class Host(t.TypedDict, total=False):
    """A host of the grid. ``port``: of its SSH server. ``reached``: it answered in this run. ``resolved``: addresses of
    the others, by their names, as this one knows them."""

    address: str
    resolved: t.Dict[str, str]
    port: int
    site: str
    reached: bool


class Machine(t.TypedDict, total=False):
    """A machine; ``provider`` is the host that it is on, ``network`` its first network, ``mac`` its address there."""

    name: str
    uuid: str
    provider: t.Optional[str]
    network: str
    site: t.Optional[str]
    mac: t.Optional[str]
    extra_networks: t.Optional[t.List[str]]


class Path(t.TypedDict, total=False):
    """What a host found about the way to another.

    ``address``: that of the other host. ``udp_in``, ``udp_out``: UDP comes from it, goes to it. ``udp_rtt``, ``rtt``:
    seconds of a round trip, by UDP and by the best means. ``path_mtu``: bytes. ``ssh``: its SSH server answers;
    otherwise ``ssh_trouble`` says why it doesn't.
    """

    address: str
    udp_in: bool
    udp_out: bool
    udp_rtt: t.Optional[float]
    path_mtu: t.Optional[int]
    ssh: bool
    ssh_trouble: t.Optional[str]
    rtt: t.Optional[float]


class Probe(t.TypedDict, total=False):
    """What the module ``overlay_probe`` found on one host.

    ``kernel``: by transport ``None``, or why it isn't available. ``addresses``: own IPv4 addresses. ``paths``: by the
    other host's name. ``host_key``: public key of its SSH server.
    """

    name: str
    kernel: t.Dict[str, t.Optional[str]]
    addresses: t.List[str]
    paths: t.Dict[str, Path]
    host_key: str


Facts = t.Mapping[str, Probe]
"""Probe results by host."""


class LinkRow(t.TypedDict):
    """A link of a plan, for the report and the store. ``kind``: ``tree``, ``shortcut`` or ``evpn``. ``rtt``: seconds.
    ``vni``: ``None`` on a mesh, where the network's counts."""

    network: str
    between: t.List[str]
    sites: t.List[str]
    kind: str
    transport: str
    reason: str
    rtt: t.Optional[float]
    mtu: int
    vni: t.Optional[int]


class NetworkRow(t.TypedDict):
    """A network of a plan, for the report and the store. ``mtu``: bytes of its frames' content."""

    name: str
    home: str
    vni: int
    topology: str
    mtu: int
    sites: t.List[str]


class Plan(t.TypedDict):
    """``phases``: one after the other, each a part by host."""

    phases: t.List[t.Dict[str, Part]]
    links: t.List[LinkRow]
    networks: t.List[NetworkRow]
