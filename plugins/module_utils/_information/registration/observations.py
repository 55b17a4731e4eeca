# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts report of themselves and of the machines on them, checked and brought into one form (pure).

What a provider or a guest sends is not trusted: only known fields are taken, each checked; the rest is dropped.
"""

from __future__ import annotations

import re
import shlex
import typing as t
import uuid as uuids

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.records import (
    DisplayPlace,
    ImageName,
    MachineFacts,
    ReportedFacts,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import (
    DISPLAYS,
    GOALS,
    GROWTH,
    NETWORK,
    WHERE,
    check_text,
    shorten,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.state.evidence import OWN_WORD, usable


class _HostNamed(t.TypedDict):
    name: str
    kind: str  # provider or home


class SeenHost(_HostNamed, total=False):
    """A provider or home as it was seen; a field that was not given is missing, so that the store keeps its value."""

    site: str
    address: str
    port: int
    login: str
    identity_file: str
    ssh_args: str
    price: float  # per hour
    facts: ReportedFacts
    cpus: int | None
    memory: int | None  # bytes
    disk: int | None  # bytes


class _MachineKnown(t.TypedDict):
    name: str
    uuid: str
    state: str
    provider: str  # name
    owner: str | None
    facts: MachineFacts


class SeenMachine(_MachineKnown, total=False):
    """A machine as its provider reported it; a field that was not given is missing.

    ``users``, ``packages``, ``address`` and ``wishes`` are unchecked: they only serve to rebuild an order, which
    checks them.
    """

    cpus: int
    memory: int  # bytes
    disk: int  # bytes
    generation: int
    users: object
    packages: object
    address: object
    wishes: object


class Measured(t.TypedDict):
    """What a provider measured of itself; ``None`` for what it didn't report in the right form. Sizes in bytes."""

    architecture: str | None
    virtualization: str | None
    libvirt_version: str | None
    qemu_version: str | None
    load: float | None
    cpus_allocated: int | None
    memory_free: int | None
    memory_allocated: int | None
    disk_free: int | None
    disk_allocated: int | None


STATES = ("running", "stopped", "paused", "hibernated", "absent")
KINDS = ("provider", "home")

MEASURED = frozenset(
    {
        *("load", "memory_free", "memory_allocated", "cpus_allocated", "disk_free", "disk_allocated"),
        *("images", "latencies"),
    }
)
"""Facts that differ at every look. They are kept, but don't count as a change of the host."""

_MOST_ADDRESSES = 64

_FORMS: dict[str, tuple[str, str]] = {
    "host": (r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}", "1 to 253 letters, digits and . _ -"),
    "site": (r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}", "1 to 63 letters, digits and . _ -"),
    "address": (r"[A-Za-z0-9_:][A-Za-z0-9._:%-]{0,252}", "an IP address or a host name"),
    "login": (r"[A-Za-z0-9_][A-Za-z0-9._@\\-]{0,63}", "a user name"),
    "path": (r"[^\x00-\x1f\x7f]{1,4096}", "a path"),
    "arguments": (r"[^\x00-\x1f\x7f]{0,16384}", "arguments of ssh, on one line"),
}
_COMPILED = {what: re.compile(form, re.ASCII) for what, (form, dummy) in _FORMS.items()}


_CLEARED = ("login", "identity_file", "ssh_args")
"""Columns in which nothing is a word, too: ssh has it in its own configuration."""


def _check(what: str, value: object) -> str:
    if not isinstance(value, str) or not _COMPILED[what].fullmatch(value):
        raise GridError(f"invalid_{what}", f"{shorten(value)} is not a valid {what}", remedy=f"Give {_FORMS[what][1]}")
    return value


def _matching(pattern: str) -> t.Callable[[object], str | None]:
    """A function that returns a text of this form, and ``None`` for anything else."""
    compiled = re.compile(pattern, re.ASCII)
    return lambda value: value if isinstance(value, str) and compiled.fullmatch(value) else None


def _count(value: object, below: int = 2**63) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below else None


