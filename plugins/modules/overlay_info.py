#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: overlay_info
short_description: A host's networks, links and traffic
description:
  - Returns a host's part of the overlay, the state of its links and why each has its transport, and who sent how much
    to whom.
version_added: 0.2.0
author: [virtuoso.grid contributors (@virtuoso-grid)]
options:
  mark:
    description: Whether to reset the counters after they were read.
    type: bool
    default: false
  names:
    description: Names of machines by MAC address, as M(virtuoso.grid.order_info) returns them.
    type: dict
    default: {}
  kernel:
    description: Whether to find out which transports the host can use, by making and removing an interface.
    type: bool
    default: false
  needs:
    description:
      - Names of Debian packages. With this option the module also returns which of them are installed, and what else
        the host has of what links need.
    type: list
    elements: str
extends_documentation_fragment:
  - virtuoso.grid.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
seealso:
  - module: virtuoso.grid.overlay
"""

EXAMPLES = r"""
- name: Look at the links
  virtuoso.grid.overlay_info:
  register: overlay
"""

RETURN = r"""
part:
  description: The part that was applied last.
  returned: success
  type: dict
links:
  description:
    - Its links, each with C(device), C(network), C(peer), C(role), C(transport), C(reason), C(state), and C(rx_bytes),
      C(tx_bytes), C(rx_packets), C(tx_packets).
    - A host's end of an EVPN network has C(peer=*), C(vni), C(peers), C(sessions) (C(peer), C(address), C(state),
      C(seconds) of each of its BGP sessions), C(vteps) (the hosts that it floods to), and C(macs) (each MAC address
      that BGP has announced, with its C(vtep)).
  returned: success
  type: list
  elements: dict
traffic:
  description:
    - C(bytes) and C(packets) of each pair of MAC addresses, C(source) and C(destination), counted on the sender's host;
      with C(source_name) and C(destination_name), null if O(names) has none. Pairs that were silent for an hour are
      forgotten.
  returned: success
  type: list
  elements: dict
kernel:
  description: For each transport null, or why it can't be used.
  returned: when O(kernel) is true
  type: dict
needs:
  description: What the host has of what links need.
  returned: when O(needs) is given
  type: dict
  contains:
    packages:
      description: Those of O(needs) that are installed.
      type: list
      elements: str
    account:
      description: Whether the account of the SSH taps is as it should be.
      type: bool
    penalties:
      description: Whether the SSH server delays clients that fail often. Null if there is no SSH server.
      type: bool
since:
  description: When the counters were reset with O(mark), if they were since the host's last boot.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import Spec
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import Result
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan import matrix
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.site import needs, traffic
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.site import part as site
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.site.probe import kernel
from ansible_collections.virtuoso.grid.plugins.module_utils._run import run_module
from ansible_collections.virtuoso.grid.plugins.module_utils._times import now

OPTIONS: Spec = {
    "argument_spec": {
        "mark": {"type": "bool", "default": False},
        "names": {"type": "dict", "default": {}},
        "kernel": {"type": "bool", "default": False},
        "needs": {"type": "list", "elements": "str"},
    },
    "supports_check_mode": True,
}


def work(module: AnsibleModule) -> Result:
    """Read everything, then reset the counters if asked to."""
    part = site.current()
    pairs = matrix.named(traffic.matrix(), module.params["names"])
    result: Result = {
        "changed": False,
        "part": part,
        "links": traffic.links(part),
        "traffic": pairs,
        "since": traffic.since(),
    }
    if module.params["kernel"]:
        result["kernel"] = kernel()
    if module.params["needs"] is not None:
        result["needs"] = needs.needs(module.params["needs"])
    if module.params["mark"] and not module.check_mode:
        traffic.mark([link["device"] for link in part["links"]], now())
    return result


def main() -> None:
    """Entry point."""
    run_module(work, **OPTIONS)


if __name__ == "__main__":
    main()
