# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the steps of a deployment hang together: what each needs of the results of those before it (pure)."""

from __future__ import annotations

import typing as t
import uuid

from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import WHERE, split_image

Item = t.Dict[str, t.Any]
Items = t.List[Item]

NOT_YET = (None, "future", "placed")
"""States of a machine that no provider has had yet."""

ON_DEMAND = "on_demand"
"""What an order says of a machine that is to page from its image until that is there."""

UNKNOWN_DIGEST = "sha256:" + "0" * 64
"""Stands, in check mode, for the digest of an image that isn't built yet."""


def wanted_images(orders: t.Sequence[t.Mapping[str, t.Any]], catalogue: t.Mapping[str, t.Mapping[str, t.Any]]) -> Items:
    """The images that orders need, each once, as entries of the module ``image``.

    An order for a version that isn't the catalogue's, or for a digest, can only be met by an image that is there: such
    an entry has no ``source``. A machine that exists keeps the image that it was made from, whatever the catalogue has
    now.
    """
    entries: dict[str, Item] = {}
    for order in orders:
        if order.get("image"):
            continue
        wanted = order["spec"]["image"]
        name, version, digest = split_image(wanted)
        known = dict(catalogue.get(name or "", {}))
        if digest:
            entry: Item = {"name": digest, "digest": digest}
        elif version is None or str(known.get("version", "")) == version:
            entry = {**known, "name": name}
        else:
            entry = {
                **{key: value for key, value in known.items() if key != "source"},
                "name": name,
                "version": version,
            }
        entries[wanted] = entry
    return list(entries.values())


def _by_wish(
    orders: t.Sequence[t.Mapping[str, t.Any]], images: t.Sequence[t.Mapping[str, t.Any]]
) -> dict[str, t.Mapping[str, t.Any]]:
    """The results of the module ``image`` by what was ordered: they come in the order of :func:`wanted_images`.

    Names don't tell them apart: ``tiny`` and ``tiny@old`` are two wishes for images of one name.
    """
    wishes = dict.fromkeys(order["spec"]["image"] for order in orders if not order.get("image"))
    return dict(zip(wishes, images))


def _image_of(
    order: t.Mapping[str, t.Any], by_wish: t.Mapping[str, t.Mapping[str, t.Any]]
) -> t.Mapping[str, t.Any] | None:
    """The image's result, or of a machine that exists the image that it was made from."""
    if order.get("image"):
        return {"reference": order["image"]["name"], "digest": order["image"]["digest"]}
    return by_wish.get(order["spec"]["image"])


def _without_image(machine: t.Mapping[str, t.Any], cause: t.Mapping[str, t.Any] | None) -> Item:
    failure = dict(
        (cause or {}).get("failure") or {"code": "image_missing", "remedy": "Run again when the image server is back"}
    )
    msg = (cause or {}).get("msg") or f"its image {machine['spec']['image']} could not be made ready"
    return {
        "name": machine["name"],
        "uuid": machine.get("uuid"),
        "changed": False,
        "failed": True,
        "msg": f"machine {machine['name']}: {msg}",
        "failure": failure,
    }


def placement_entries(
    orders: t.Sequence[t.Mapping[str, t.Any]], images: t.Sequence[t.Mapping[str, t.Any]]
) -> dict[str, Items]:
    """Orders as the module ``placement`` takes them.

    :param orders: ordered machines: ``name``, ``uuid``, ``spec``.
    :param images: results of the module ``image`` for :func:`wanted_images` of the same orders.
    :returns: ``machines`` to be placed, and ``failed``, results of those whose image isn't to be had: they get no
        place.
    """
    machines: Items = []
    failed: Items = []
    by_wish = _by_wish(orders, images)
    for order in orders:
        image = _image_of(order, by_wish)
        if image is None or image.get("failed"):
            failed.append(_without_image(order, image))
            continue
        spec = order["spec"]
        machines.append(
            {
                **{key: order.get(key) for key in ("name", "uuid")},
                **{key: spec[key] for key in ("vcpus", "memory", "disk", "network", "goal")},
                **{
                    key: spec[key]
                    for key in (*WHERE, "owner", "tags", "performance", "extra_networks")
                    if spec.get(key)
                },
                "image": {
                    "name": image.get("reference"),
                    **{key: image.get(key) for key in ("digest", "size", "virtual_size")},
                },
            }
        )
    return {"machines": machines, "failed": failed}


