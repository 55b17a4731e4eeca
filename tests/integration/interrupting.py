# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment is interrupted in one of its steps, and the same command given again finishes it."""

from __future__ import annotations

import typing as t

from walking import PROVIDERS, Grid, machine_files, on_host, staged_images

STEPS = {
    "order": "Order the machines",
    "look": "Look at the providers",
    "register": "Register the providers",
    "placement": "Choose a provider for each machine",
    "images": "Make the images ready",
    "transfer": "Bring the images",
    "machine": "Define and start the machines",
    "addresses": "Wait for the machines' addresses",
    "display": "Photograph the consoles",
    "record": "Record the machines",
}
"""The tasks of the role deploy, in their order."""

MOMENTS = (0.0, 0.6)
"""Seconds after the begin of a task: before its module runs, and while it runs."""

# A copy of the image tiny under another name, with other bytes: it is made and moved anew in each test.
SOURCE = "/var/lib/virtuoso-interrupted.qcow2"
IMAGE = "it-interrupted"
COPY = f"""
    set -e
    cd /var/lib/virtuoso/images
    layer=$(sed -n 's/.*"sha256:\\([0-9a-f]*\\)".*/\\1/p' "$(ls manifests/tiny@* | tail -n 1)" | head -n 1)
    qemu-img convert -q -f qcow2 -O raw layers/sha256-$layer.qcow2 {SOURCE}.new
    # in the last sector of the disk, behind the file system's end
    date +%s%N | dd of={SOURCE}.new bs=1 seek=$(( $(stat -c %s {SOURCE}.new) - 64 )) conv=notrunc status=none
    qemu-img convert -q -f raw -O qcow2 {SOURCE}.new {SOURCE}
    rm {SOURCE}.new
"""
FORGET = f"""
    rm -f {SOURCE}
    cd /var/lib/virtuoso/images
    for manifest in manifests/{IMAGE}@*; do
        [ -e "$manifest" ] || continue
        layer=$(sed -n 's/.*"sha256:\\([0-9a-f]*\\)".*/\\1/p' "$manifest" | head -n 1)
        rm -f "$manifest"
        grep -qs "$layer" manifests/* || rm -f "layers/sha256-$layer.qcow2" "layers/sha256-$layer.index"
    done
"""


def prepare() -> None:
    """An image that no host has yet."""
    on_host("home1", COPY)


def forget() -> None:
    """Remove it everywhere; machines of it must be gone."""
    for host in ("home1", *PROVIDERS):
        on_host(host, FORGET, check=False)


def interrupted_and_resumed(grid: Grid, step: str, number: int, after: float) -> None:
    """Two machines are deployed; the play is killed in the step, run again, and once more."""
    names, machines = grid.names(2), grid.machines(2, image=IMAGE)
    catalogue = {IMAGE: {"user": "root", "source": {"type": "file", "path": SOURCE}}}

    def deploy() -> t.Any:
        return grid.start("deploy", machines=machines, virtuoso_images=catalogue)

    first = deploy()
    assert first.wait_for_task(STEPS[step]), first.wait().story()
    first.interrupt(number, after)
    # Little comes after the last step: the play may be over before the signal is.
    assert first.returncode != 0 or step == "record", "the play ended before the signal came"
    known = grid.uuids() if grid.store.exists() else {}

    second = deploy().wait().succeeded()
    grid.running_once(names)
    uuids = grid.uuids()
    assert sorted(uuids) == names
    assert known.items() <= uuids.items(), "a machine lost the reference that it had"
    assert {second.row(name)["state"] for name in names} == {"running"}
    assert all(second.row(name)["addresses"] for name in names)
    assert grid.integrity() == "ok"
    assert grid.rows("SELECT uuid FROM futures") == []

    third = deploy().wait().succeeded()
    assert not any(third.changed.values()), third.story()
    for provider in PROVIDERS:
        assert not [entry for entry in machine_files(provider) if entry.startswith(".staging")]
    for host in ("home1", *PROVIDERS):
        assert staged_images(host) == set(), host
