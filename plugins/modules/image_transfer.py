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
  - Has images in the store of the host that it runs on, the destination, which gets them itself from the source host
    over SSH.
  - Only what the destination lacks is sent, all in one connection. It knows what a layer consists of from the layer's
    index, so blocks that other layers here have, in whatever place, are copied from those, and a new version costs what
    is new in it.
  - How the rest is sent is decided by measuring the link with its first half MiB. It is compressed by a compressor that
    adapts its level to the link, and not at all where the link is faster.
  - Each block is verified by its hash. A layer has its name only when it is whole, and an image's manifest is written
    last. A transfer that was interrupted goes on when the module runs again, and only what is missing comes.
  - Where the destination can't reach the source, the action plugin joins them through the controller's own connections
    to both, which needs Ansible's C(ssh) connection. The data stay encrypted from end to end, and nothing of them lands
    on the controller.
author: virtuoso.grid contributors (@virtuoso-grid)
extends_documentation_fragment: [virtuoso.grid.depot, virtuoso.grid.attributes]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
requirements:
  - ssh and zstd on the destination; for TLS a certificate of the grid's authority, which the role
    virtuoso.grid.provider makes
  - "on the source: zstd, and a user whose forced command is the sender of this collection; the role
    virtuoso.grid.image_server makes both"
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
        description: What messages call the source, by default O(source.host). It is the source's name in the inventory,
          if it is to be reached through the controller.
        type: str
      key_name:
        description: The name under which the source's host key is known, by default O(source.host).
        type: str
      tls_port:
        description: The port at which the source gives images by TLS, which is tried first; V(0) where only SSH leads
          to it.
        type: int
        default: 10808
      tls_dir:
        description: The directory with the authority's certificate and the destination's own, under QEMU's names for
          them.
        type: path
        default: /etc/pki/qemu
  images:
    description:
      - The images, each with C(name) (its reference, C(name@version)), C(digest) and C(size), as the module
        M(virtuoso.grid.image) returns them.
      - C(manifest) is the image's manifest; without it the source's is read.
    type: list
    elements: dict
    required: true
  bandwidth:
    description:
      - The most that the transfer takes, bytes a second such as V(10 MiB), or a part of what the link gives such as
        V(40 %).
      - A part is kept to only while machines here boot from a pager of the image (M(virtuoso.grid.image_export)), where
        there is one.
      - No limit when left out.
    type: str
  route:
    description:
      - V(direct) has the destination reach the source itself, V(relay) has it reach it through the controller.
      - V(auto) tries the first, and the second where the source can't be reached.
    type: str
    choices: [auto, direct, relay]
    default: auto
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
    method:
      description: C(none) where all layers were here, C(delta) where parts of them were, C(whole).
      type: str
      returned: on success
    why:
      description: Why this method, in words.
      type: str
      returned: on success
    compression:
      description: C(none), or C(zstd -LEVEL).
      type: str
      returned: on success
    compression_why:
      description: Why this compression, in words; null where nothing was sent.
      type: str
      returned: on success
    link:
      description: Bytes a second that the link was measured to take, null where it wasn't measured.
      type: int
      returned: on success
    transferred:
      description: Bytes that came over the connection, before its encryption.
      type: int
      returned: on success
    content:
      description: Bytes of the disk that they stand for.
      type: int
      returned: on success
    copied:
      description: Bytes of the disk that came from other layers of this host.
      type: int
      returned: on success
    resumed:
      description: Bytes of the disk that an interrupted transfer had brought.
      type: int
      returned: on success
    transport:
      description: C(tls) or C(ssh), null where there was no connection.
      type: str
      returned: on success
    route:
      description: C(direct), or C(relay) through the controller.
      type: str
      returned: when the action plugin ran
    seconds:
      description: How long it took, verification included; 0 where nothing was to be done.
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

