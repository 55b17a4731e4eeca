# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the steps of a deployment hang together: what each needs of the results of those before it (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._machine.spec import split_image

Item = t.Dict[str, t.Any]
Items = t.List[Item]


def wanted_images(orders: t.Sequence[t.Mapping[str, t.Any]], catalogue: t.Mapping[str, t.Mapping[str, t.Any]]) -> Items:
    """The images that orders need, each once, as entries of the module ``image``.

    An order for a version that isn't the catalogue's, or for a digest, can only be met by an image that is there: such an
    entry has no ``source``.
    """
    entries: dict[str, Item] = {}
    for order in orders:
        wanted = order["spec"]["image"]
        name, version, digest = split_image(wanted)
        known = dict(catalogue.get(name or "", {}))
        if digest:
            entry: Item = {"name": digest, "digest": digest}
        elif version is None or str(known.get("version", "")) == version:
            entry = {**known, "name": name}
        else:
            entry = {**{key: value for key, value in known.items() if key != "source"}, "name": name, "version": version}
        entries[wanted] = entry
    return list(entries.values())


def _image_of(wanted: str, images: t.Sequence[t.Mapping[str, t.Any]]) -> t.Mapping[str, t.Any] | None:
    """The image's result; of a name without version the latest result, which is the catalogue's."""
    name, version, digest = split_image(wanted)
    found = None
    for image in images:
        if digest:
            match = image.get("digest") == digest or image.get("name") == digest
        else:
            match = image.get("name") == name and (version is None or image.get("version") in (None, version))
        if match:
            found = image
    return found


def _without_image(machine: t.Mapping[str, t.Any], cause: t.Mapping[str, t.Any] | None) -> Item:
    failure = dict((cause or {}).get("failure") or {"code": "image_missing", "remedy": "Run again when the image server is back"})
    msg = (cause or {}).get("msg") or f"machine {machine['name']}: its image {machine['spec']['image']} could not be made ready"
    return {"name": machine["name"], "uuid": machine.get("uuid"), "changed": False, "failed": True, "msg": str(msg), "failure": failure}


def provider_share(
    placed: t.Sequence[t.Mapping[str, t.Any]],
    images: t.Sequence[t.Mapping[str, t.Any]],
    provider: str,
    transferred: t.Sequence[t.Mapping[str, t.Any]] = (),
) -> dict[str, Items]:
    """What one provider has to do in a deployment.

    :param placed: placed orders: ``name``, ``uuid``, ``spec``, ``provider``, ``site``, ``generation``.
    :param images: results of the module ``image``.
    :param transferred: results of the module ``image_transfer`` on this provider, where it has run.
    :returns: ``images`` to bring there, each once; ``machines`` as entries of the module ``machine``; and ``failed``, results
        of the machines whose image failed to be built or brought.
    """
    arrived = {item["name"]: item for item in transferred}
    needed: dict[str, Item] = {}
    machines: Items = []
    failed: Items = []
    for machine in placed:
        if machine.get("provider") != provider:
            continue
        image = _image_of(machine["spec"]["image"], images)
        reference = (image or {}).get("reference") or (image or {}).get("digest")
        if image is None or image.get("failed"):
            failed.append(_without_image(machine, image))
        elif arrived.get(reference, {}).get("failed"):
            failed.append(_without_image(machine, arrived[reference]))
        else:
            needed[str(reference)] = {"name": reference, **{key: image.get(key) for key in ("digest", "size", "manifest")}}
            machines.append(
                {
                    **machine["spec"],
                    **{key: machine.get(key) for key in ("uuid", "generation", "site", "provider")},
                    "image": {"name": reference, "digest": image.get("digest")},
                    **{key: image.get(key) for key in ("user", "python")},
                }
            )
    return {"images": list(needed.values()), "machines": machines, "failed": failed}


def identities(machines: t.Sequence[t.Mapping[str, t.Any]]) -> Items:
    """Machines as the module ``machine`` takes them for a change of power only: their uuids and names."""
    return [{"uuid": machine["uuid"], "name": machine["name"]} for machine in machines]


def step_rows(result: t.Mapping[str, t.Any], machines: t.Sequence[t.Mapping[str, t.Any]], host: str) -> Items:
    """A step's result for each machine; where the step as a whole failed or its host was unreachable, that for each."""
    if isinstance(result.get("machines"), list):
        return [{**row, "provider": host} for row in result["machines"]]
    if not result.get("failed") and not result.get("unreachable"):
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
