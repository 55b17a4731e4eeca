#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images from another host's image store."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_transfer
short_description: Get images from another host's image store
version_added: 0.1.0
description:
  - Has images in the store of the host that it runs on, the destination, which gets them itself from the source host by rsync over SSH.
  - Only layers that are not here are sent, all in one connection. A layer is verified by its digest before it has its name, and an
    image's manifest is written last. A transfer that was interrupted goes on where it ended when the module runs again.
  - Nothing is sent where all layers are here.
author: virtuoso.grid contributors (@virtuoso-grid)
extends_documentation_fragment: [virtuoso.grid.depot, virtuoso.grid.attributes]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
requirements:
  - rsync and ssh on the destination
  - "on the source: rsync, and a user who may read its image store through C(rrsync -ro); the role virtuoso.grid.image_server makes it"
options:
  source:
    description: The host that has the images, as the destination reaches it.
    type: dict
    required: true
    suboptions:
      host:
        description: Name or address.
        type: str
        required: true
      port:
        description: Port of its SSH server.
        type: int
        default: 22
      user:
        description: The user who may read the image store. Its forced command decides which directory that is.
        type: str
        default: virtuoso
      path:
        description: The source's depot, for messages.
        type: path
        default: /var/lib/virtuoso
      identity_file:
        description: The destination's private key for it.
        type: path
        default: /etc/virtuoso/transfer_ed25519
      known_hosts_file:
        description: The file that has the source's host key. An unknown key is refused.
        type: path
        default: /etc/virtuoso/known_hosts
      name:
        description: What messages call the source, by default O(source.host).
        type: str
  images:
    description:
      - The images, each with C(name) (its reference, C(name@version)), C(digest) and C(size), as the module M(virtuoso.grid.image) returns them.
      - C(manifest) is the image's manifest; without it the source's is read.
    type: list
    elements: dict
    required: true
  progress_file:
    description: A file on the host to which the progress of long work is appended, a line of JSON for each step.
    type: path
"""

EXAMPLES = r"""
- name: Get an image from the image server
  virtuoso.grid.image_transfer:
    source:
      name: home1
      host: 198.18.0.11
    images:
      - name: tiny@55337247a89f
        digest: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
        size: 18341888
"""

RETURN = r"""
images:
  description: One result for each item of O(images), in its order.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: The image's reference.
      type: str
      returned: always
    changed:
      description: Whether something was done, or would be in check mode.
      type: bool
      returned: always
    actions:
      description: C(transfer), C(name) where only the manifest was missing, or nothing.
      type: list
      elements: str
      returned: on success
    digest:
      description: The digest of the image's layer.
      type: str
      returned: on success
    path:
      description: The layer's file here.
      type: str
      returned: on success
    transferred:
      description: Bytes of the layer that came over the network.
      type: int
      returned: on success
    seconds:
      description: How long the transfer of all images of this call took, verification included; 0 where nothing was to be done.
      type: float
      returned: on success
    msg:
      description: What went wrong.
      type: str
      returned: on failure
    failure:
      description: The same for programs; C(failure.code) tells the kinds apart.
      type: dict
      returned: on failure
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import DEPOT, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.depot import Depot
from ansible_collections.virtuoso.grid.plugins.module_utils._image.progress import Progress
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer import get, look
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer_plan import Item, parse_item, parse_source
from ansible_collections.virtuoso.grid.plugins.module_utils._run import attempt, run_module

SOURCE = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "default": 22},
    "user": {"type": "str", "default": "virtuoso"},
    "path": {"type": "path", "default": "/var/lib/virtuoso"},
    "identity_file": {"type": "path", "default": "/etc/virtuoso/transfer_ed25519"},
    "known_hosts_file": {"type": "path", "default": "/etc/virtuoso/known_hosts"},
    "name": {"type": "str"},
}
ARGUMENTS = merge(
    DEPOT,
    {
        "argument_spec": {
            "source": {"type": "dict", "required": True, "options": SOURCE},
            "images": {"type": "list", "elements": "dict", "required": True},
            "progress_file": {"type": "path"},
        },
        "supports_check_mode": True,
    },
)


def work(module: AnsibleModule) -> t.Dict[str, t.Any]:
    """Get what is missing of all images at once, then tell of each."""
    params = module.params
    depot = Depot(params["path"])
    source = parse_source(params["source"])
    names = [str(entry.get("name"))[:130] for entry in params["images"]]
    outcomes: t.Dict[int, t.Any] = {}
    items: t.Dict[int, Item] = {}
    for number, entry in enumerate(params["images"]):
        try:
            items[number] = parse_item(entry)
            todo = look(depot, items[number])
            outcomes[number] = {"actions": todo, "transferred": 0, "seconds": 0.0}
        except GridError as exc:
            outcomes[number] = exc
    due = [number for number, item in items.items() if outcomes[number]["actions"]]
    if due and not module.check_mode:
        outcomes.update(
            zip(due, get(depot, source, [items[number] for number in due], Progress(params["progress_file"], source.name)))
        )

    def tell(number: int) -> t.Dict[str, t.Any]:
        outcome = outcomes[number]
        if isinstance(outcome, GridError):
            raise outcome
        digest = items[number].digest
        return {**outcome, "changed": bool(outcome["actions"]), "digest": digest, "path": depot.layer_path(digest)}

    images = [
        attempt(name, lambda number=number: tell(number), kind="image", tried=f"get it from {source.name}")
        for number, name in enumerate(names)
    ]
    diffs = [diff(f"image {image['name']}", None, {"digest": image["digest"]}) for image in images if image["changed"]]
    return {"changed": any(image["changed"] for image in images), "images": images, "diff": diffs}


def main() -> None:
    """Run the module."""
    run_module(work, **ARGUMENTS)


if __name__ == "__main__":
    main()
