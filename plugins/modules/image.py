#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of a host's image store."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image
short_description: Make, capture, flatten, prune and remove images of a host's image store, and roll machines back to
  them
version_added: 0.1.0
description:
  - Makes images in the store of the host that it runs on, from an empty disk, a file, a download or a list of packages.
  - An image is a chain of layers and a manifest that gives it a name and a version. A layer is a qcow2 file with the
    blocks in which it differs from the layer below. It is named by a digest of what a guest sees of it, so that the
    same content is the same layer on every host. Neither layers nor manifests ever change. Files get their final names
    only when they are whole and verified; the next run resumes or removes what an interrupted one left. Two runs at
    once for the same image make it once.
  - Files and downloads are not trusted. Their format is what the entry says, never guessed. They are refused if they
    name a backing file or an external data file, are encrypted, claim more than 64 TiB or are damaged.
  - A recipe of packages runs as root on the host while the image is built, and is trusted.
author: virtuoso.grid contributors (@virtuoso-grid)
extends_documentation_fragment: [virtuoso.grid.depot, virtuoso.grid.hypervisor, virtuoso.grid.attributes]
attributes:
  check_mode:
    support: full
    details:
      - The layer that a running machine's disk would become is not known before the disk is copied. The entry is
        reported as changed, with a null C(digest) and, unless it was given, a null C(version).
  diff_mode:
    support: full
requirements:
  - qemu-img
  - "for machines (O(state=captured), O(state=rolled_back)): python3-libvirt"
  - "for images of packages: mmdebstrap, sfdisk, mke2fs, mtools, syslinux, zstd"
