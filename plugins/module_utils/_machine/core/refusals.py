# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that refuse what can't be done to a machine; each error says why and what to do instead (pure)."""

from __future__ import annotations

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import Image, Metadata
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.actual import Observed
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import Wanted

FIXED = ("name", "image")
"""What can't change in a machine's life."""


def refuse_hibernated(wanted: Wanted, observed: Observed) -> None:
    """Refuse to grow the disk of a hibernated machine: its memory relies on the disk's size.

    :raises GridError: ``machine_hibernated``.
    """
    size = observed.disk.size if observed.disk is not None else 0
    if observed.state == "hibernated" and (wanted.get("disk") or 0) > size:
        raise GridError(
            "machine_hibernated",
            "the disk of a hibernated machine can't grow: its memory knows the disk as it is",
            tried="change the disk's size",
            remedy="Resume the machine first: virtuoso.grid.power with state running; its disk grows while it runs",
        )


def refuse_fixed(wanted: Wanted, values: Metadata) -> None:
    """Refuse another name, image or older generation than the machine has.

    :raises GridError: ``cannot_change``, ``stale_generation``.
    """
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


def refuse_vanished(wanted: Wanted) -> None:
    """Refuse to make a new disk for a machine that had data: its loss would go unnoticed.

    :raises GridError: ``machine_vanished``.
    """
    if wanted.get("exists"):
        raise GridError(
            "machine_vanished",
            "the machine was seen here before, and now neither its domain nor its disk is here",
            remedy="Bring its disk back and run again; or retire the machine (virtuoso.grid.retire) and deploy it "
            "anew, without its data",
        )


def require_layers(image: Image, missing: str | None) -> None:
    """Refuse to go on without a layer of the image.

    :param missing: the layer's digest, ``None`` where all are here.
    :raises GridError: ``image_missing``.
    """
    if missing is not None:
        layer = "" if missing == image["digest"] else f", its layer {missing} is missing"
        raise GridError(
            "image_missing",
            f"the image {image['name']} is not on this host: {image['digest']}{layer}",
            remedy="Transfer it first: virtuoso.grid.image_transfer; the playbook virtuoso.grid.deploy does",
            digest=image["digest"],
            layer=missing,
        )
