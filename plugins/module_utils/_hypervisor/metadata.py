# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The metadata element that a domain carries of its machine, to and from :class:`records.Metadata` (pure).

A provider's libvirt is the truth about what runs on it, so the element holds all that rebuilds the store.
"""

from __future__ import annotations

import json
import re
import typing as t
import xml.etree.ElementTree as ET

from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import (
    Address,
    Image,
    Metadata,
    Moving,
    OrderedWishes,
    User,
    WantedDomain,
)

NAMESPACE = "urn:virtuoso:machine:1"
PREFIX = "virtuoso"
ET.register_namespace(PREFIX, NAMESPACE)
# What others may have put into a domain keeps its usual prefix when the domain is written again.
ET.register_namespace("qemu", "http://libvirt.org/schemas/domain/qemu/1.0")
ET.register_namespace("libosinfo", "http://libosinfo.org/xmlns/libvirt/domain/1.0")

_TEXTS = ("uuid", "name", "owner", "site", "network", "goal", "user", "python")
GROWTH = ("vcpus_max", "memory_max", "extra_networks", "boot", "autostart", "description")
WISHES = ("architecture", "features", "affinity", "anti_affinity", "performance", "ready", *GROWTH)
"""Fields of an order that only placement uses, or that can't be read from the domain. The metadata carries them so that
the order can be rebuilt."""
# https://www.w3.org/TR/xml/#charsets, the characters that are not allowed
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """``text`` with every character that XML 1.0 can't hold replaced by U+FFFD."""
    return _FORBIDDEN.sub("\ufffd", text)