def _load(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 2**20 else None


def _price(value: object) -> float:
    try:
        price = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else -1.0
    except ValueError:
        price = -1.0
    if not 0 <= price < 1e15:
        raise GridError(
            "invalid_price", f"{shorten(value)} is not a price", remedy="Give a number from 0, the price of an hour"
        )
    return price


def read_host(given: object) -> SeenHost:
    """A host from an entry of the option ``providers``.

    :raises GridError: ``invalid_host``, ``invalid_site``, ``invalid_address`` and others named after the field. Their
        values come from the user's own inventory.
    """
    if not isinstance(given, t.Mapping):
        raise GridError(
            "invalid_host",
            f"{shorten(given)} is not a host",
            remedy="Give each host as a mapping with at least name and site",
        )
    name, kind = _check("host", given.get("name")), given.get("kind") or "provider"
    if kind not in KINDS:
        raise GridError(
            "invalid_kind", f"{shorten(kind)} is not a kind of host", remedy=f"Give one of {', '.join(KINDS)}"
        )
    row: dict[str, object] = {"name": name, "kind": kind}
    forms = {"site": "site", "address": "address", "login": "login", "identity_file": "path", "ssh_args": "arguments"}
    for column, form in forms.items():
        value = given.get("user" if column == "login" else column)
        if value is not None and value != "":
            row[column] = _check(form, str(value))
        elif value == "" and column in _CLEARED:
            row[column] = None
    if given.get("port") in (0, "0"):
        row["port"] = None
    elif given.get("port"):
        port = str(given["port"])
        if not port.isascii() or not port.isdecimal() or not 0 < int(port[:9]) < 65536:
            raise GridError(
                "invalid_port", f"{shorten(port)} is not a port", remedy="Give a whole number from 1 to 65535"
            )
        row["port"] = int(port)
    if given.get("price") not in (None, ""):
        row["price"] = _price(given["price"])
    try:
        shlex.split(str(row.get("ssh_args", "")))
    except ValueError as exc:
        raise GridError(
            "invalid_arguments",
            f"the arguments of ssh can't be split: {exc}",
            remedy="Close the quotes in ansible_ssh_common_args",
        ) from exc
    facts = given.get("facts")
    if isinstance(facts, t.Mapping) and facts:
        # Machines have rows of their own; a copy here would outlive their retirement.
        row["facts"] = {key: value for key, value in facts.items() if key != "machines"}
        row.update({column: _count(facts.get(column)) for column in ("cpus", "memory", "disk")})
    return t.cast(SeenHost, row)


def read_measured(facts: t.Mapping[str, object]) -> Measured:
    """The columns of ``host`` that a provider's facts fill."""
    version = _matching(r"[0-9][0-9A-Za-z.+~-]{0,31}")
    return {
        "architecture": _matching(r"[A-Za-z0-9_]{1,16}")(facts.get("architecture")),
        "virtualization": _matching(r"kvm|qemu")(facts.get("virtualization")),
        "libvirt_version": version(facts.get("libvirt_version")),
        "qemu_version": version(facts.get("qemu_version")),
        "load": _load(facts.get("load")),
        "cpus_allocated": _count(facts.get("cpus_allocated"), below=2**31),
        "memory_free": _count(facts.get("memory_free")),
        "memory_allocated": _count(facts.get("memory_allocated")),
        "disk_free": _count(facts.get("disk_free")),
        "disk_allocated": _count(facts.get("disk_allocated")),
    }


def read_latencies(facts: t.Mapping[str, object]) -> dict[str, float]:
    """Seconds to each site that the host measured, by the site's name."""
    latencies = facts.get("latencies")
    found = {}
    for entry in latencies if isinstance(latencies, (list, tuple)) else ():
        seconds = entry.get("seconds") if isinstance(entry, t.Mapping) else None
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds < 3600:
            continue
        if isinstance(entry.get("site"), str):
            found[entry["site"]] = float(seconds)
    return found


def read_layers(facts: t.Mapping[str, object]) -> list[str]:
    """The digests of the layers that the host has."""
    is_digest = _matching(r"sha256:[0-9a-f]{64}")
    images = facts.get("images")
    found = (
        [image.get("digest") for image in images if isinstance(image, t.Mapping)]
        if isinstance(images, (list, tuple))
        else []
    )
    return sorted({digest for digest in map(is_digest, found) if digest})


def usable_addresses(values: object) -> list[str]:
    """Addresses at which another host may reach the machine, IPv4 first, else in the order given: those that
    :func:`usable` lets pass. A guest can claim any address."""
    given = list(values)[:_MOST_ADDRESSES] if isinstance(values, (list, tuple)) else []
    return usable(value.partition("/")[0] for value in given if isinstance(value, str))


def without_addresses_of(seen: SeenMachine, hosts: t.Container[str]) -> SeenMachine:
    """``seen`` without those addresses that are a host's, where they are the guest's own word.

    :param hosts: the addresses of providers and homes.
    """
    facts = seen["facts"]
    if facts.get("address_source") not in OWN_WORD:
        return seen
    kept = [address for address in facts.get("addresses") or [] if address not in hosts]
    return t.cast(SeenMachine, {**seen, "facts": {**facts, "addresses": kept}})


def _image(value: object) -> ImageName | None:
    if not isinstance(value, t.Mapping):
        return None
    name = _matching(r"[a-z0-9][a-z0-9._-]{0,62}(@[A-Za-z0-9][A-Za-z0-9._-]{0,62})?")(value.get("name"))
    digest = _matching(r"sha256:[0-9a-f]{64}")(value.get("digest"))
    return {"name": name, "digest": digest} if name or digest else None


def _display(value: object) -> DisplayPlace | None:
    if not isinstance(value, t.Mapping):
        return None
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in DISPLAYS:
        return None
    host = _matching(_FORMS["address"][0])(value.get("host"))
    return {"type": kind, "host": host, "port": _count(value.get("port"), below=65536)}


def _tags(value: object) -> list[str]:
    is_tag = _matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
    return sorted({tag for tag in value if is_tag(tag)}) if isinstance(value, (list, tuple)) else []


_FACTS: dict[str, t.Callable[[object], object]] = {
    "image": _image,
    "addresses": usable_addresses,
    "address_source": _matching(r"agent|lease|neighbour|home"),
    "mac": _matching(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}"),
    "display": _display,
    "network": _matching(NETWORK),
    "goal": lambda value: value if value in GOALS else None,
    "tags": _tags,
    "user": _matching(r"[a-z_][a-z0-9_-]{0,31}"),
    "python": _matching(r"/[A-Za-z0-9_./+-]{1,200}"),
    "restart_required": lambda value: value if isinstance(value, bool) else None,
}


def read_machine(given: object) -> SeenMachine:
    """One machine, from what ``machine_info`` or ``machine`` returned of it.

    :raises GridError: ``invalid_name``, ``invalid_uuid``, ``invalid_state``, ``invalid_host``.
    """
    if not isinstance(given, t.Mapping):
        raise GridError(
            "invalid_name", f"{shorten(given)} is not a machine", remedy="Give each machine as machine_info returned it"
        )
    name = check_text("name", given.get("name"))
    try:
        uuid = str(uuids.UUID(str(given.get("uuid"))))
    except ValueError as exc:
        raise GridError(
            "invalid_uuid",
            f"{shorten(given.get('uuid'))} is not a uuid",
            remedy="Give each machine as machine_info returned it",
        ) from exc
    if given.get("state") not in STATES:
        raise GridError(
            "invalid_state", f"{shorten(given.get('state'))} is not a state", remedy=f"Give one of {', '.join(STATES)}"
        )
    row: dict[str, object] = {
        "name": name,
        "uuid": uuid,
        "state": given["state"],
        "provider": _check("host", given.get("provider")),
        "owner": _matching(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}")(given.get("owner")),
        "facts": {fact: read(given[fact]) for fact, read in _FACTS.items() if fact in given},
    }
    row.update({field: given[field] for field in ("users", "packages", "address", "wishes") if given.get(field)})
    for column, source in (("cpus", "vcpus"), ("memory", "memory"), ("disk", "disk"), ("generation", "generation")):
        value = _count(given.get(source))
        if value is not None:
            row[column] = value
    return t.cast(SeenMachine, row)


def wish_of(seen: SeenMachine) -> dict[str, object]:
    """The order that a machine must have come from, as far as its provider reported it; unchecked."""
    facts = seen["facts"]
    image, display, wishes = facts.get("image"), facts.get("display"), seen.get("wishes")
    more = wishes if isinstance(wishes, t.Mapping) else {}
    wish: dict[str, object] = {
        "name": seen["name"],
        "owner": seen["owner"],
        "image": image and (image["name"] or image["digest"]),
        "vcpus": seen.get("cpus"),
        "memory": None if seen.get("memory") is None else str(seen["memory"]),
        "disk": None if seen.get("disk") is None else str(seen["disk"]),
        "network": facts.get("network"),
        "goal": facts.get("goal"),
        "tags": facts.get("tags"),
        "display": display["type"] if display else "none",
        "users": seen.get("users"),
        "packages": seen.get("packages"),
        "address": seen.get("address"),
        **{field: value for field, value in more.items() if field in (*WHERE, *GROWTH, "performance", "ready")},
    }
    return {field: value for field, value in wish.items() if value is not None}
