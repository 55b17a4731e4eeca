#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: overlay_info
short_description: A host's networks, links and traffic
description:
  - Tells a host's part of the overlay, how its links are and why each has its transport, and who sent how much to whom.
version_added: 0.2.0
author: [virtuoso.grid contributors (@virtuoso-grid)]
options:
  mark:
    description: Begin to count anew, after what has been counted was read.
    type: bool
    default: false
  names:
    description: Names of machines by their MAC addresses, as M(virtuoso.grid.order_info) knows them from the store.
    type: dict
    default: {}
  kernel:
    description: Find out as well which transports can be had here, by making and removing an interface.
    type: bool
    default: false
  needs:
    description:
      - Names of Debian packages. Tells as well which of them are installed, and what else there is of what links need.
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
  description: What the host was brought to last.
  returned: success
  type: dict
links:
  description:
    - Its links, each with C(device), C(network), C(peer), C(role), C(transport), C(reason), C(state), and C(rx_bytes),
      C(tx_bytes), C(rx_packets), C(tx_packets).
    - A host's end of an EVPN network has C(peer=*), C(vni), C(peers), C(sessions) (C(peer), C(address), C(state),
      C(seconds) of each BGP session of its own), C(vteps) (the hosts that it floods to), and C(macs) (each MAC address
      that BGP told of, with its C(vtep)).
  returned: success
  type: list
  elements: dict
traffic:
  description:
    - Bytes and packets of each pair of MAC addresses, C(source) and C(destination), counted where the sender is; with
      C(source_name) and C(destination_name), nothing where O(names) has none. Pairs that were silent for an hour are
      forgotten.
  returned: success
  type: list
  elements: dict
kernel:
  description: For each transport nothing, or why it can't be had.
  returned: when O(kernel) is true
  type: dict
needs:
  description: What there is of what links need.
  returned: when O(needs) is given
  type: dict
  contains:
    packages:
      description: Those of O(needs) that are installed.
      type: list
      elements: str
    account:
      description: Whether the account of the SSH taps is there, and as it should be.
      type: bool
    penalties:
      description: Whether the SSH server makes whoever fails often wait; nothing where there is no SSH server.
      type: bool
since:
  description: When counting began, if O(mark) was used since the host's last boot.
  returned: success
  type: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.plan import matrix
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.site import needs, traffic
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.site import part as site
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.site.probe import kernel
from ansible_collections.virtuoso.grid.plugins.module_utils._run import run_module
from ansible_collections.virtuoso.grid.plugins.module_utils._times import now

OPTIONS = {
    "argument_spec": {
        "mark": {"type": "bool", "default": False},
        "names": {"type": "dict", "default": {}},
        "kernel": {"type": "bool", "default": False},
        "needs": {"type": "list", "elements": "str"},
    },
    "supports_check_mode": True,
}


def work(module: AnsibleModule) -> t.Dict[str, t.Any]:
    """Look, then mark where asked to."""
    part = site.current()
    pairs = matrix.named(traffic.matrix(), module.params["names"])
    result = {"changed": False, "part": part, "links": traffic.links(part), "traffic": pairs, "since": traffic.since()}
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