def provider_share(
    orders: t.Sequence[t.Mapping[str, t.Any]],
    placed: t.Sequence[t.Mapping[str, t.Any]],
    images: t.Sequence[t.Mapping[str, t.Any]],
    provider: str,
    transferred: t.Sequence[t.Mapping[str, t.Any]] = (),
    pagers: t.Sequence[t.Mapping[str, t.Any]] = (),
) -> dict[str, Items]:
    """What one provider has to do in a deployment.

    :param orders: ordered machines: ``name``, ``uuid``, ``spec``.
    :param placed: results of the module ``placement``.
    :param images: results of the module ``image`` for :func:`wanted_images` of the same orders.
    :param transferred: results of the module ``image_transfer`` on this provider, where it has run.
    :param pagers: results of the module ``image_export`` on this provider, for images that are to be paged.
    :returns: ``images`` to bring there before their machines start, each once; ``paged``, images to bring afterwards;
        ``machines`` as entries of the module ``machine``; and ``failed``, results of the machines whose image could not
        be brought.

    In check mode, what doesn't exist yet has no uuid and no digest. It gets stand-ins here, by which nothing can exist.
    """
    by_name = {order["name"]: order for order in orders}
    by_wish = _by_wish(orders, images)
    arrived = {item["name"]: item for item in transferred}
    exports = {pager["digest"]: pager for pager in pagers if not pager.get("failed")}
    needed: dict[str, Item] = {}
    paged: dict[str, Item] = {}
    machines: Items = []
    failed: Items = []
    for place in placed:
        if place.get("failed") or place.get("provider") != provider:
            continue
        order = by_name[place["name"]]
        image = _image_of(order, by_wish) or {}
        reference = str(image.get("reference"))
        if arrived.get(reference, {}).get("failed"):
            failed.append(_without_image(order, arrived[reference]))
            continue
        digest = image.get("digest") or UNKNOWN_DIGEST
        paging = exports.get(digest) if order["spec"].get("start") == ON_DEMAND else None
        (needed if paging is None else paged)[reference] = {
            "name": reference,
            "digest": digest,
            "size": image.get("size"),
        }
        machines.append(
            {
                **order["spec"],
                "uuid": place.get("uuid") or str(uuid.uuid5(uuid.NAMESPACE_URL, place["name"])),
                "provider": provider,
                **{key: place.get(key) for key in ("generation", "site")},
                "ordered_site": order["spec"].get("site"),
                "image": {"name": reference, "digest": digest},
                **{key: image.get(key) for key in ("user", "python")},
                "exists": order.get("state") not in NOT_YET,
                **({"paging": {key: paging.get(key) for key in ("host", "port", "virtual_size")}} if paging else {}),
            }
        )
    return {"images": list(needed.values()), "paged": list(paged.values()), "machines": machines, "failed": failed}


def to_page(
    orders: t.Sequence[t.Mapping[str, t.Any]],
    placed: t.Sequence[t.Mapping[str, t.Any]],
    images: t.Sequence[t.Mapping[str, t.Any]],
    provider: str,
    here: t.Sequence[t.Mapping[str, t.Any]],
) -> Items:
    """The images that machines on a provider are to page from because they are not there, each as ``digest``.

    :param here: ``images`` of the provider as the module ``provider_info`` returns them.
    """
    share = provider_share(orders, placed, images, provider)["machines"]
    there = {image["digest"] for image in here}
    wanted = (machine["image"]["digest"] for machine in share if machine.get("start") == ON_DEMAND)
    return [{"digest": digest} for digest in dict.fromkeys(wanted) if digest not in there]


def unserved(
    wanted: t.Sequence[t.Mapping[str, t.Any]],
    exports: t.Sequence[t.Mapping[str, t.Any]],
    providers: t.Sequence[t.Mapping[str, t.Any]],
    name: str,
) -> Items:
    """What this provider is to export because the image server can't: it is the first that has it.

    :param providers: what is known of each: ``name`` and ``images``.
    """
    served = {export["digest"] for export in exports if not export.get("failed")}
    found: Items = []
    for digest in dict.fromkeys(item["digest"] for item in wanted):
        holders = [
            each["name"] for each in providers if any(image["digest"] == digest for image in each.get("images") or [])
        ]
        if digest not in served and holders[:1] == [name]:
            found.append({"digest": digest})
    return found


def sources(results: t.Mapping[str, t.Mapping[str, t.Any] | None]) -> Items:
    """The exports of layers that steps made, each with the name of its host as ``source``, in the order of the hosts.

    :param results: the step's result by host; ``None`` or one without exports where it failed or had nothing to do.
    """
    return [
        {**export, "source": host}
        for host, result in results.items()
        for export in (result or {}).get("exports") or []
        if not export.get("failed")
    ]


def pager_exports(
    wanted: t.Sequence[t.Mapping[str, t.Any]], exports: t.Sequence[t.Mapping[str, t.Any]], ports: t.Mapping[str, t.Any]
) -> Items:
    """What a provider is to page, as the module ``image_export`` takes it: each with the first source that there is.

    :param ports: at which SSH servers listen, by host, where that isn't 22.
    """
    by_digest = {export["digest"]: export for export in reversed(exports)}
    return [
        {
            "digest": digest,
            "upstream": {key: by_digest[digest].get(key) for key in ("host", "port", "virtual_size")},
            "ahead": {
                "name": by_digest[digest]["source"],
                "host": by_digest[digest]["host"],
                "port": int(ports.get(by_digest[digest]["source"]) or 22),
            },
        }
        for digest in (item["digest"] for item in wanted)
        if digest in by_digest
    ]


