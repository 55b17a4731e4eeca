# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can't be done to a machine, as errors that say why and what to do instead (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

Model = t.Dict[str, t.Any]

FIXED = ("name", "image")
"""What can't change in a machine's life."""


def refuse_hibernated(wanted: Model, observed: t.Any) -> None:
    """The kept memory knows the disk as it is."""
    if observed.state == "hibernated" and (wanted.get("disk") or 0) > observed.disk.size:
        raise GridError(
            "machine_hibernated",
            "the disk of a hibernated machine can't grow: its memory knows the disk as it is",
            tried="change the disk's size",
            remedy="Resume the machine first: virtuoso.grid.power with state running; its disk grows while it runs",
        )


def refuse_fixed(wanted: Model, values: Model) -> None:
    pairs = {"name": (values["name"], wanted["name"]), "image": (values["image"]["digest"], wanted["image"]["digest"])}
    for field in FIXED:
        now, want = pairs[field]
        if now != want:
            raise GridError(
                "cannot_change",
                f"the {field} of an existing machine can't change from {now} to {want}",
                remedy="Order a new machine, or order this one as it is",
                field=field,
                current=now,
                wanted=want,
            )
    if wanted["generation"] < values["generation"]:
        raise GridError(
            "stale_generation",
            f"the machine here is of generation {values['generation']}, the order of {wanted['generation']}",
            remedy="Run the playbook virtuoso.grid.refresh, so that the store knows what is there",
            current=values["generation"],
            wanted=wanted["generation"],
        )


def refuse_vanished(wanted: Model) -> None:
    """An empty disk under the name of a machine that had data would look as if nothing had happened."""
    if wanted.get("exists"):
        raise GridError(
            "machine_vanished",
            "the machine was seen here before, and now neither its domain nor its disk is here",
            remedy="Bring its disk back and run again; or retire the machine (virtuoso.grid.retire) and deploy it anew, without its data",
        )


def require_layers(image: Model, missing: str | None) -> None:
    if missing is not None:
        layer = "" if missing == image["digest"] else f", its layer {missing} is missing"
        raise GridError(
            "image_missing",
            f"the image {image['name']} is not on this host: {image['digest']}{layer}",
            remedy="Transfer it first: virtuoso.grid.image_transfer; the playbook virtuoso.grid.deploy does",
            digest=image["digest"],
            layer=missing,
        )
