#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of a host's image store."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image
short_description: Make, name and remove images of a host's image store
version_added: 0.1.0
description:
  - Has images in the store of the host that it runs on, from an empty disk, a file, a download or a list of packages.
  - An image is one compressed qcow2 file that depends on no other and is named by its SHA-256 digest, and a manifest that
    gives it a name and a version. Neither ever changes. Files appear under their final name only when whole and verified; what an
    interrupted run left is resumed or removed by the next one. Two runs at once for the same image make it once.
  - Files and downloads are not trusted. Their format is what the entry says, never guessed; they are refused where they name a backing
    file or an external data file, are encrypted, claim more than 64 TiB or are damaged.
  - A recipe of packages runs as root on the host while the image is built, and is trusted.
author: virtuoso.grid contributors (@virtuoso-grid)
extends_documentation_fragment: [virtuoso.grid.depot, virtuoso.grid.attributes]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
requirements:
  - qemu-img
  - "for images of packages: mmdebstrap, sfdisk, mke2fs, mtools, syslinux, zstd"
options:
  images:
    description:
      - The images. Each is served for itself; one that fails does not keep the others from being made.
      - C(name) is the image's name, C(version) its version, without which it is the first 12 digits of its recipe's digest.
      - C(user) is the user to log in as, C(python) the Python interpreter in the image; both are kept in the manifest for the inventory.
      - C(source) says what the image is made of, by its C(type). An entry with a C(version) or a C(digest) and without a source
        is an image that must be there already.
      - C(blank) is an empty disk of C(size).
      - C(file) is the image file C(path) on the host, in C(format) V(qcow2) (the default) or V(raw).
      - C(url) is a download of C(url) with the mandatory C(checksum) V(sha256:...), in C(format).
      - C(packages) is a recipe for a bootable disk with C(suite), C(size), C(packages), and optionally C(variant), C(mirrors), C(components), C(keep),
        C(files), C(commands), C(initramfs), C(modules) and C(cmdline). The file C(docs/images.md) of the collection describes it.
    type: list
    elements: dict
    required: true
  state:
    description:
      - V(present) has the images.
      - V(absent) removes their names, and those of their layers that neither another image nor a machine's disk on this host is made of.
        C(source) is then not needed; without C(version) all versions of the name go.
    type: str
    choices: [present, absent]
    default: present
  progress_file:
    description: A file on the host to which the progress of long work is appended, a line of JSON for each step.
    type: path
"""

EXAMPLES = r"""
- name: Have an empty disk and a downloaded image
  virtuoso.grid.image:
    images:
      - name: scratch
        version: "1"
        source: {type: blank, size: 10 GiB}
      - name: appliance
        user: admin
        source:
          type: url
          url: https://198.18.0.1/appliance.qcow2
          checksum: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

- name: Build an image of packages
  virtuoso.grid.image:
    images:
      - name: small
        source:
          type: packages
          suite: bookworm
          size: 1 GiB
          packages: [linux-image-cloud-amd64, initramfs-tools, systemd-sysv]

- name: Remove one version
  virtuoso.grid.image:
    images: [{name: scratch, version: "1"}]
    state: absent
"""

RETURN = r"""
images:
  description: One result for each item of O(images), in its order.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: The image's name.
      type: str
      returned: always
    changed:
      description: Whether something was done, or would be in check mode.
      type: bool
      returned: always
    actions:
      description: What was done, of C(create), C(import), C(download), C(build), C(name), C(describe), C(remove).
      type: list
      elements: str
      returned: on success
    reference:
      description: C(name@version).
      type: str
      returned: on success, present
    version:
      description: The version.
      type: str
      returned: on success, present
    digest:
      description: The digest of the image's layer, C(sha256:...). Null in check mode for an image that is not there yet.
      type: str
      returned: on success, present
    path:
      description: The layer's file.
      type: str
      returned: on success, present
    virtual_size:
      description: The disk's size in bytes, null while unknown.
      type: int
      returned: on success, present
    size:
      description: The file's size in bytes, null while unknown.
      type: int
      returned: on success, present
    user:
      description: The user to log in as.
      type: str
      returned: on success, present
    python:
      description: The Python interpreter in the image.
      type: str
      returned: on success, present
    recipe_digest:
      description: The digest of what the image is made of.
      type: str
      returned: on success, present
    removed:
      description: References that were removed.
      type: list
      elements: str
      returned: on success, absent
    removed_layers:
      description: Digests of layers that were removed.
      type: list
      elements: str
      returned: on success, absent
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
from ansible_collections.virtuoso.grid.plugins.module_utils._image.depot import Depot
from ansible_collections.virtuoso.grid.plugins.module_utils._image.ensure import ensure_absent, ensure_present, find_present
from ansible_collections.virtuoso.grid.plugins.module_utils._image.progress import Progress
from ansible_collections.virtuoso.grid.plugins.module_utils._image.tool import disk_errors
from ansible_collections.virtuoso.grid.plugins.module_utils._run import attempt, run_module

ARGUMENTS = merge(
    DEPOT,
    {
        "argument_spec": {
            "images": {"type": "list", "elements": "dict", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "progress_file": {"type": "path"},
        },
        "supports_check_mode": True,
    },
)


def work(module: AnsibleModule) -> t.Dict[str, t.Any]:
    """Serve each image for itself."""
    params = module.params
    depot = Depot(params["path"])
    progress = Progress(params["progress_file"])
    assumed: t.List[t.Dict[str, t.Any]] = []
    if not module.check_mode:
        with disk_errors(depot.images):
            depot.sweep()

    def one(entry: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
        if params["state"] == "absent":
            return ensure_absent(depot, entry, module.check_mode)
        if entry.get("source") is None and (entry.get("digest") or entry.get("version") is not None):
            return find_present(depot, entry)
        return ensure_present(depot, entry, progress.about(str(entry.get("name"))), module.check_mode, assumed)

    tried = {"present": "make the image", "absent": "remove the image"}[params["state"]]
    images = [
        attempt(str(entry.get("name"))[:80], lambda entry=entry: one(entry), kind="image", tried=tried)
        for entry in params["images"]
    ]
    diffs = [found for found in (image.pop("diff", None) for image in images) if found]
    return {"changed": any(image["changed"] for image in images), "images": images, "diff": diffs}


def main() -> None:
    """Run the module."""
    run_module(work, **ARGUMENTS)


if __name__ == "__main__":
    main()