def by_source(
    images: t.Sequence[t.Mapping[str, t.Any]], exports: t.Sequence[t.Mapping[str, t.Any]], otherwise: str
) -> Items:
    """Images grouped by the host from which they are to be brought: ``source`` and ``images``."""
    source_of = {export["digest"]: export["source"] for export in reversed(exports)}
    groups: dict[str, Items] = {}
    for image in images:
        groups.setdefault(source_of.get(image["digest"], otherwise), []).append(dict(image))
    return [{"source": source, "images": group} for source, group in groups.items()]


def settling(
    machines: t.Sequence[t.Mapping[str, t.Any]], transfers: t.Sequence[t.Mapping[str, t.Any]], foretell: bool
) -> dict[str, Items]:
    """What comes after images were brought to machines that page from them.

    :param machines: entries of the module ``machine``.
    :param transfers: results of the module ``image_transfer``, one for each source.
    :param foretell: in check mode there is nothing yet that could be looked at.
    :returns: ``machines``, entries to settle; ``rows``, results of those whose image didn't come, or that would be
        settled.
    """
    arrived = {image["name"]: image for transfer in transfers for image in transfer.get("images") or []}
    rows: Items = []
    entries: Items = []
    for machine in (machine for machine in machines if machine.get("paging")):
        image = arrived.get(machine["image"]["name"])
        if image is None or image.get("failed"):
            rows.append(_without_image({**machine, "spec": {"image": machine["image"]["name"]}}, image))
        elif foretell:
            rows.append({"name": machine["name"], "uuid": machine["uuid"], "changed": True, "actions": ["settle"]})
        # Its power is looked after in any case.
        entries.append({key: value for key, value in machine.items() if key != "paging"})
    return {"machines": [] if foretell else entries, "rows": rows}


def identities(machines: t.Sequence[t.Mapping[str, t.Any]]) -> Items:
    """Machines as the module ``machine`` takes them for a change of power only: their uuids and names."""
    return [{"uuid": machine["uuid"], "name": machine["name"]} for machine in machines]


def step_rows(result: t.Mapping[str, t.Any], machines: t.Sequence[t.Mapping[str, t.Any]], host: str) -> Items:
    """A step's result for each machine; where the step as a whole failed or its host was unreachable, that for each.

    What isn't on the host (its creation failed, say) has no name there: it is told by the name that it was asked for.
    """
    if isinstance(result.get("machines"), list):
        names = {machine.get("uuid"): machine["name"] for machine in machines}
        return [
            {**row, "name": row.get("name") or names.get(row.get("uuid")), "provider": host}
            for row in result["machines"]
        ]
    # Where failed_when let a failure pass, "failed" is false and "failure" still tells of it.
    if not any(result.get(key) for key in ("failed", "failure", "unreachable")):
        return []
    code = "provider_unreachable" if result.get("unreachable") else "step_failed"
    failure = result.get("failure") or {
        "code": code,
        "host": host,
        "remedy": "See that the host is up and that Ansible reaches it, then run again",
    }
    return [
        {
            "name": machine["name"],
            "uuid": machine.get("uuid"),
            "provider": host,
            "changed": False,
            "failed": True,
            "msg": f"{host}: machine {machine['name']}: {result.get('msg', 'the provider could not be reached')}",
            "failure": dict(failure),
        }
        for machine in machines
    ]


def asides(hosts: t.Mapping[str, t.Mapping[str, t.Any]], steps: t.Mapping[str, str]) -> list[str]:
    """What went wrong beside the machines: steps without which a machine runs all the same, so that none of them has
    failed.

    :param hosts: the variables of each host of the play.
    :param steps: registered results by the name of their variable, and what each step was to do.
    :returns: a sentence each; what ran once for all hosts is told once.
    """
    told: dict[str, None] = {}
    for host, variables in hosts.items():
        for variable, what in steps.items():
            registered = variables.get(variable) or {}
            for result in registered.get("results") or [registered]:
                for part in [result, *(result.get("machines") or ())]:
                    text = _trouble(part)
                    if text is not None:
                        item = result.get("item")
                        where = (
                            item
                            if isinstance(item, str)
                            else item.get("home", host)
                            if isinstance(item, dict)
                            else host
                        )
                        told[f"{where}: could not {what}: {text}"] = None
    return list(told)


def _trouble(result: t.Any) -> str | None:
    """What a result says of its failure, whether its task was allowed to fail or not; ``None`` if there was none."""
    if not isinstance(result, dict) or not any(
        result.get(key) for key in ("failure", "exception", "unreachable", "failed")
    ):
        return None
    code = (result.get("failure") or {}).get("code")
    lines = str(result.get("msg") or "it ended with an exception").strip().splitlines()
    return f"{lines[0]} ({code})" if code else lines[0]
