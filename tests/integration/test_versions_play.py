# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook ``images`` as a user runs it: capture, flatten, roll back, prune over all hosts of the lab."""

from __future__ import annotations

import typing as t

import pytest
from walking import DEPOT, PROVIDERS, Grid, Run, on_host

# Its guest never boots and shows no address, which is of no matter here.
SETTINGS = {
    "virtuoso_images": {"it-empty": {"source": {"type": "blank", "size": "4 MiB"}}},
    "virtuoso_image_server": "provider1",
    "virtuoso_address_timeout": 1,
    "virtuoso_screenshots": False,
    "virtuoso_shutdown_timeout": 1,
}


@pytest.fixture(name="grid")
def _grid() -> t.Iterator[Grid]:
    grid = Grid("it-ver")
    yield grid
    grid.clean()
    for host in PROVIDERS:
        on_host(host, f"rm -f {DEPOT}/images/manifests/it-*")
    grid.play("images", "-e", "prune=true", **SETTINGS)


def images(grid: Grid, wish: str, *arguments: str) -> Run:
    """The playbook with what is wished."""
    return grid.play("images", *(["-e", wish] if wish else []), *arguments, **SETTINGS)


def layers(host: str) -> set[str]:
    return set(on_host(host, f"ls {DEPOT}/images/layers").split())


def test_capture_flatten_roll_back_prune(grid: Grid):
    (name,) = grid.names(1)
    deployed = grid.play(
        "deploy", "--limit", "provider2", machines=grid.machines(1, image="it-empty", memory="32 MiB"), **SETTINGS
    )
    assert deployed.code(name) == "no_address"
    grid.play("power", "-e", f"machines={name} state=stopped force=true", **SETTINGS)
    uuid = grid.uuids()[name]
    on_host("provider2", f"qemu-io -f qcow2 -c 'write -P 7 1M 100k' {DEPOT}/machines/{uuid}/disk.qcow2")

    assert "No such machine" in images(grid, "capture=nobody").story()
    said = images(grid, f"capture={name} image=it-web version=1", "--check").succeeded()
    assert said.changed["provider2"] > 0 and not said.rows("it-web@1")
    done = images(grid, f"capture={name} image=it-web version=1").succeeded()
    assert done.row("it-web@1")["hosts"] == ["provider1", "provider2"] and done.row("it-web@1")["layers"] == "2"
    assert not any(images(grid, f"capture={name} image=it-web version=1").succeeded().changed.values())

    flat = images(grid, "flatten=it-web@1 new_version=flat").succeeded()
    assert flat.row("it-web@flat")["layers"] == "1"

    on_host("provider2", f"qemu-io -f qcow2 -c 'write -P 8 2M 100k' {DEPOT}/machines/{uuid}/disk.qcow2")
    wish = f"rollback={name} image=it-web version=flat"
    assert images(grid, wish).code("it-web") == "unsaved_changes"
    rolled = images(grid, f"{wish} discard=true").succeeded()
    assert rolled.changed["provider2"] > 0 and images(grid, wish).succeeded().changed["provider2"] == 0
    # The store knows, so that deploying the same order again asks for the image that the machine has now; another is
    # made of the captured version.
    first, second = grid.machines(2, image="it-empty", memory="32 MiB")
    again = grid.play("deploy", "--limit", "provider2", machines=[first, {**second, "image": "it-web@1"}], **SETTINGS)
    assert again.code(name) == again.code(second["name"]) == "no_address"
    other = on_host("provider2", f"qemu-img info -U {DEPOT}/machines/{grid.uuids()[second['name']]}/disk.qcow2")
    assert any(layer in other for layer in layers("provider1") & layers("provider2"))
    grid.play("power", "-e", f"machines={name} state=stopped force=true", **SETTINGS)
    grid.play("retire", "-e", f"machines={second['name']}", **SETTINGS)

    for host in PROVIDERS:
        on_host(host, f"rm {DEPOT}/images/manifests/it-web@*")
    assert "without --limit" in images(grid, "prune=true", "--limit", "provider1").story()
    before = layers("provider2")
    used = on_host("provider2", f"qemu-img info -U {DEPOT}/machines/{uuid}/disk.qcow2")
    images(grid, "prune=true", "--check").succeeded()
    assert layers("provider2") == before
    images(grid, "prune=true").succeeded()
    after = layers("provider2")
    assert len(before - after) == 2, "the captured layer with its index"
    assert any(layer in used for layer in after), "the layer of the machine's disk"
    assert not any(images(grid, "prune=true").succeeded().changed.values())
