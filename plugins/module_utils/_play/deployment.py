# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the steps of a deployment need of the results of those before them (pure)."""

from __future__ import annotations

import typing as t
import uuid

from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import WHERE, split_image
from ansible_collections.virtuoso.grid.plugins.module_utils._play.records import (
    Export,
    Failure,
    Image,
    MachineEntry,
    Order,
    Plan,
    Result,
    Row,
    Share,
    WantedExport,
    WantedImage,
    WantedTransfer,
)

NOT_YET = (None, "future", "placed")
"""States of a machine that no provider has had yet."""

ON_DEMAND = "on_demand"
"""What an order says of a machine that pages from its image until that is there."""

UNKNOWN_DIGEST = "sha256:" + "0" * 64
"""Stands, in check mode, for the digest of an image that isn't built yet."""


class Network(t.TypedDict):
    """A network of the overlay on a host.

    :ivar mtu: bytes of the largest frame's content.
    """

    name: str
    mtu: int


class Placeable(t.TypedDict):
    """The orders of a run: those that can be placed, as entries of ``placement``, and failures of the others."""

    machines: list[dict[str, object]]
    failed: list[Row]


class Needs(Placeable):
    """What the orders of a run need before they have a place: images, as entries of the module ``image``, too."""

    images: list[WantedImage]


class Settling(t.TypedDict):
    """Machines that can do without paging, as entries of ``machine``, and rows of those whose image didn't come."""

    machines: list[MachineEntry]
    rows: list[Row]


def wanted_images(orders: t.Sequence[Order], catalogue: t.Mapping[str, WantedImage]) -> list[WantedImage]:
    """The images that orders need, each once, as entries of the module ``image``.

    An order for a version that isn't the catalogue's, or for a digest, can only be met by an image that is there: such
    an entry has no ``source``. A machine that exists keeps the image that it was made from, whatever the catalogue has
    now.
    """
    entries: dict[str, WantedImage] = {}
    for order in orders:
        if order.get("image"):
            continue
        wanted = order["spec"]["image"]
        name, version, digest = split_image(wanted)
        entry: WantedImage = {**catalogue.get(name or "", {})}
        if digest:
            entry = {"name": digest, "digest": digest}
        elif version is None or str(entry.get("version", "")) == version:
            entry["name"] = str(name)
        else:
            entry.pop("source", None)
            entry.update({"name": str(name), "version": version})
        entries[wanted] = entry
    return list(entries.values())


def _by_wish(orders: t.Sequence[Order], images: t.Sequence[Image]) -> dict[str, Image]:
    """The results of the module ``image`` by what was ordered: they come in the order of :func:`wanted_images`.

    Names don't tell them apart: ``tiny`` and ``tiny@old`` are two wishes for images of one name.
    """
    wishes = dict.fromkeys(order["spec"]["image"] for order in orders if not order.get("image"))
    return dict(zip(wishes, images))


def _image_of(order: Order, by_wish: t.Mapping[str, Image]) -> Image | None:
    """The image's result, or of a machine that exists the image that it was made from."""
    made_from = order.get("image")
    if made_from:
        return {"reference": made_from["name"], "digest": made_from["digest"]}
    return by_wish.get(order["spec"]["image"])


def _without_image(name: str, machine: str | None, wanted: str, cause: Image | None) -> Row:
    """The failure of a machine whose image is not to be had.

    :param cause: the image's own failure; ``None`` where there is no result for it.
    """
    missing: Failure = {"code": "image_missing", "remedy": "Run again when the image server is back"}
    said: Image = cause or {}
    msg = said.get("msg") or f"its image {wanted} could not be made ready"
    return {
        "name": name,
        "uuid": machine,
        "changed": False,
        "failed": True,
        "msg": f"machine {name}: {msg}",
        "failure": {**(said.get("failure") or missing)},
    }


def placement_entries(orders: t.Sequence[Order], images: t.Sequence[Image]) -> Placeable:
    """Orders as the module ``placement`` takes them.

    :param images: results of the module ``image`` for :func:`wanted_images` of the same orders.
    :returns: ``machines`` to be placed, and ``failed``, results of those whose image isn't to be had: they get no
        place.
    """
    machines: list[dict[str, object]] = []
    failed: list[Row] = []
    by_wish = _by_wish(orders, images)
    for order in orders:
        image, spec = _image_of(order, by_wish), order["spec"]
        if image is None or image.get("failed"):
            failed.append(_without_image(order["name"], order.get("uuid"), spec["image"], image))
            continue
        fields: t.Mapping[str, object] = {**spec}
        optional = (*WHERE, "owner", "tags", "performance", "extra_networks")
        machines.append(
            {
                "name": order.get("name"),
                "uuid": order.get("uuid"),
                **{key: fields[key] for key in ("vcpus", "memory", "disk", "network", "goal")},
                **{key: fields[key] for key in optional if fields.get(key)},
                "image": {
                    "name": image.get("reference"),
                    "digest": image.get("digest"),
                    "size": image.get("size"),
                    "virtual_size": image.get("virtual_size"),
                },
            }
        )
    return {"machines": machines, "failed": failed}


def order_needs(
    orders: t.Sequence[Order], catalogue: t.Mapping[str, WantedImage], images: t.Sequence[Image] = ()
) -> Needs:
    """What orders need: first their images, and with these a place.

    :param images: results of the module ``image`` for the ``images`` that this function returned.
    """
    return {"images": wanted_images(orders, catalogue), **placement_entries(orders, images)}


