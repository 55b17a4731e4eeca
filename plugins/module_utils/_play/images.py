# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbook ``images`` has each host do, and what it makes of their answers (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import split_image
from ansible_collections.virtuoso.grid.plugins.module_utils._play.records import Image, MadeFrom, Order
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size


class Wish(t.TypedDict):
    """What is asked for; what is not is empty.

    :ivar capture: names of machines, a list or separated by commas; ``rollback`` likewise.
    :ivar flatten: ``name@version``.
    """

    capture: str | t.Sequence[str]
    rollback: str | t.Sequence[str]
    name: str
    version: str | int
    flatten: str
    prune: bool


class Work(t.TypedDict):
    """What a host has to do, as entries of the module ``image`` by its states.

    :ivar refusal: why the wish can't be met, the same on all hosts; empty where it can.
    """

    captured: list[dict[str, str]]
    rolled_back: list[dict[str, str]]
    refusal: str


class Stored(t.TypedDict, total=False):
    """A result of the module ``image_info``.

    :ivar used: digests of the layers that disks on the host lie on.
    """

    images: list[Image]
    used: list[str]


class Machine(t.TypedDict, total=False):
    """A machine as the module ``machine_info`` returns it; one that is not the collection's has no image."""

    image: MadeFrom


class Version(t.TypedDict):
    """A row of the report: a version of an image, and the hosts that have it."""

    name: str
    layers: str
    disk: str
    size: str
    digest: str
    created: str
    hosts: list[str]


class Stores(t.TypedDict):
    """What all hosts' image stores have.

    :ivar rows: for the report.
    :ivar in_use: digests that no host may prune.
    """

    rows: list[Version]
    in_use: list[str]


def _names(value: str | t.Sequence[str]) -> list[str]:
    """Names as a list, or as ``-e`` gives them."""
    return [name for name in (value.split(",") if isinstance(value, str) else value or []) if name]


def image_work(
    orders: t.Sequence[Order], host: str, hosts: t.Sequence[str], providers: t.Sequence[str], wish: Wish
) -> Work:
    """What a host has to do to meet a wish.

    Without a name, a machine is captured as a version of the image that it was ordered with.

    :param hosts: those of the play.
    :param providers: all that there are.
    """
    here = [order for order in orders if order.get("provider") == host]
    version = str(wish["version"])

    def name_of(order: Order) -> str:
        return wish["name"] or split_image(order["spec"]["image"])[0] or order["name"]

    return {
        "captured": [
            {"name": name_of(order), "machine": str(order["uuid"]), **({"version": version} if version else {})}
            for order in here
            if order["name"] in _names(wish["capture"])
        ],
        "rolled_back": [
            {"machine": str(order["uuid"]), "name": wish["name"], "version": version}
            for order in here
            if order["name"] in _names(wish["rollback"])
        ],
        "refusal": _refusal(orders, hosts, providers, wish),
    }


def _refusal(orders: t.Sequence[Order], hosts: t.Sequence[str], providers: t.Sequence[str], wish: Wish) -> str:
    there = {order["name"] for order in orders if order.get("provider") in hosts}
    captured, rolled = _names(wish["capture"]), _names(wish["rollback"])
    unknown = sorted({*captured, *rolled} - there)
    if unknown:
        return f"No such machine on these hosts: {', '.join(unknown)}. There are: {', '.join(sorted(there)) or 'none'}."
    if rolled and not (wish["name"] and str(wish["version"])):
        return "A roll back needs -e image=NAME and -e version=VERSION."
    if len(captured) > 1 and str(wish["version"]):
        return "Several machines can't become one version: capture them one by one, or leave the version out."
    if wish["flatten"] and wish["flatten"].count("@") != 1:
        return "Flattening needs -e flatten=NAME@VERSION."
    absent = sorted(set(providers) - set(hosts))
    if wish["prune"] and absent:
        return (
            "Pruning needs to know what all providers use, and these are not in the play: "
            f"{', '.join(absent)}. Run it without --limit."
        )
    return ""


def image_stores(stored: t.Mapping[str, Stored], machines: t.Sequence[Machine] = ()) -> Stores:
    """What all hosts' image stores have.

    :param stored: results of the module ``image_info`` by host.
    :param machines: all machines: one that was started on demand has its layers elsewhere.
    """
    used = {digest for result in stored.values() for digest in result.get("used") or []}
    made_from = [machine.get("image") for machine in machines]
    return {
        "rows": _versions(stored),
        "in_use": sorted(used | {image["digest"] for image in made_from if image and image.get("digest")}),
    }


def _versions(stored: t.Mapping[str, Stored]) -> list[Version]:
    rows: dict[tuple[str, str], Version] = {}
    for host, result in stored.items():
        for image in result.get("images") or []:
            digest = str(image["digest"])
            row = rows.setdefault(
                (image["reference"], digest),
                {
                    "name": image["reference"],
                    "layers": str(len(image["layers"])),
                    "disk": format_size(image["virtual_size"]),
                    "size": format_size(image["size"] or 0),
                    "digest": digest[:19],
                    "created": image["created"],
                    "hosts": [],
                },
            )
            row["hosts"].append(host if image["complete"] else f"{host} (incomplete)")
    return [row for dummy, row in sorted(rows.items())]
