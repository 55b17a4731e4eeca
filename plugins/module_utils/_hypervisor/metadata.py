# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a domain carries of its machine: the metadata element, to and from a dictionary (pure).

A provider's libvirt is the truth about what runs on it, so the element holds all that the store needs to be rebuilt.
"""

from __future__ import annotations

import json
import re
import typing as t
import xml.etree.ElementTree as ET

NAMESPACE = "urn:virtuoso:machine:1"
PREFIX = "virtuoso"
ET.register_namespace(PREFIX, NAMESPACE)
# What others may have put into a domain keeps its usual prefix when the domain is written again.
ET.register_namespace("qemu", "http://libvirt.org/schemas/domain/qemu/1.0")
ET.register_namespace("libosinfo", "http://libosinfo.org/xmlns/libvirt/domain/1.0")

Metadata = t.Dict[str, t.Any]

_TEXTS = ("uuid", "name", "owner", "site", "network", "goal", "user", "python")
GROWTH = ("vcpus_max", "memory_max", "extra_networks", "boot", "autostart", "description")
WISHES = ("architecture", "features", "affinity", "anti_affinity", "performance", *GROWTH)
"""Fields of an order that only placement looks at, or that can't be told from the domain; carried so that the order can
be rebuilt with them."""
FIELDS = (
    *_TEXTS,
    "generation",
    "image",
    "tags",
    "packages",
    "users",
    "address",
    "wishes",
    "started",
    "autostart",
    "moving",
)
# https://www.w3.org/TR/xml/#charsets, the characters that are not allowed
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """``text`` with every character that XML 1.0 can't hold replaced by U+FFFD."""
    return _FORBIDDEN.sub("\ufffd", text)


def _tag(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def _wishes(spec: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """What the order says of where the machine may be. Its site is the provider's meanwhile, so the one that was
    ordered has a name of its own."""
    found = {field: spec[field] for field in WISHES if spec.get(field) and (field, spec[field]) != ("boot", ["disk"])}
    return {**found, "site": spec["ordered_site"]} if spec.get("ordered_site") else found


def of_spec(spec: t.Mapping[str, t.Any], started: bool) -> Metadata:
    """The metadata of a machine that is to be as ``spec`` says, in the form that :func:`read` returns.

    ``autostart`` says of a machine that sleeps that it is to be started with its provider again once it is awake.
    ``moving`` is there while the machine is on its way to another host: ``{generation, to, attempt, autostart}`` of the
    copy that comes to be there. A definition that has it can't be started.
    """
    values: Metadata = {key: clean(spec[key]) if spec.get(key) else None for key in _TEXTS}
    users = [
        {
            "name": clean(user["name"]),
            "shell": clean(user["shell"]),
            "sudo": bool(user["sudo"]),
            "ssh_authorized_keys": [clean(key) for key in user["ssh_authorized_keys"]],
        }
        for user in spec.get("users") or []
    ]
    return {
        **values,
        "generation": int(spec.get("generation") or 0),
        "image": {"name": clean(spec["image"]["name"]), "digest": clean(spec["image"]["digest"])},
        "tags": [clean(tag) for tag in spec.get("tags") or []],
        "packages": [clean(package) for package in spec.get("packages") or []],
        "users": users,
        "address": dict(spec["address"]) if spec.get("address") else None,
        "wishes": _wishes(spec),
        "started": started,
        "autostart": False,
        "moving": None,
    }


def element(values: Metadata) -> ET.Element:
    """The ``<virtuoso:machine>`` element. Escaping is the library's."""
    root = ET.Element(_tag("machine"))
    for key in _TEXTS:
        if values.get(key):
            root.set(key, values[key])
    root.set("generation", str(values["generation"]))
    for key in ("started", "autostart"):
        if values[key]:
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
    ET.SubElement(root, _tag("image"), values["image"])
    for key in ("tags", "packages"):
        for value in values[key]:
            ET.SubElement(root, _tag(key[:-1])).text = value
    for user in values["users"]:
        child = ET.SubElement(
            root, _tag("user"), {"name": user["name"], "shell": user["shell"], "sudo": "yes" if user["sudo"] else "no"}
        )
        for key in user["ssh_authorized_keys"]:
            ET.SubElement(child, _tag("key")).text = key
    for key in ("address", "wishes"):
        if values.get(key):
            ET.SubElement(root, _tag(key)).text = json.dumps(values[key], sort_keys=True)
    return root


def text(values: Metadata) -> str:
    """The element as text, for ``virDomainSetMetadata``.

    libvirt declares the namespace's prefix itself and refuses a text that has done so: here it is the default
    namespace.
    """
    root = element(values)
    for node in root.iter():
        node.tag = node.tag.partition("}")[2]
    root.set("xmlns", NAMESPACE)
    return ET.tostring(root, encoding="unicode")


def _number(value: str | None) -> int:
    # Somebody may have edited it by hand: what is no number counts as none.
    return int(value) if value and value.isascii() and value.isdigit() else 0


def _moving(root: ET.Element) -> Metadata | None:
    found = root.find(_tag("moving"))
    if found is None:
        return None
    return {
        "generation": _number(found.get("generation")),
        "to": found.get("to", ""),
        "attempt": found.get("attempt", ""),
        "autostart": found.get("autostart") == "yes",
    }


def _mapping(value: str | None) -> t.Dict[str, t.Any]:
    try:
        found = json.loads(value) if value else {}
    except (ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}


def read(domain: ET.Element) -> Metadata | None:
    """The metadata in a ``<domain>`` element; ``None`` where there is none, so the domain is not one of ours."""
    root = domain.find(f"metadata/{_tag('machine')}")
    if root is None:
        return None
    image = root.find(_tag("image"))
    users = [
        {
            "name": user.get("name", ""),
            "shell": user.get("shell", ""),
            "sudo": user.get("sudo") == "yes",
            "ssh_authorized_keys": [key.text or "" for key in user.findall(_tag("key"))],
        }
        for user in root.findall(_tag("user"))
    ]
    return {
        **{key: root.get(key) for key in _TEXTS},
        "generation": _number(root.get("generation")),
        "image": {key: (image.get(key, "") if image is not None else "") for key in ("name", "digest")},
        "tags": [tag.text or "" for tag in root.findall(_tag("tag"))],
        "packages": [package.text or "" for package in root.findall(_tag("package"))],
        "users": users,
        "address": _mapping(root.findtext(_tag("address"))) or None,
        "wishes": _mapping(root.findtext(_tag("wishes"))),
        **{key: root.get(key) == "yes" for key in ("started", "autostart")},
        "moving": _moving(root),
    }


def put(domain: ET.Element, values: Metadata) -> None:
    """Replace the machine's element in a ``<domain>`` element; the metadata of others stays."""
    holder = domain.find("metadata")
    if holder is None:
        holder = ET.Element("metadata")
        domain.insert(2, holder)
    for old in holder.findall(_tag("machine")):
        holder.remove(old)
    holder.append(element(values))