def images_found(looks: t.Mapping[str, Result], asked: Result, server: str) -> list[Image]:
    """Images that providers have, where the image server can't be asked: one result for each that was asked for.

    :param looks: by provider, what the module ``image`` returned there in check mode for the ``images`` of
        :func:`order_needs`: what it would have to make is not there.
    :param asked: what asking the server returned.
    """
    lists = [look["images"] for look in looks.values() if look.get("images")]
    said = str(asked.get("msg") or "it does not answer").strip().splitlines()[0]
    failure: Failure = {
        "code": "image_server_unreachable",
        "host": server,
        "remedy": f"See that {server} is up and that Ansible reaches it, then run again",
    }
    missing: Image = {
        "failed": True,
        "msg": f"no provider of this run has its image, and the image server {server} can't be asked: {said}",
        "failure": {**failure, **(asked.get("failure") or {})},
    }
    return [
        next((image for image in found if not (image.get("failed") or image.get("changed"))), missing)
        for found in zip(*lists)
    ]


def provider_share(
    plan: Plan,
    provider: str,
    *,
    here: t.Sequence[Image] = (),
    pagers: t.Sequence[Export] = (),
    transferred: t.Sequence[Image] = (),
    networks: t.Sequence[Network] = (),
) -> Share:
    """What one provider has to do in a deployment, as far as it is known yet.

    :param here: images of the provider as the module ``provider_info`` returns them.
    :param pagers: results of the module ``image_export`` on this provider, for images that are to be paged.
    :param transferred: results of the module ``image_transfer`` on this provider, where it has run.
    :param networks: the overlay's networks on this provider, for the MTU of the machines' cards.

    In check mode, what doesn't exist yet has no uuid and no digest. It gets stand-ins here, by which nothing can exist.
    """
    orders = {order["name"]: order for order in plan["orders"]}
    by_wish = _by_wish(plan["orders"], plan["images"])
    arrived = {image["name"]: image for image in transferred}
    exports = {pager["digest"]: pager for pager in pagers if not pager.get("failed")}
    there = {image["digest"] for image in here}
    needed: dict[str, WantedTransfer] = {}
    paged: dict[str, WantedTransfer] = {}
    to_page: dict[str, WantedExport] = {}
    machines: list[MachineEntry] = []
    failed: list[Row] = []
    for place in plan["placed"]:
        if place.get("failed") or place.get("provider") != provider:
            continue
        order = orders[place["name"]]
        image: Image = _image_of(order, by_wish) or {}
        reference, digest = str(image.get("reference")), image.get("digest") or UNKNOWN_DIGEST
        lost = arrived.get(reference)
        if lost and lost.get("failed"):
            failed.append(_without_image(order["name"], order.get("uuid"), order["spec"]["image"], lost))
            continue
        on_demand = order["spec"].get("start") == ON_DEMAND
        if on_demand and digest not in there:
            to_page[digest] = {"digest": digest}
        paging = exports.get(digest) if on_demand else None
        (needed if paging is None else paged)[reference] = {
            "name": reference,
            "digest": digest,
            "size": image.get("size"),
        }
        entry = {
            **order["spec"],
            "uuid": place.get("uuid") or str(uuid.uuid5(uuid.NAMESPACE_URL, place["name"])),
            "provider": provider,
            "generation": place.get("generation"),
            "site": place.get("site"),
            "ordered_site": order["spec"].get("site"),
            "image": {"name": reference, "digest": digest},
            "user": image.get("user"),
            "python": image.get("python"),
            "exists": order.get("state") not in NOT_YET,
        }
        if paging:
            entry["paging"] = {key: paging.get(key) for key in ("host", "port", "virtual_size")}
        machines.append(t.cast(MachineEntry, entry))
    return {
        "images": list(needed.values()),
        "paged": list(paged.values()),
        "to_page": list(to_page.values()),
        "machines": with_mtu(machines, networks),
        "failed": failed,
    }


def with_mtu(machines: t.Sequence[MachineEntry], networks: t.Sequence[Network]) -> list[MachineEntry]:
    """Entries of the module ``machine`` with the MTU of their networks, as far as these are among the given ones."""
    mtu = {network["name"]: network["mtu"] for network in networks}
    found: list[MachineEntry] = []
    for machine in machines:
        entry: MachineEntry = {**machine}
        first = mtu.get(machine.get("network", ""))
        if first is not None:
            entry["mtu"] = first
        others = {name: mtu[name] for name in machine.get("extra_networks") or () if name in mtu}
        if others:
            entry["mtus"] = others
        found.append(entry)
    return found


def settling(machines: t.Sequence[MachineEntry], transfers: t.Sequence[Result], check_mode: bool) -> Settling:
    """What comes after images were brought to machines that page from them.

    :param transfers: results of the module ``image_transfer``, one for each source.
    :param check_mode: nothing is there yet that the module ``machine`` could look at.
    :returns: ``machines``, entries to settle; ``rows``, results of those whose image didn't come, or in check mode of
        those that would be settled.
    """
    arrived = {image["name"]: image for transfer in transfers for image in transfer.get("images") or []}
    rows: list[Row] = []
    entries: list[MachineEntry] = []
    for machine in machines:
        if not machine.get("paging"):
            continue
        reference = machine["image"]["name"]
        image = arrived.get(reference)
        if image is None or image.get("failed"):
            rows.append(_without_image(machine["name"], machine["uuid"], reference, image))
        elif check_mode:
            rows.append({"name": machine["name"], "uuid": machine["uuid"], "changed": True, "actions": ["settle"]})
        # One whose image didn't come is in the list as well: its power is looked after in any case.
        entry: MachineEntry = {**machine}
        del entry["paging"]
        entries.append(entry)
    return {"machines": [] if check_mode else entries, "rows": rows}
