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
  - Runs on the destination and gets images from the source's store into its own, directly over TLS or SSH.
  - Only what the destination lacks is sent, over one connection. Blocks that any layer of the destination has already
    are copied from there, so a new version of an image costs what is new in it.
  - The module measures the link with the first half MiB, and then compresses or not, whichever is faster. The
    compressor adapts its level to the link.
  - Each block is verified by its hash. A layer gets its name only when it is whole, and an image's manifest is written
    last. After an interruption the next run continues and gets only what is missing.
  - Where the destination can't reach the source, the action plugin joins them through the controller's connections to
    both, which needs Ansible's C(ssh) connection. The data stay encrypted from end to end, and none are stored on the
    controller.
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
        description: The destination's private key for the source.
        type: path
        default: /etc/virtuoso/transfer_ed25519
      known_hosts_file:
        description: The file that has the source's host key. An unknown key is refused.
        type: path
        default: /etc/virtuoso/known_hosts
      name:
        description: How messages name the source, by default O(source.host). To reach it through the controller, this
          must be its name in the inventory.
        type: str
      key_name:
        description: The name under which the source's host key is known, by default O(source.host).
        type: str
      tls_port:
        description: The port at which the source sends images over TLS, which is tried first. V(0) uses SSH only.
        type: int
        default: 10808
      tls_dir:
        description: The directory with the authority's certificate and the destination's own, under the names that QEMU
          gives them.
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
      - The most that the transfer may use, in bytes a second such as V(10 MiB), or as a share of the link such as
        V(40 %).
      - If machines here page from the image (M(virtuoso.grid.image_export)), a share is a limit only while they boot.
      - No limit when left out.
    type: str
  route:
    description:
      - With V(direct) the destination connects to the source itself, with V(relay) through the controller.
      - V(auto) tries V(direct), then V(relay) if the source can't be reached.
    type: str
    choices: [auto, direct, relay]
    default: auto
  progress_file:
    description: A file on the host to which progress is appended as lines of JSON.
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
      description: C(none) if all layers were here, C(delta) if parts of them were, otherwise C(whole).
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
      description: The measured speed of the link in bytes a second, null if it wasn't measured.
      type: int
      returned: on success
    transferred:
      description: Bytes that came over the connection, without its encryption.
      type: int
      returned: on success
    content:
      description: Bytes of the disk that they held.
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
      description: How long it took, with verification; 0 if nothing had to be done.
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
import functools
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import DEPOT, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError, Result
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
    """Start to connect, if a layer is missing; the rest of this module is loaded meanwhile. An error is reported later,
    when the connection is needed."""
    layers = os.path.join(path, "images", "layers")
    if all(os.path.exists(os.path.join(layers, layer_file(item.digest))) for item in items):
        return None
    with contextlib.suppress(GridError):
        return Link(source)
    return None


def work(module: AnsibleModule) -> Result:
    """Get the missing layers of all images, over one connection; the result of each."""
    params = module.params
    source = parse_source(params["source"])
    cap = parse_cap(params["bandwidth"])
    outcomes: t.Dict[int, t.Union[Result, GridError]] = {}
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
        # Loaded while the connection is made
        from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot
        from ansible_collections.virtuoso.grid.plugins.module_utils._image.transfer.fetch import Account, get, look
        from ansible_collections.virtuoso.grid.plugins.module_utils._progress import QUIET_SECONDS, Progress

        depot = Depot(params["path"])
        for number, item in items.items():
            try:
                outcomes[number] = Account().result(look(depot, item), 0.0)
            except GridError as exc:
                outcomes[number] = exc
        due = [number for number in items if _actions(outcomes[number])]
        if due and not module.check_mode:
            progress = Progress(params["progress_file"], source.name, quiet=QUIET_SECONDS)
            outcomes.update(zip(due, get(depot, source, [items[number] for number in due], progress, cap, begun=link)))
    return results(params, source, {number: item.digest for number, item in items.items()}, outcomes)


def _actions(outcome: t.Union[Result, GridError]) -> bool:
    """Whether something has to be done for the image."""
    return not isinstance(outcome, GridError) and bool(outcome["actions"])


def results(
    params: t.Mapping[str, t.Any],
    source: Source,
    digests: t.Mapping[int, str],
    outcomes: t.Mapping[int, t.Union[Result, GridError]],
) -> Result:
    """The module's result.

    :param digests: of the images' topmost layers. :param outcomes: result or error of each image.
    """
    from ansible_collections.virtuoso.grid.plugins.module_utils._diff import diff

    def one(number: int) -> Result:
        outcome = outcomes[number]
        if isinstance(outcome, GridError):
            raise outcome
        path = os.path.join(params["path"], "images", "layers", layer_file(digests[number]))
        return {**outcome, "changed": bool(outcome["actions"]), "digest": digests[number], "path": path}

    names = [str(entry.get("name"))[:130] for entry in params["images"]]
    images = [
        attempt(name, functools.partial(one, number), kind="image", tried=f"get it from {source.name}")
        for number, name in enumerate(names)
    ]
    diffs = [diff(f"image {image['name']}", None, {"digest": image["digest"]}) for image in images if image["changed"]]
    return {"changed": any(image["changed"] for image in images), "images": images, "diff": diffs}


def main() -> None:
    """Run the module."""
    run_module(work, **ARGUMENTS)


if __name__ == "__main__":
    main()
