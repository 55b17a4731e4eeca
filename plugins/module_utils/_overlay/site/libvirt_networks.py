# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Defines the overlay's networks in libvirt. Machines join them by name, which is the same on every provider."""

from __future__ import annotations

import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.model import bridge_name

try:
    import libvirt
except ImportError:
    pass  # on hosts that aren't providers; there the functions that need it are never called


def text(name: str, bridge: str) -> str:
    """The XML of a network on an existing bridge (pure), see https://libvirt.org/formatnetwork.html."""
    root = ET.Element("network")
    ET.SubElement(root, "name").text = name
    ET.SubElement(root, "forward", mode="bridge")
    ET.SubElement(root, "bridge", name=bridge)
    return ET.tostring(root, encoding="unicode")


def read(definition: str) -> tuple[str | None, bool]:
    """The bridge in a network's XML, and whether the network is ours (pure). It is if its bridge has the name that we
    compute for it: libvirt before 9.7 keeps no title that could tell."""
    root = ET.fromstring(definition)
    bridge, forward = root.find("bridge"), root.find("forward")
    name = bridge.get("name") if bridge is not None else None
    return name, forward is not None and forward.get("mode") == "bridge" and name == bridge_name(
        root.findtext("name") or ""
    )


def decide(wanted: t.Mapping[str, str], there: t.Mapping[str, tuple[str | None, bool, bool]]) -> list[tuple[str, str]]:
    """The steps (action, name) that are needed (pure); actions are ``define``, ``start``, ``remove``.

    :param wanted: bridges by name of network.
    :param there: by name of network its bridge, whether it is active, whether it is ours.
    :raises GridError: ``network_name_taken``.
    """
    steps = [
        ("remove", name) for name, (dummy, dummy_active, own) in sorted(there.items()) if own and name not in wanted
    ]
    for name, bridge in sorted(wanted.items()):
        found, active, own = there.get(name, (None, False, True))
        if name in there and not own:
            raise GridError(
                "network_name_taken",
                f"libvirt has a network {name} that is somebody else's (bridge {found})",
                object=f"network {name}",
                tried="define it for machines",
                remedy="Name the network in virtuoso_networks otherwise, or remove that one",
            )
        if found != bridge:
            steps.append(("define", name))
        if found != bridge or not active:
            steps.append(("start", name))
    return steps


def look(conn: libvirt.virConnect) -> dict[str, tuple[str | None, bool, bool]]:
    """The networks that libvirt has, in the form that :func:`decide` takes."""
    found = {}
    for network in conn.listAllNetworks():
        bridge, own = read(network.XMLDesc())
        found[network.name()] = (bridge, bool(network.isActive()), own)
    return found


def bring(uri: str, wanted: t.Mapping[str, str], check_mode: bool) -> list[str]:
    """Define and start these networks, and remove others of ours.

    :param wanted: bridges by name of network. :returns: what was done.
    :raises GridError: ``network_name_taken``, ``libvirt_failed``.
    """
    try:
        conn = libvirt.open(uri)
        try:
            steps = decide(wanted, look(conn))
            for action, name in [] if check_mode else steps:
                if action == "define":
                    conn.networkDefineXML(text(name, wanted[name])).setAutostart(True)
                elif action == "start":
                    conn.networkLookupByName(name).create()
                else:
                    network = conn.networkLookupByName(name)
                    if network.isActive():
                        network.destroy()
                    network.undefine()
        finally:
            conn.close()
    except libvirt.libvirtError as exc:
        raise GridError(
            "libvirt_failed", f"libvirt: {exc}", tried="define networks", remedy="See that libvirtd runs, and run again"
        ) from exc
    return [f"{action} network {name}" for action, name in steps]