options:
  images:
    description:
      - The images. A failure affects only its own entry. Required except with O(state=pruned).
      - C(name) is the image's name. C(version) is its version, by default the first 12 digits of its recipe's digest.
      - C(user) is the user to log in as, C(python) the Python interpreter in the image; both are kept in the manifest
        for the inventory.
      - C(source) says what to make the image from; it has a C(type). Without a source, an entry with a C(version) or a
        C(digest) is an image that must be there already.
      - C(blank) is an empty disk of C(size).
      - C(file) is the image file C(path) on the host, in C(format) V(qcow2) (the default) or V(raw).
      - C(url) is a download of C(url) with the mandatory C(checksum), V(sha256:...) or V(sha512:...), or with the
        address of a list in place of the digits. Its content is in C(format) once it is unpacked.
      - C(packages) is a recipe for a bootable disk with C(suite), C(size), C(packages), and optionally C(variant),
        C(mirrors), C(components), C(keep), C(files), C(commands), C(initramfs), C(modules) and C(cmdline). The file
        C(docs/images.md) of the collection describes it.
      - With O(state=captured) an entry has C(name), C(machine) (uuid or name of a machine on this host), and optionally
        C(version), C(user) and C(python). C(version) is by default the first 12 digits of the new layer's digest, and
        C(user) and C(python) are those of the machine.
      - With O(state=flattened) an entry has C(name), C(version), and optionally C(new_version), by default the first 12
        digits of the new layer's digest.
      - With O(state=rolled_back) an entry has C(machine), C(name) and C(version).
    type: list
    elements: dict
  state:
    description:
      - V(present) makes the images that are missing.
      - V(absent) removes them, with those of their layers that no other image and no machine's disk on this host uses.
        C(source) is then not needed. Without C(version) all versions of the name are removed.
      - V(captured) stores the disks of machines on this host as versions. The blocks that differ from the layers below
        a disk become one new layer. Nothing is made if no block differs, or if a version of the name has this content
        already. A C(version) that was captured from the same machine stays as it is, and the machine isn't read again.
        A stopped machine's disk is read directly. A running machine keeps running, and QEMU copies its disk as it is at
        one moment; the guest's agent, if there is one, freezes the file systems for that moment.
      - V(flattened) stores the content of a version that has several layers as another version that has one.
      - V(pruned) removes layers that are used neither by images or machines' disks of this host nor listed in
        O(in_use). A layer that is being sent to another host stays until the next time.
      - V(rolled_back) puts machines back on a version of this host's store. The machine must be stopped. It gets a new
        disk on that version, not smaller than the old one. This is refused if the disk has content that no version in
        the store has, unless O(discard) is set.
    type: str
    choices: [present, absent, captured, flattened, pruned, rolled_back]
    default: present
  in_use:
    description:
      - Digests of layers that must not be pruned, because machines on other hosts use them.
      - M(virtuoso.grid.image_info) returns those of a host as RV(virtuoso.grid.image_info#module:used).
    type: list
    elements: str
    default: []
  discard:
    description: With O(state=rolled_back), whether changes that are in no version may be lost.
    type: bool
    default: false
  timeout:
    description: Seconds that the copy of a running machine's disk may take.
    type: int
    default: 3600
  progress_file:
    description: A file on the host to which progress is appended as lines of JSON.
    type: path
"""

EXAMPLES = r"""
- name: Make an empty disk and a downloaded image
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

- name: Store a machine's disk as the next version of its image
  virtuoso.grid.image:
    state: captured
    images: [{name: web, machine: web1, version: "2"}]

- name: Flatten that version to one layer
  virtuoso.grid.image:
    state: flattened
    images: [{name: web, version: "2", new_version: 2-flat}]

- name: Bring a stopped machine back to it
  virtuoso.grid.image:
    state: rolled_back
    images: [{machine: web1, name: web, version: "2"}]

- name: Remove layers that nothing needs
  virtuoso.grid.image:
    state: pruned
    in_use: "{{ groups['providers'] | map('extract', hostvars) | map(attribute='store.used') | flatten | unique }}"
"""

RETURN = r"""
images:
  description: One result for each item of O(images), in its order; none for O(state=pruned).
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
      description: >-
        What was done, of C(create), C(import), C(download), C(build), C(name), C(describe), C(remove), C(capture),
        C(flatten), C(roll back), C(define).
      type: list
      elements: str
      returned: on success
    reference:
      description: C(name@version).
      type: str
      returned: on success, but for absent
    version:
      description: The version.
      type: str
      returned: on success, but for absent
    digest:
      description: The digest of the image's topmost layer, C(sha256:...). Null in check mode for an image that is not
        there yet.
      type: str
      returned: on success, but for absent
    path:
      description: The topmost layer's file.
      type: str
      returned: on success, but for absent
    virtual_size:
      description: The disk's size in bytes, null while unknown.
      type: int
      returned: on success, but for absent
    size:
      description: The size in bytes of the files of all its layers, null while unknown.
      type: int
      returned: on success, but for absent
    user:
      description: The user to log in as.
      type: str
      returned: on success, but for absent
    python:
      description: The Python interpreter in the image.
      type: str
      returned: on success, but for absent
    recipe_digest:
      description: The digest of what the image is made from.
      type: str
      returned: on success, but for absent
    layers:
      description: Digests of all its layers, the lowest first. Null in check mode for an image that is not there yet.
      type: list
      elements: str
      returned: on success, but for absent
    machine:
      description: The machine's uuid.
      type: str
      returned: on success, captured and rolled_back
    consistent:
      description: How consistent the captured disk is. V(stopped) is a disk of a stopped machine, V(filesystems) one
        with frozen file systems, V(crash) one as after a loss of power. Null where nothing was captured.
      type: str
      returned: on success, captured
    disk:
      description: The size in bytes of the machine's disk.
      type: int
      returned: on success, rolled_back
    previous:
      description: C(name) and C(digest) of the image that the machine was on.
      type: dict
      returned: on success, rolled_back
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
removed_layers:
  description: Digests of the layers that were removed, and names of other files in their directory.
  type: list
  elements: str
  returned: pruned
kept_layers:
  description: Layers that nothing needs and that are being sent to another host.
  type: list
  elements: str
  returned: pruned
freed:
  description: Bytes of the disk that were freed.
  type: int
  returned: pruned
"""

import contextlib
import functools
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import DEPOT, HYPERVISOR, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import disk_errors
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import Result
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.address import secrets_in
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.ensure import (
    ensure_absent,
    ensure_present,
    find_present,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.reference import Manifest
from ansible_collections.virtuoso.grid.plugins.module_utils._image.versions.flatten import ensure_flattened
from ansible_collections.virtuoso.grid.plugins.module_utils._image.versions.prune import ensure_pruned
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.versions.machines import opened
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import QUIET_SECONDS, Progress
from ansible_collections.virtuoso.grid.plugins.module_utils._run import attempt, run_module

TRIED = {
    "present": "make the image",
    "absent": "remove the image",
    "captured": "capture the machine",
    "flattened": "flatten the image",
    "rolled_back": "roll the machine back",
}
ARGUMENTS = merge(
    DEPOT,
    HYPERVISOR,
    {
        "argument_spec": {
            "images": {"type": "list", "elements": "dict"},
            "state": {
                "type": "str",
                "choices": ["present", "absent", "captured", "flattened", "pruned", "rolled_back"],
                "default": "present",
            },
            "in_use": {"type": "list", "elements": "str", "default": []},
            "discard": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 3600},
            "progress_file": {"type": "path"},
        },
        "required_if": [("state", state, ["images"]) for state in TRIED],
        "supports_check_mode": True,
    },
)

Entry = t.Mapping[str, object]
"""An item of O(images), not checked yet."""
Serve = t.Callable[[Entry, Progress], Result]


def handler(module: AnsibleModule, depot: Depot, stack: contextlib.ExitStack) -> Serve:
    """The function that serves one entry in the wanted state."""
    state, check_mode = module.params["state"], module.check_mode
    assumed: t.List[Manifest] = []
    if state in ("captured", "rolled_back"):
        versions = stack.enter_context(opened(module.params, check_mode))
        return versions.captured if state == "captured" else versions.rolled_back
    if state == "absent":
        return lambda entry, progress: ensure_absent(depot, entry, check_mode)
    if state == "flattened":
        return lambda entry, progress: ensure_flattened(depot, entry, progress, check_mode)

    def present(entry: Entry, progress: Progress) -> Result:
        if entry.get("source") is None and (entry.get("digest") or entry.get("version") is not None):
            return find_present(depot, entry)
        return ensure_present(depot, entry, progress, check_mode, assumed)

    return present


def work(module: AnsibleModule) -> Result:
    """Serve each entry by itself."""
    params = module.params
    # Ansible tells with -vvv what a module was given.
    module.no_log_values.update(secrets_in(params["images"] or ()))
    depot = Depot(params["path"])
    progress = Progress(params["progress_file"], quiet=QUIET_SECONDS)
    if not module.check_mode:
        with disk_errors(depot.images):
            depot.sweep()
    if params["state"] == "pruned":
        return {"images": [], **ensure_pruned(depot, params["in_use"], module.check_mode)}
    with contextlib.ExitStack() as stack:
        serve = handler(module, depot, stack)
        images = []
        for entry in params["images"]:
            name = str(entry.get("name"))[:80]
            one = functools.partial(serve, entry, progress.about(name))
            images.append(attempt(name, one, kind="image", tried=TRIED[params["state"]]))
    diffs = [found for found in (image.pop("diff", None) for image in images) if found]
    return {"changed": any(image["changed"] for image in images), "images": images, "diff": diffs}


def main() -> None:
    """Run the module."""
    run_module(work, **ARGUMENTS)


if __name__ == "__main__":
    main()
