#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: overlay
short_description: Apply a host's part of the networks
description:
  - Makes bridges, links, forwarding entries and rules on a host as the filter P(virtuoso.grid.overlay_plan#filter)
    planned them, and removes those that it made earlier and that are no longer planned. It leaves everything else on
    the host alone.
  - A change is one transaction. If a step fails, the host goes back to the part before. The host also goes back by
    itself unless the module is called with O(state=confirmed) within O(rollback) seconds. So a change that cuts off the
    controller is undone.
  - The role P(virtuoso.grid.overlay#role) installs what the module needs and calls it in the right order.
version_added: 0.2.0
author: [virtuoso.grid contributors (@virtuoso-grid)]
options:
  state:
    description:
      - V(present) applies O(part), V(absent) removes everything.
      - V(prepared) makes the keys that the links in O(part) need on this host, and changes nothing else.
      - V(confirmed) keeps the last change, because the controller still reaches the host.
      - V(followed) updates the host's part for machines that start or move (O(machines)) and for machines that no
        longer exist (O(macs)). Use it before a machine starts or moves.
      - V(announced) announces on the network those machines with O(macs) that are on this host. Use it after a machine
        has started or moved.
    type: str
    default: present
    choices: [present, absent, prepared, confirmed, followed, announced]
  part:
    description: The host's part, as planned.
    type: dict
  name:
    description: The name of this host in the parts of the others. Required with V(followed).
    type: str
  machines:
    description: Machines that start or move.
    type: list
    elements: dict
    default: []
    suboptions:
      provider:
        description: The host that the machine is on from now on.
        type: str
        required: true
      network:
        description: Its network.
        type: str
        required: true
      mac:
        description: Its MAC address.
        type: str
        required: true
  macs:
    description: MAC addresses of machines to announce, or of machines that no longer exist.
    type: list
    elements: str
    default: []
  uri:
    description: Connection URI of a provider's libvirt, to define the networks there for machines. Without it libvirt
      is left alone.
    type: str
  rollback:
    description: Seconds after which an unconfirmed change is undone. With V(0) it never is.
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
- name: Apply the host's part
  virtuoso.grid.overlay:
    part: "{{ plan.phases[0][inventory_hostname] }}"

- name: Keep the change
  virtuoso.grid.overlay:
    state: confirmed

- name: Prepare for a machine that moves to provider2
  virtuoso.grid.overlay:
    state: followed
    name: "{{ inventory_hostname }}"
    machines:
      - {provider: provider2, network: lan, mac: "02:00:00:00:00:01"}

- name: Remove all networks from the host
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
  description: The host's part after the change.
  returned: when O(state) is V(present), V(absent) or V(followed)
  type: dict
unconfirmed:
  description: Whether the host goes back to the part before unless O(state=confirmed) follows.
  returned: when O(state) is V(present) or V(absent)
  type: bool
keys:
  description: Public keys by device, of the links whose SSH client is this host, and of C(wireguard).
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
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import Spec
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import Result
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan.guests import follow
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.site import part as site
from ansible_collections.virtuoso.grid.plugins.module_utils._run import run_module

OPTIONS: Spec = {
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


def work(module: AnsibleModule) -> Result:
    """Bring the host to the wanted state."""
    params, check_mode = module.params, module.check_mode
    if params["state"] == "prepared":
        found, made = site.keys(params["part"], check_mode)
        return {"changed": made, "keys": found, "actions": ["make keys"] if made else []}
    if params["state"] == "confirmed":
        # Not a change of its own: the change that it confirms was reported already.
        return {"changed": False, "actions": [] if check_mode or not site.confirm() else ["confirm"]}
    if params["state"] == "announced":
        announced = [] if check_mode else site.announce(site.current(), set(params["macs"]))
        return {"changed": False, "actions": [f"announce {mac}" for mac in announced]}
    if params["state"] == "followed":
        # It changes no link, so the controller can't be cut off.
        return site.bring(
            follow(site.current(), params["name"], params["machines"], params["macs"]),
            check_mode=check_mode,
            rollback=0,
        )
    part = params["part"] if params["state"] == "present" else {}
    result = site.bring(part, check_mode=check_mode, rollback=params["rollback"])
    # An earlier run that was cut off may have left an unconfirmed change as well.
    result["unconfirmed"] = site.unconfirmed()
    if params["uri"]:
        from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.site import libvirt_networks

        bridges = {network["name"]: network["bridge"] for network in part.get("networks") or []}
        steps = libvirt_networks.bring(params["uri"], bridges, check_mode)
        actions = t.cast("list[str]", result["actions"]) + steps
        return {**result, "actions": actions, "changed": bool(actions)}
    return result


def main() -> None:
    """Entry point."""
    run_module(work, **OPTIONS)


if __name__ == "__main__":
    main()
