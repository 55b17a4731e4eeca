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
  - Has images in the store of the host that it runs on, from an empty disk, a file, a download or a list of packages.
  - An image is a chain of layers and a manifest that gives it a name and a version. A layer is a qcow2 file with the
    blocks in which it differs from the layer below. It is named by a digest of what a guest sees of it, so that the
    same content is the same layer on every host. Neither layers nor manifests ever change. Files appear under their
    final name only when whole and verified; what an interrupted run left is resumed or removed by the next one. Two
    runs at once for the same image make it once.
  - Files and downloads are not trusted. Their format is what the entry says, never guessed; they are refused where they
    name a backing file or an external data file, are encrypted, claim more than 64 TiB or are damaged.
  - A recipe of packages runs as root on the host while the image is built, and is trusted.
author: virtuoso.grid contributors (@virtuoso-grid)
extends_documentation_fragment: [virtuoso.grid.depot, virtuoso.grid.hypervisor, virtuoso.grid.attributes]
attributes:
  check_mode:
    support: full
    details:
      - What a running machine's disk would become is not known before it is copied. Its entry is told as changed, with
        a null C(digest) and, where none was asked for, C(version).
  diff_mode:
    support: full
requirements:
  - qemu-img
  - "for machines (O(state=captured), O(state=rolled_back)): python3-libvirt"
  - "for images of packages: mmdebstrap, sfdisk, mke2fs, mtools, syslinux, zstd"
options:
  images:
    description:
      - The images. Each is served for itself; one that fails does not keep the others from being made. Needed but for
        O(state=pruned).
      - C(name) is the image's name, C(version) its version, without which it is the first 12 digits of its recipe's
        digest.
      - C(user) is the user to log in as, C(python) the Python interpreter in the image; both are kept in the manifest
        for the inventory.
      - C(source) says what the image is made of, by its C(type). An entry with a C(version) or a C(digest) and without
        a source is an image that must be there already.
      - C(blank) is an empty disk of C(size).
      - C(file) is the image file C(path) on the host, in C(format) V(qcow2) (the default) or V(raw).
      - C(url) is a download of C(url) with the mandatory C(checksum) V(sha256:...), in C(format).
      - C(packages) is a recipe for a bootable disk with C(suite), C(size), C(packages), and optionally C(variant),
        C(mirrors), C(components), C(keep), C(files), C(commands), C(initramfs), C(modules) and C(cmdline). The file
        C(docs/images.md) of the collection describes it.
      - With O(state=captured) an entry has C(name), C(machine) (uuid or name of a machine on this host), and optionally
        C(version), C(user) and C(python). Without C(version) it is the first 12 digits of the new layer's digest, so
        that it follows from the content. C(user) and C(python) are the machine's where they are left out.
      - With O(state=flattened) an entry has C(name), C(version), and optionally C(new_version), which otherwise is the
        first 12 digits of the new layer's digest.
      - With O(state=rolled_back) an entry has C(machine), C(name) and C(version).
    type: list
    elements: dict
  state:
    description:
      - V(present) has the images.
      - V(absent) removes their names, and those of their layers that neither another image nor a machine's disk on this
        host is made of. C(source) is then not needed; without C(version) all versions of the name go.
      - V(captured) has the disks of machines on this host as versions. What differs from the layers that a disk lies on
        becomes one new layer on them. Where nothing differs, and where the content is that of a version of the name
        that is there, nothing is made. A C(version) that was captured from the same machine is there for good, and the
        machine isn't looked at again. A stopped machine is read as it lies; a running one goes on, and QEMU copies its
        disk as it was at one moment, with the file systems frozen for that moment if the guest's agent is there.
      - V(flattened) has the content of a version with several layers as another version with one.
      - V(pruned) removes layers that no image of this host, no machine's disk on this host, and none in O(in_use) is
        made of. One that is just being sent to another host stays until the next time.
      - V(rolled_back) has machines on a version of this host's store. The machine must be stopped. Its disk becomes a
        new one on that version, not smaller than it was. Refused where the disk has content that no version in the
        store has, unless O(discard) is set.
    type: str
    choices: [present, absent, captured, flattened, pruned, rolled_back]
    default: present
  in_use:
    description:
      - Digests of layers that must not be pruned because machines on other hosts use them.
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

- name: Keep what was done to a machine as the next version of its image
  virtuoso.grid.image:
    state: captured
    images: [{name: web, machine: web1, version: "2"}]

- name: Have that version as one layer
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
        What was done, of C(create), C(import), C(download), C(build), C(name), C(describe), C(remove), C(capture), C(flatten), C(roll back),
        C(define).
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
      description: The digest of what the image is made of.
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
      description: What was captured, V(stopped) a disk at rest, V(filesystems) one with frozen file systems, V(crash)
        one as after a loss of power. Null where nothing was.
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
  description: Digests of the layers that were removed, and names of files that belonged to none.
  type: list
  elements: str
  returned: pruned
kept_layers:
  description: Those that nothing needs and that are just being sent to another host.
  type: list
  elements: str
  returned: pruned
freed:
  description: Bytes of the disk that were freed.
  type: int
  returned: pruned
"""

import contextlib
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import DEPOT, HYPERVISOR, merge
from ansible_collections.virtuoso.grid.plugins.module_utils._disk_space import disk_errors
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.ensure import (
    ensure_absent,
    ensure_present,
    find_present,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._image.store.depot import Depot
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

Entry = t.Dict[str, t.Any]
Serve = t.Callable[[Entry, Progress], Entry]


def handler(module: AnsibleModule, depot: Depot, stack: contextlib.ExitStack) -> Serve:
    """What serves one entry."""
    state, check_mode = module.params["state"], module.check_mode
    assumed: t.List[Entry] = []
    if state in ("captured", "rolled_back"):
        versions = stack.enter_context(opened(module.params, check_mode))
        return versions.captured if state == "captured" else versions.rolled_back
    if state == "absent":
        return lambda entry, progress: ensure_absent(depot, entry, check_mode)
    if state == "flattened":
        return lambda entry, progress: ensure_flattened(depot, entry, progress, check_mode)

    def present(entry: Entry, progress: Progress) -> Entry:
        if entry.get("source") is None and (entry.get("digest") or entry.get("version") is not None):
            return find_present(depot, entry)
        return ensure_present(depot, entry, progress, check_mode, assumed)

    return present


def work(module: AnsibleModule) -> Entry:
    """Serve each image for itself."""
    params = module.params
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
            one = progress.about(name)
            images.append(attempt(name, lambda: serve(entry, one), kind="image", tried=TRIED[params["state"]]))
    diffs = [found for found in (image.pop("diff", None) for image in images) if found]
    return {"changed": any(image["changed"] for image in images), "images": images, "diff": diffs}


def main() -> None:
    """Run the module."""
    run_module(work, **ARGUMENTS)


if __name__ == "__main__":
    main()
