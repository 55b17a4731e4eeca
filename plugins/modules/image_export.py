#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers of images for machines that start before their image is there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_export
short_description: Export layers of images to machines that page from them
version_added: 0.2.0
author: virtuoso.grid contributors (@virtuoso-grid)
description:
  - Exports layers, each with those below it, read-only by NBD over TLS. Both ends have certificates of the grid's
    private authority.
  - On a host that has the layer, the export is a I(source). On a provider, with C(upstream), it is a I(pager), which
    reads from a source and keeps what it has read in a cache. Machines page from the pager of their provider. A pager
    that has lost its source can be given another.
  - An export is a transient unit of systemd (C(virtuoso-export-*)) that runs a program of QEMU as a user of its own. It
    stays when the play ends, and ends with a reboot. V(absent) stops exports that have no clients.
options:
  state:
    description:
      - V(present) exports the layers.
      - V(absent) stops exports that have no clients. One that is in use stays; that is not an error.
    type: str
    choices: [present, absent]
    default: present
  exports:
    description:
      - The exports, each a dictionary of C(digest), the topmost layer, and for a pager C(upstream), with C(host),
        C(port) and C(virtual_size) as this module returned them on the source.
      - Without it, V(absent) covers all exports of the host.
      - C(ahead) is a dictionary as M(virtuoso.grid.image_transfer) takes it for C(source). With it, a pager that is
        started fetches at once what a boot of the image reads, while the play continues. If that isn't known, it
        fetches the disk's first 32 MiB.
    type: list
    elements: dict
  learn:
    description:
      - What boots have read, each a dictionary of C(digest) and C(read) as this module returned it for a pager. It is
        kept beside the layers that this host has, for C(ahead) of later pagers.
    type: list
    elements: dict
    default: []
  address:
    description: The address at which other hosts reach this one, for the result. The host's certificate must have it.
    type: str
  ports:
    description: Ports to choose from; the firewall must admit them from the grid's hosts.
    type: str
    default: 10809-10872
  tls_dir:
    description: Directory with C(ca-cert.pem), and certificate and key as C(server-cert.pem), C(server-key.pem),
      C(client-cert.pem), C(client-key.pem).
    type: path
    default: /etc/pki/qemu
  force:
    description: Whether V(absent) also stops exports that are in use. Machines that page from them are paused.
    type: bool
    default: false
requirements:
  - systemd
  - qemu-utils, and for pagers qemu-system-common
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
extends_documentation_fragment:
  - virtuoso.grid.attributes
  - virtuoso.grid.depot
seealso:
  - module: virtuoso.grid.machine
  - module: virtuoso.grid.image_transfer
"""

EXAMPLES = r"""
- name: Export a layer on the image server
  virtuoso.grid.image_export:
    address: 198.18.0.11
    exports:
      - digest: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
  delegate_to: home1
  register: sources

- name: Page from it
  virtuoso.grid.image_export:
    address: 198.18.0.21
    exports:
      - digest: "{{ sources.exports[0].digest }}"
        upstream: "{{ sources.exports[0] }}"
        ahead: {name: home1, host: 198.18.0.11}
  register: pagers

- name: Stop what is not in use any more
  virtuoso.grid.image_export:
    state: absent
"""

RETURN = r"""
exports:
  description: One result for each export.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: The layer's digest., type: str, returned: always}
    changed: {description: "Whether something was done, or would be in check mode.", type: bool, returned: always}
    actions: {description: "C(export), C(replace) where a pager has another source, C(stop export), C(learn).", type:
      list, elements: str, returned: success}
    digest: {description: The layer's digest; the name of the export., type: str, returned: success}
    kind: {description: V(source) or V(pager)., type: str, returned: success}
    state: {description: V(exported) or V(absent)., type: str, returned: success}
    host: {description: "O(address).", type: str, returned: success}
    port: {description: Its port., type: int, returned: success}
    virtual_size: {description: Bytes of the disk., type: int, returned: when O(state=present)}
    clients: {description: "The number of clients, if it was not stopped for them.", type: int, returned: when
      O(state=absent)}
    read:
      description: "What machines have read through a stopped pager, in the order of the first reads: runs of blocks of
        64 KiB, each the number of the first block and how many."
      type: list
      elements: list
      returned: where a pager was stopped
    blocks: {description: "The number of blocks in the record.", type: int, returned: for O(learn)}
    failed: {description: Present and true where it failed., type: bool, returned: failure}
    msg: {description: What is wrong and what to do., type: str, returned: failure}
    failure:
      description:
        - The same for programs. Its C(code) is among C(export_failed), C(source_lost) (a pager doesn't reach its
          source), C(layer_missing), C(layer_corrupted), C(no_port), C(invalid_digest), C(invalid_export),
          C(invalid_record), C(disk_full), C(timed_out).
      type: dict
      returned: failure
"""

import functools
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import DEPOT, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import Result
from ansible_collections.virtuoso.grid.plugins.module_utils._image.paging.export import Exports
from ansible_collections.virtuoso.grid.plugins.module_utils._image.paging.plan import parse_export
from ansible_collections.virtuoso.grid.plugins.module_utils._names import check
from ansible_collections.virtuoso.grid.plugins.module_utils._pki import TLS_DIR
from ansible_collections.virtuoso.grid.plugins.module_utils._run import attempt, run_module
from ansible_collections.virtuoso.grid.plugins.module_utils._sockets import parse_ports

OPTIONS = {
    "argument_spec": {
        "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
        "exports": {"type": "list", "elements": "dict"},
        "learn": {"type": "list", "elements": "dict", "default": []},
        "address": {"type": "str"},
        "ports": {"type": "str", "default": "10809-10872"},
        "tls_dir": {"type": "path", "default": TLS_DIR},
        "force": {"type": "bool", "default": False},
    },
    "required_if": [("state", "present", ("exports", "address"))],
    "supports_check_mode": True,
}


def work(module: AnsibleModule) -> Result:
    """Start or stop exports, and keep boot records; each by itself."""
    params = module.params
    check_mode = module.check_mode
    exports = Exports(params["path"], params["tls_dir"], params["address"], parse_ports(params["ports"]))
    wanted = params["exports"]

    def have(entry: t.Mapping[str, object]) -> Result:
        return exports.have(parse_export(entry), check_mode)

    def learn(entry: t.Mapping[str, object]) -> Result:
        return exports.learn(check("digest", entry.get("digest")), entry.get("read"), check_mode)

    with exports.locked():
        if params["state"] == "present":
            results = [
                attempt(
                    str(entry.get("digest"))[:80],
                    functools.partial(have, entry),
                    kind="layer",
                    tried="export it",
                )
                for entry in wanted
            ]
        else:
            names = None if wanted is None else {str(entry.get("digest")) for entry in wanted}
            results = [
                attempt(
                    unit.digest,
                    functools.partial(exports.drop, name, unit, params["force"], check_mode),
                    kind="layer",
                    tried="stop its export",
                )
                for name, unit in exports.units().items()
                if names is None or unit.digest in names
            ]
    results += [
        attempt(
            str(entry.get("digest"))[:80],
            functools.partial(learn, entry),
            kind="layer",
            tried="keep what a boot of it reads",
        )
        for entry in params["learn"]
    ]
    return {"changed": any(result["changed"] for result in results), "exports": results}


def main() -> None:
    """Run the module."""
    run_module(work, **merge(DEPOT, OPTIONS))


if __name__ == "__main__":
    main()