import contextlib
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import DEPOT, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import layer_file
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.link import Link
from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.plan import (
    TLS_PORT,
    Item,
    Source,
    parse_cap,
    parse_item,
    parse_source,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._pki import TLS_DIR
from ansible_collections.virtuoso.grid.plugins.module_utils._run import attempt, run_module

SOURCE = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "default": 22},
    "user": {"type": "str", "default": "virtuoso"},
    "path": {"type": "path", "default": "/var/lib/virtuoso"},
    "identity_file": {"type": "path", "default": "/etc/virtuoso/transfer_ed25519"},
    "known_hosts_file": {"type": "path", "default": "/etc/virtuoso/known_hosts"},
    "name": {"type": "str"},
    "key_name": {"type": "str", "no_log": False},
    "tls_port": {"type": "int", "default": TLS_PORT},
    "tls_dir": {"type": "path", "default": TLS_DIR},
}
ARGUMENTS = merge(
    DEPOT,
    {
        "argument_spec": {
            "source": {"type": "dict", "required": True, "options": SOURCE},
            "images": {"type": "list", "elements": "dict", "required": True},
            "bandwidth": {"type": "str"},
            "route": {"type": "str", "choices": ["auto", "direct", "relay"], "default": "auto"},
            "progress_file": {"type": "path"},
        },
        "supports_check_mode": True,
    },
)


def begin(path: str, source: Source, items: t.Iterable[Item]) -> t.Optional[Link]:
    """The connection, where a layer isn't here; it is made while this process is still busy with itself. What fails is
    told once it is needed."""
    layers = os.path.join(path, "images", "layers")
    if all(os.path.exists(os.path.join(layers, layer_file(item.digest))) for item in items):
        return None
    with contextlib.suppress(GridError):
        return Link(source)
    return None


def work(module: AnsibleModule) -> t.Dict[str, t.Any]:
    """Get what is missing of all images at once, then tell of each."""
    params = module.params
    source = parse_source(params["source"])
    cap = parse_cap(params["bandwidth"])
    outcomes: t.Dict[int, t.Any] = {}
    items: t.Dict[int, Item] = {}
    for number, entry in enumerate(params["images"]):
        try:
            items[number] = parse_item(entry)
        except GridError as exc:
            outcomes[number] = exc
    with contextlib.ExitStack() as stack:
        link = None if module.check_mode else begin(params["path"], source, items.values())
        if link is not None:
            stack.enter_context(link)
        # Python reads these while the connection is made
        from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot
        from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.fetch import Account, get, look
        from ansible_collections.virtuoso.grid.plugins.module_utils._progress import QUIET_SECONDS, Progress

        depot = Depot(params["path"])
        for number, item in items.items():
            try:
                outcomes[number] = Account().result(look(depot, item), 0.0)
            except GridError as exc:
                outcomes[number] = exc
        due = [
            number for number in items if not isinstance(outcomes[number], GridError) and outcomes[number]["actions"]
        ]
        if due and not module.check_mode:
            progress = Progress(params["progress_file"], source.name, quiet=QUIET_SECONDS)
            outcomes.update(zip(due, get(depot, source, [items[number] for number in due], progress, cap, begun=link)))
    return told(params, source, {number: item.digest for number, item in items.items()}, outcomes)


def told(
    params: t.Mapping[str, t.Any], source: Source, digests: t.Mapping[int, str], outcomes: t.Mapping[int, t.Any]
) -> t.Dict[str, t.Any]:
    """The module's result of how each image came."""
    from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff

    def tell(number: int) -> t.Dict[str, t.Any]:
        outcome = outcomes[number]
        if isinstance(outcome, GridError):
            raise outcome
        path = os.path.join(params["path"], "images", "layers", layer_file(digests[number]))
        return {**outcome, "changed": bool(outcome["actions"]), "digest": digests[number], "path": path}

    names = [str(entry.get("name"))[:130] for entry in params["images"]]
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
