# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbook ``images`` has each host do, and what it makes of their answers (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import split_image
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size

Row = t.Dict[str, t.Any]
Rows = t.Sequence[t.Mapping[str, t.Any]]


def _names(value: t.Any) -> list[str]:
    """Names as a list, or as ``-e`` gives them."""
    return [name for name in (value.split(",") if isinstance(value, str) else value or []) if name]


def image_work(orders: Rows, host: str, wish: t.Mapping[str, t.Any]) -> dict[str, list[Row]]:
    """What a host has to do, as entries of the module ``image`` by its states.

    :param orders: what is ordered: ``name``, ``uuid``, ``provider``, ``spec``.
    :param wish: ``capture``, ``rollback`` (names of machines), ``name``, ``version``; what isn't wished is empty.
    :returns: ``captured`` and ``rolled_back``. Without a name, a machine is captured as a version of the image that it
        was ordered with.
    """
    here = [order for order in orders if order.get("provider") == host]
    version = str(wish["version"])

    def name_of(order: t.Mapping[str, t.Any]) -> str:
        return wish["name"] or split_image(order["spec"]["image"])[0] or order["name"]

    return {
        "captured": [
            {"name": name_of(order), "machine": order["uuid"], **({"version": version} if version else {})}
            for order in here
            if order["name"] in _names(wish["capture"])
        ],
        "rolled_back": [
            {"machine": order["uuid"], "name": wish["name"], "version": version}
            for order in here
            if order["name"] in _names(wish["rollback"])
        ],
    }


def image_refusal(orders: Rows, hosts: t.Sequence[str], providers: t.Sequence[str], wish: t.Mapping[str, t.Any]) -> str:
    """Why a wish can't be meant; an empty text where it can.

    :param hosts: that are in the play. :param providers: all that are known.
    """
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
        return f"Pruning needs to know what all providers use, and these are not in the play: {', '.join(absent)}. Run it without --limit."
    return ""


def to_publish(captured: t.Mapping[str, t.Mapping[str, t.Any]], server: str) -> list[Row]:
    """Captured versions that the image server is to get, so that they can be ordered, by the host that has them:
    ``source`` and ``images``.

    :param captured: results of the module ``image`` by host. What couldn't be captured, or has no digest yet in check
        mode, is left out.
    """
    found = []
    for host, result in captured.items():
        images = [
            {"name": image["reference"], "digest": image["digest"]}
            for image in result.get("images") or []
            if not image.get("failed") and image.get("digest") and image.get("reference")
        ]
        if images and host != server:
            found.append({"source": host, "images": images})
    return found


def layers_in_use(stored: Rows, machines: Rows) -> list[str]:
    """Digests that no host may prune.

    :param stored: results of the module ``image_info``, one a host.
    :param machines: of ``machine_info``, all machines: one that was started on demand has its layers elsewhere.
    """
    used = {digest for result in stored for digest in result.get("used") or []}
    used.update(machine["image"]["digest"] for machine in machines if (machine.get("image") or {}).get("digest"))
    return sorted(used)


def image_rows(stored: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[Row]:
    """The versions that there are, each with the hosts that have it, for the report.

    :param stored: results of ``image_info`` by host.
    """
    rows: dict[tuple[str, str], Row] = {}
    for host, result in stored.items():
        for image in result.get("images") or []:
            row = rows.setdefault(
                (image["reference"], image["digest"]),
                {
                    "name": image["reference"],
                    "layers": str(len(image["layers"])),
                    "disk": format_size(image["virtual_size"]),
                    "size": format_size(image["size"]),
                    "digest": image["digest"][:19],
                    "created": image["created"],
                    "hosts": [],
                },
            )
            row["hosts"].append(host if image["complete"] else f"{host} (incomplete)")
    return [row for dummy, row in sorted(rows.items())]