def _tag(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def _wishes(spec: WantedDomain) -> OrderedWishes:
    """The fields of :data:`WISHES` that say something, and the site that was ordered: ``spec``'s own is the
    provider's."""
    given: t.Mapping[str, object] = spec
    found = {
        field: given[field] for field in WISHES if given.get(field) and (field, given[field]) != ("boot", ["disk"])
    }
    if spec.get("ordered_site"):
        found["site"] = spec["ordered_site"]
    return t.cast(OrderedWishes, found)


def _text(value: str | None) -> str | None:
    return clean(value) if value else None


def of_spec(spec: WantedDomain, started: bool) -> Metadata:
    """The metadata of a machine that is to be as ``spec`` says, in the form that :func:`read` returns."""
    address = spec.get("address")
    users: list[User] = [
        {
            "name": clean(user["name"]),
            "shell": clean(user["shell"]),
            "sudo": bool(user["sudo"]),
            "ssh_authorized_keys": [clean(key) for key in user["ssh_authorized_keys"]],
        }
        for user in spec.get("users") or []
    ]
    return {
        "uuid": _text(spec.get("uuid")),
        "name": _text(spec.get("name")),
        "owner": _text(spec.get("owner")),
        "site": _text(spec.get("site")),
        "network": _text(spec.get("network")),
        "goal": _text(spec.get("goal")),
        "user": _text(spec.get("user")),
        "python": _text(spec.get("python")),
        "generation": int(spec.get("generation") or 0),
        "image": {"name": clean(spec["image"]["name"]), "digest": clean(spec["image"]["digest"])},
        "tags": [clean(tag) for tag in spec.get("tags") or []],
        "packages": [clean(package) for package in spec.get("packages") or []],
        "users": users,
        "address": t.cast(Address, dict(address)) if address else None,
        "wishes": _wishes(spec),
        "started": started,
        "autostart": False,
        "moving": None,
    }


def element(values: Metadata) -> ET.Element:
    """The ``<virtuoso:machine>`` element. Escaping is the library's."""
    root = ET.Element(_tag("machine"))
    fields: t.Mapping[str, object] = values
    for key in _TEXTS:
        if fields.get(key):
            root.set(key, str(fields[key]))
    root.set("generation", str(values["generation"]))
    for key in ("started", "autostart"):
        if fields[key]:
            root.set(key, "yes")
    moving = values.get("moving")
    if moving:
        ET.SubElement(
            root,
            _tag("moving"),
            {
                "generation": str(moving["generation"]),
                "to": clean(moving["to"]),
                "attempt": clean(moving["attempt"]),
                "autostart": "yes" if moving["autostart"] else "no",
            },
        )
    ET.SubElement(root, _tag("image"), {"name": values["image"]["name"], "digest": values["image"]["digest"]})
    for tag, texts in (("tag", values["tags"]), ("package", values["packages"])):
        for value in texts:
            ET.SubElement(root, _tag(tag)).text = value
    for user in values["users"]:
        child = ET.SubElement(
            root, _tag("user"), {"name": user["name"], "shell": user["shell"], "sudo": "yes" if user["sudo"] else "no"}
        )
        for line in user["ssh_authorized_keys"]:
            ET.SubElement(child, _tag("key")).text = line
    for key in ("address", "wishes"):
        if fields.get(key):
            ET.SubElement(root, _tag(key)).text = json.dumps(fields[key], sort_keys=True)
    return root


def text(values: Metadata) -> str:
    """The element as text, for ``virDomainSetMetadata``.

    libvirt declares the namespace's prefix itself and refuses a text that declares it: here it is the default
    namespace.
    """
    root = element(values)
    for node in root.iter():
        node.tag = node.tag.partition("}")[2]
    root.set("xmlns", NAMESPACE)
    return ET.tostring(root, encoding="unicode")


def _number(value: str | None) -> int:
    # Somebody may have edited it by hand: what is not a number counts as 0.
    return int(value) if value and value.isascii() and value.isdigit() else 0


def _moving(root: ET.Element) -> Moving | None:
    found = root.find(_tag("moving"))
    if found is None:
        return None
    return {
        "generation": _number(found.get("generation")),
        "to": found.get("to", ""),
        "attempt": found.get("attempt", ""),
        "autostart": found.get("autostart") == "yes",
    }


def _mapping(value: str | None) -> t.Mapping[str, object]:
    """A JSON object; empty where somebody broke it."""
    try:
        found = json.loads(value) if value else {}
    except (ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}


def _image(element: ET.Element | None) -> Image:
    if element is None:
        return {"name": "", "digest": ""}
    return {"name": element.get("name", ""), "digest": element.get("digest", "")}


def read(domain: ET.Element) -> Metadata | None:
    """The metadata in a ``<domain>`` element; ``None`` where there is none, so that the domain is not one of ours."""
    root = domain.find(f"metadata/{_tag('machine')}")
    if root is None:
        return None
    image = root.find(_tag("image"))
    users: list[User] = [
        {
            "name": user.get("name", ""),
            "shell": user.get("shell", ""),
            "sudo": user.get("sudo") == "yes",
            "ssh_authorized_keys": [key.text or "" for key in user.findall(_tag("key"))],
        }
        for user in root.findall(_tag("user"))
    ]
    return {
        "uuid": root.get("uuid"),
        "name": root.get("name"),
        "owner": root.get("owner"),
        "site": root.get("site"),
        "network": root.get("network"),
        "goal": root.get("goal"),
        "user": root.get("user"),
        "python": root.get("python"),
        "generation": _number(root.get("generation")),
        "image": _image(image),
        "tags": [tag.text or "" for tag in root.findall(_tag("tag"))],
        "packages": [package.text or "" for package in root.findall(_tag("package"))],
        "users": users,
        "address": t.cast(Address, _mapping(root.findtext(_tag("address")))) or None,
        "wishes": t.cast(OrderedWishes, _mapping(root.findtext(_tag("wishes")))),
        "started": root.get("started") == "yes",
        "autostart": root.get("autostart") == "yes",
        "moving": _moving(root),
    }


def put(domain: ET.Element, values: Metadata) -> None:
    """Replace the machine's element in a ``<domain>`` element; other metadata stays."""
    holder = domain.find("metadata")
    if holder is None:
        holder = ET.Element("metadata")
        domain.insert(2, holder)
    for old in holder.findall(_tag("machine")):
        holder.remove(old)
    holder.append(element(values))
