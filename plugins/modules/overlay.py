#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: overlay
short_description: Bring a host to its part of the networks
description:
  - Makes bridges, links, forwarding entries and rules on a host as the filter P(virtuoso.grid.overlay_plan#filter)
    planned them, and removes those that it made before and that are not planned any more. What others made is left
    alone.
  - It is one transaction. Where a step fails the host goes back to the part before. So it does by itself where
    O(state=confirmed) doesn't come within O(rollback) seconds, because the controller has lost its way to the host.
  - The role P(virtuoso.grid.overlay#role) installs what it needs and calls it in the right order.
version_added: 0.2.0
author: [virtuoso.grid contributors (@virtuoso-grid)]
options:
  state:
    description:
      - V(present) brings the host to O(part), V(absent) to none.
      - V(prepared) makes the keys of the SSH links in O(part) that begin here, and nothing else.
      - V(confirmed) says that the controller still reaches the host.
      - V(followed) changes the host's part to where O(machines) are now, and are no more (O(macs)); before a machine
        starts or moves.
      - V(announced) tells the network where the machines with O(macs) are, those that are here; after a machine has
        started or moved.
    type: str
    default: present
    choices: [present, absent, prepared, confirmed, followed, announced]
  part:
    description: The host's part, as planned.
    type: dict
  name:
    description: What the part of the others calls this host; needed with V(followed).
    type: str
  machines:
    description: Machines that come or move.
    type: list
    elements: dict
    default: []
    suboptions:
      provider:
        description: The host that they are on from now on.
        type: str
        required: true
      network:
        description: Their network.
        type: str
        required: true
      mac:
        description: Their MAC address.
        type: str
        required: true
  macs:
    description: MAC addresses of machines to announce, or of machines that are gone.
    type: list
    elements: str
    default: []
  uri:
    description: Of a provider's libvirt, where the networks are defined for machines. Without it libvirt is left alone.
    type: str
  rollback:
    description: Seconds after which an unconfirmed change is undone. V(0) for never.
    type: int
    default: 60
extends_documentation_fragment:
  - virtuoso.grid.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
seealso:
  - module: virtuoso.grid.overlay_info
  - module: virtuoso.grid.overlay_probe
"""

EXAMPLES = r"""
- name: Bring the host to its part
  virtuoso.grid.overlay:
    part: "{{ plan.phases[0][inventory_hostname] }}"

- name: Keep it
  virtuoso.grid.overlay:
    state: confirmed

- name: A machine is to move to provider2
  virtuoso.grid.overlay:
    state: followed
    name: "{{ inventory_hostname }}"
    machines:
      - {provider: provider2, network: lan, mac: "02:00:00:00:00:01"}

- name: Take it away
  virtuoso.grid.overlay:
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be in check mode.
  returned: success
  type: list
  elements: str
part:
  description: The part that the host has now.
  returned: when O(state) is V(present), V(absent) or V(followed)
  type: dict
unconfirmed:
  description: Whether the host goes back to the part before unless O(state=confirmed) comes.
  returned: when O(state) is V(present) or V(absent)
  type: bool
keys:
  description: Public keys of the SSH links that begin here, by device, and C(wireguard).
  returned: when O(state=prepared)
  type: dict
failure:
  description:
    - What is wrong, for programs. Its C(code) is among C(foreign_interface), C(invalid_part), C(overlay_failed),
      C(key_failed).
  returned: failure
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.guests import follow
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.site import part as site
from ansible_collections.virtuoso.grid.plugins.module_utils._run import run_module

OPTIONS = {
    "argument_spec": {
        "state": {
            "type": "str",
            "default": "present",
            "choices": ["present", "absent", "prepared", "confirmed", "followed", "announced"],
        },
        "part": {"type": "dict"},
        "name": {"type": "str"},
        "machines": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {key: {"type": "str", "required": True} for key in ("provider", "network", "mac")},
        },
        "macs": {"type": "list", "elements": "str", "default": []},
        "uri": {"type": "str"},
        "rollback": {"type": "int", "default": 60},
    },
    "required_if": [
        ("state", "present", ("part",)),
        ("state", "prepared", ("part",)),
        ("state", "followed", ("name",)),
    ],
    "supports_check_mode": True,
}


def work(module: AnsibleModule) -> t.Dict[str, t.Any]:
    """One of the states."""
    params, check_mode = module.params, module.check_mode
    if params["state"] == "prepared":
        found, made = site.keys(params["part"], check_mode)
        return {"changed": made, "keys": found, "actions": ["make keys"] if made else []}
    if params["state"] == "confirmed":
        # Part of the same change: it has been told of already.
        return {"changed": False, "actions": [] if check_mode or not site.confirm() else ["confirm"]}
    if params["state"] == "announced":
        told = [] if check_mode else site.announce(site.current(), set(params["macs"]))
        return {"changed": False, "actions": [f"announce {mac}" for mac in told]}
    if params["state"] == "followed":
        # It touches no link, so there is no way back to the controller to be lost.
        return site.bring(
            follow(site.current(), params["name"], params["machines"], params["macs"]),
            check_mode=check_mode,
            rollback=0,
        )
    part = params["part"] if params["state"] == "present" else {}
    result = site.bring(part, check_mode=check_mode, rollback=params["rollback"])
    # Also where a play before this one was cut off.
    result["unconfirmed"] = site.unconfirmed()
    if params["uri"]:
        from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.site import libvirt_networks

        bridges = {network["name"]: network["bridge"] for network in result["part"]["networks"]}
        steps = libvirt_networks.bring(params["uri"], bridges, check_mode)
        result["actions"] += steps
        result["changed"] = result["changed"] or bool(steps)
    return result


def main() -> None:
    """Entry point."""
    run_module(work, **OPTIONS)


if __name__ == "__main__":
    main()
