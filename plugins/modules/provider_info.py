#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: the facts and the free resources of a provider."""

from __future__ import annotations

DOCUMENTATION = r"""
module: provider_info
short_description: Facts and free resources of a provider
version_added: 0.1.0
author: virtuoso.grid contributors (@virtuoso-grid)
description:
  - Returns the facts of a provider that placement needs, read through one connection to its libvirt.
options:
  probe:
    description:
      - Whether to try KVM with a guest instead of returning what was found when the provider was set up. Takes up to
        ten seconds where KVM is present and broken.
    type: bool
    default: false
  peers:
    description:
      - Hosts at other sites to measure the latency to, by the time of a TCP handshake with their SSH server.
    type: list
    elements: dict
    default: []
    suboptions:
      site:
        description: The site that the host is at.
        type: str
        required: true
      address:
        description: Its address.
        type: str
        required: true
      port:
        description: A port that is open there.
        type: int
        default: 22
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
extends_documentation_fragment:
  - virtuoso.grid.attributes
  - virtuoso.grid.hypervisor
  - virtuoso.grid.depot
seealso:
  - module: virtuoso.grid.placement
"""

EXAMPLES = r"""
- name: Read the provider's facts
  virtuoso.grid.provider_info:
  register: looked
"""

RETURN = r"""
provider:
  description: The provider. Sizes are bytes.
  returned: success
  type: dict
  contains:
    hostname: {description: Its host name., type: str, returned: always}
    architecture: {description: Its processors' architecture., type: str, returned: always, sample: x86_64}
    cpus: {description: Number of processors., type: int, returned: always}
    cpus_allocated: {description: Sum of the virtual processors of all domains defined on it., type: int, returned:
      always}
    load: {description: Load average of the last minute., type: float, returned: always}
    memory: {description: Memory., type: int, returned: always}
    memory_free: {description: Memory that is available without swapping., type: int, returned: always}
    memory_allocated: {description: Sum of the largest memory of all domains defined on it., type: int, returned:
      always}
    disk: {description: Size of the depot's file system., type: int, returned: always}
    disk_free: {description: Free space of the depot's file system., type: int, returned: always}
    disk_allocated: {description: Sum of the virtual sizes of the machines' disks., type: int, returned: always}
    virtualization: {description: V(kvm) or V(qemu)., type: str, returned: always}
    kvm_reason: {description: The reason for RV(provider.virtualization)., type: str, returned: always}
    machine_types: {description: "QEMU's q35 machine types, oldest first.", type: list, elements: str, returned: always,
      sample: [pc-q35-7.1, pc-q35-7.2]}
    libvirt_version: {description: Version of libvirt., type: str, returned: always, sample: 9.0.0}
    qemu_version: {description: Version of QEMU., type: str, returned: always, sample: 7.2.22}
    networks: {description: Names of its active libvirt networks., type: list, elements: str, returned: always}
    images: {description: "Images in its depot, as C(digest) and C(names).", type: list, elements: dict, returned:
      always}
    latencies: {description: "C(seconds) of a round trip to each C(site) of O(peers) that answered.", type: list,
      elements: dict, returned: always}
    machines: {description: "Machines on it, as C(uuid), C(name) and C(state).", type: list, elements: dict, returned:
      always}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import DEPOT, HYPERVISOR, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import capabilities
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import connect
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.latency import latencies
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.files.disk import Depot
from ansible_collections.virtuoso.grid.plugins.module_utils._run import Result, run_module

PEER = {
    "site": {"type": "str", "required": True},
    "address": {"type": "str", "required": True},
    "port": {"type": "int", "default": 22},
}
OPTIONS = {
    "argument_spec": {
        "probe": {"type": "bool", "default": False},
        "peers": {"type": "list", "elements": "dict", "default": [], "options": PEER},
    }
}


def work(module: AnsibleModule) -> Result:
    """The module's work."""
    depot = Depot(module.params["path"])
    depot.require()
    kind, reason = capabilities.probe() if module.params["probe"] else capabilities.virtualization()
    with connect(module.params["uri"]) as hypervisor:
        facts = capabilities.facts(hypervisor.conn)
    seen = {
        **facts,
        **depot.space(),
        "images": capabilities.images(depot.path),
        "virtualization": kind,
        "kvm_reason": reason,
    }
    return {"changed": False, "provider": {**seen, "latencies": latencies(module.params["peers"])}}


def main() -> None:
    """The module."""
    run_module(work, supports_check_mode=True, **merge(HYPERVISOR, DEPOT, OPTIONS))


if __name__ == "__main__":
    main()
