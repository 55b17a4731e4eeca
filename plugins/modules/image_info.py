#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's image store holds."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_info
short_description: List what a host's image store holds
version_added: 0.1.0
description:
  - Lists the images with their versions, the layers, which of them machines use, and the free space, of the image store
    on the host that it runs on.
author: virtuoso.grid contributors (@virtuoso-grid)
extends_documentation_fragment: [virtuoso.grid.depot, virtuoso.grid.attributes]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  names:
    description: Only images of these names.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Look into the image store
  virtuoso.grid.image_info:
  register: store

- name: Show each image's reference
  ansible.builtin.debug:
    msg: "{{ store.images | map(attribute='reference') }}"
"""

RETURN = r"""
images:
  description: The manifests, in alphabetical order.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: The image's name.
      type: str
      returned: always
    version:
      description: Its version.
      type: str
      returned: always
    reference:
      description: C(name@version).
      type: str
      returned: always
    layers:
      description: Digests of the layers that it is made of, the first at the bottom.
      type: list
      elements: str
      returned: always
    digest:
      description: The digest of the topmost layer.
      type: str
      returned: always
    path:
      description: The file of the topmost layer.
      type: str
      returned: always
    complete:
      description: Whether all layers are there.
      type: bool
      returned: always
    virtual_size:
      description: The disk's size in bytes.
      type: int
      returned: always
    size:
      description: The layers' size in bytes.
      type: int
      returned: always
    user:
      description: The user to log in as.
      type: str
      returned: always
    python:
      description: The Python interpreter in the image.
      type: str
      returned: always
    recipe_digest:
      description: The digest of what it was made of.
      type: str
      returned: always
    created:
      description: When it was made, in UTC.
      type: str
      returned: always
layers:
  description: All layers, also those that no image names.
  type: list
  elements: dict
  returned: always
  contains:
    digest:
      description: The layer's digest.
      type: str
      returned: always
    path:
      description: Its file.
      type: str
      returned: always
    size:
      description: The file's size in bytes.
      type: int
      returned: always
    parent:
      description: The digest of the layer below. Null for the lowest, and for one whose index can't be read, which also
        gives a warning.
      type: str
      returned: always
    virtual_size:
      description: The disk's size in bytes.
      type: int
      returned: always
    used:
      description: Whether a machine's disk on this host lies on it.
      type: bool
      returned: always
used:
  description: Digests of the layers that disks of machines on this host lie on, directly or with layers between. For
    O(virtuoso.grid.image#module:in_use).
  type: list
  elements: str
  returned: always
space:
  description: C(total) and C(free) bytes of the file system that the store lies on; null where there is no store.
  type: dict
  returned: always
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import DEPOT, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError, Result
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import reference
from ansible_collections.virtuoso.grid.plugins.module_utils._run import run_module

ARGUMENTS = merge(DEPOT, {"argument_spec": {"names": {"type": "list", "elements": "str"}}, "supports_check_mode": True})


def about(module: AnsibleModule, depot: Depot, digest: str) -> Result:
    """The parent and the disk's size of a layer, from its index."""
    try:
        index = depot.index(digest)
    except GridError as exc:
        module.warn(str(exc))
        return {"parent": None, "virtual_size": None}
    return {"parent": index.parent, "virtual_size": index.virtual_size}


def work(module: AnsibleModule) -> Result:
    """Read the store."""
    depot = Depot(module.params["path"])
    manifests, warnings = depot.read_manifests()
    for warning in warnings:
        module.warn(warning)
    names = module.params["names"]
    used = depot.layers_of_machines()
    space = None
    if os.path.isdir(depot.images):
        facts = os.statvfs(depot.images)
        space = {"total": facts.f_blocks * facts.f_frsize, "free": facts.f_bavail * facts.f_frsize}
    return {
        "changed": False,
        "images": [
            {
                **manifest,
                "reference": reference(manifest["name"], manifest["version"]),
                "digest": manifest["layers"][-1],
                "path": depot.layer_path(manifest["layers"][-1]),
                "complete": depot.complete(manifest),
            }
            for manifest in manifests
            if names is None or manifest["name"] in names
        ],
        "layers": [
            {**layer, **about(module, depot, layer["digest"]), "used": layer["digest"] in used}
            for layer in depot.read_layers()
        ],
        "used": sorted(used),
        "space": space,
    }


def main() -> None:
    """Run the module."""
    run_module(work, **ARGUMENTS)


if __name__ == "__main__":
    main()
