#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: overlay_probe
short_description: Probe the network between hosts
description:
  - Tries UDP in both directions and TCP to the others' SSH servers, measures how large packets can be and how long a
    round trip takes, and tries which transports the kernel supports.
  - It must run on all hosts at the same time, because they answer each other. The role P(virtuoso.grid.overlay#role)
    does that.
  - Changes nothing.
version_added: 0.2.0
author: [virtuoso.grid contributors (@virtuoso-grid)]
options:
  name:
    description: The name of this host for the others.
    type: str
    required: true
  peers:
    description: The other hosts.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the host.
        type: str
        required: true
      address:
        description: Its address.
        type: str
        required: true
      port:
        description: Port of its SSH server.
        type: int
        default: 22
  seconds:
    description: How long to wait for hosts that don't answer.
    type: float
    default: 6
  port:
    description: The UDP port to probe with.
    type: int
    default: 4788
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
- name: Probe
  virtuoso.grid.overlay_probe:
    name: provider1
    peers:
      - {name: home1, address: 198.18.0.11}
      - {name: provider2, address: 198.18.0.22}
"""

RETURN = r"""
probe:
  description: What was found.
  returned: success
  type: dict
  contains:
    name: {description: "O(name).", type: str, returned: always}
    kernel: {description: "For each transport that needs the kernel null, or why it can't be used.", type: dict,
      returned: always}
    addresses: {description: IPv4 addresses of this host., type: list, returned: always}
    host_key: {description: Public key of the SSH server here., type: str, returned: always}
    paths:
      description:
        - For each other host whether UDP comes (C(udp_in)) and goes (C(udp_out)), whether its SSH server answers
          (C(ssh)) or why not (C(ssh_trouble)), C(rtt) in seconds, C(path_mtu) in bytes.
      type: dict
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import Spec
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError, Result
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.site.probe import probe
from ansible_collections.virtuoso.grid.plugins.module_utils._run import run_module

PEER = {
    "name": {"type": "str", "required": True},
    "address": {"type": "str", "required": True},
    "port": {"type": "int", "default": 22},
}
OPTIONS: Spec = {
    "argument_spec": {
        "name": {"type": "str", "required": True},
        "peers": {"type": "list", "elements": "dict", "required": True, "options": PEER},
        "seconds": {"type": "float", "default": 6},
        "port": {"type": "int", "default": 4788},
    },
    "supports_check_mode": True,
}
_HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"


def work(module: AnsibleModule) -> Result:
    """Probe; also in check mode, because it changes nothing."""
    params = module.params
    try:
        found = probe(params["name"], params["peers"], seconds=params["seconds"], port=params["port"])
    except OSError as exc:
        raise GridError(
            "probe_failed",
            f"UDP port {params['port']} can't be used: {exc}",
            tried="probe the other hosts",
            remedy="Free the port, or wait for the other play to end",
        ) from exc
    try:
        with open(_HOST_KEY, encoding="ascii") as file:
            key = " ".join(file.read().split()[:2])
    except OSError:
        key = ""
    return {"changed": False, "probe": {**found, "host_key": key}}


def main() -> None:
    """Entry point."""
    run_module(work, **OPTIONS)


if __name__ == "__main__":
    main()
