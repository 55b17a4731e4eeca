# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One entry of the ``machines`` that a provider is given: checked again, for the host trusts nobody (pure)."""

from __future__ import annotations

import re
import typing as t
import uuid as uuids

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._ethernet import MTU_RANGE, card_mac, mac_address
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor import hardware
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import (
    ORDER_OPTIONS,
    check_text,
    parse_order,
    shorten,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._times import FOREVER, now

Entry = t.Dict[str, t.Any]

EXTRA = ("uuid", "generation", "site", "provider", "user", "python", "exists", "paging", "ordered_site", "mtu", "mtus")
"""What an entry has beside the fields of an order."""

RESERVED_SHARES = 10000
"""The weight of a machine while its reservation holds: what is reserved must not be starved by what isn't."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}", re.ASCII)
_SITE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}", re.ASCII)
_PYTHON = re.compile(r"/[A-Za-z0-9_./+-]{1,255}", re.ASCII)
# printable ASCII; RFC 6143, section 7.2.2: the key is made of the first eight characters, so a longer one would be a
# lie
_PASSWORD = re.compile(r"[\x21-\x7e]{1,8}", re.ASCII)


def check_uuid(value: t.Any) -> str:
    """``value`` as a lower-case uuid with hyphens. It becomes part of paths, so nothing else passes.

    :raises GridError: ``invalid_uuid``.
    """
    try:
        canonical = str(uuids.UUID(str(value)))
    except ValueError:
        canonical = ""
    if canonical != str(value).lower():
        raise GridError(
            "invalid_uuid", f"{shorten(value)} is not a uuid", remedy="Give the uuid as the order returned it"
        )
    return canonical


def _matching(what: str, value: t.Any, pattern: re.Pattern[str], remedy: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise GridError(f"invalid_{what}", f"{shorten(value)} is not a valid {what}", remedy=remedy)
    return value


def check_password(value: t.Any) -> str:
    """A display's password: 1 to 8 printable characters.

    :raises GridError: ``invalid_password``; the text doesn't repeat it.
    """
    if not isinstance(value, str) or not _PASSWORD.fullmatch(value):
        raise GridError(
            "invalid_password",
            "the display's password is not 1 to 8 printable ASCII characters without spaces",
            remedy="VNC looks at no more than eight characters: give a random one of eight",
        )
    return value


def label(entry: t.Any) -> str:
    """How an entry that may be anything is called in results and errors."""
    if isinstance(entry, t.Mapping):
        for key in ("name", "uuid"):
            if entry.get(key):
                return str(entry[key])[:63]
    return "(without name)"


def _image(value: t.Any) -> dict[str, str]:
    if not isinstance(value, t.Mapping):
        raise GridError("invalid_image", f"{shorten(value)} is not an image", remedy="Give its name and digest")
    digest = _matching(
        "image", value.get("digest"), _DIGEST, "Give the image's digest: sha256: and 64 hexadecimal digits"
    )
    return {"name": check_text("image", value.get("name") or digest), "digest": digest}


def cpu_tuning(performance: t.Mapping[str, t.Any], time: str) -> Entry:
    """``cpu_shares`` and ``cpu_limit`` (``{period, quota}`` of each virtual CPU, microseconds) at this time; ``None``:
    the host's default.

    While a reservation holds, the slice is what each virtual CPU may use in a period, so that the admitted sum is never
    exceeded.
    """
    shares, reservation = performance.get("cpu_shares"), performance.get("reservation")
    if not reservation or not reservation.get("from", time) <= time < reservation.get("to", FOREVER):
        return {"cpu_shares": shares, "cpu_limit": None}
    return {
        "cpu_shares": RESERVED_SHARES if shares is None else shares,
        "cpu_limit": {"period": reservation["period"], "quota": reservation["slice"]},
    }


def _paging(value: t.Any, digest: str) -> dict[str, t.Any] | None:
    """The export from which the machine may page, as the module ``image_export`` returned it."""
    if value is None:
        return None
    host, port, size = (
        value.get(key) if isinstance(value, t.Mapping) else None for key in ("host", "port", "virtual_size")
    )
    numbers = [int(number) if str(number).isascii() and str(number).isdigit() else 0 for number in (port, size)]
    if (
        not isinstance(host, str)
        or not _HOST.fullmatch(host)
        or not 0 < numbers[0] < 2**16
        or not 0 < numbers[1] < 2**63
    ):
        raise GridError(
            "invalid_paging",
            f"{shorten(value)} is not an export",
            remedy="Give host, port and virtual_size as the module image_export returned them",
        )
    return {"host": host, "port": numbers[0], "export": digest, "virtual_size": numbers[1]}


def _mtu(value: t.Any) -> int | None:
    """What the machine's network carries; its guest is told."""
    if value is None:
        return None
    text = str(value)
    if not text.isascii() or not text.isdigit() or not MTU_RANGE[0] <= int(text[:9]) <= MTU_RANGE[1]:
        raise GridError(
            "invalid_mtu",
            f"{shorten(value)} is not an MTU",
            remedy=f"Give a number from {MTU_RANGE[0]} to {MTU_RANGE[1]}",
        )
    return int(text)


def _mtus(value: t.Any) -> dict[str, int]:
    """What others of the machine's networks carry."""
    if value is not None and not isinstance(value, t.Mapping):
        raise GridError(
            "invalid_mtu", f"{shorten(value)} is not a mapping of networks to MTUs", remedy="Give one, or leave it out"
        )
    found = {str(network): _mtu(mtu) for network, mtu in (value or {}).items()}
    return {network: mtu for network, mtu in found.items() if mtu is not None}


def cards(networks: t.Iterable[str] | None, mac: str, mtus: t.Mapping[str, int]) -> dict[str, hardware.Card]:
    """A machine's cards beside its first.
    :param mac: of the first.
    :param mtus: of the networks that have one of their own."""
    return {network: hardware.Card(card_mac(network, mac), mtus.get(network)) for network in networks or ()}


def _growing(spec: Entry) -> Entry:
    """Fields of an order that say nothing are what a machine has without them."""
    most = spec.get("memory_max")
    return {
        "vcpus_max": spec.get("vcpus_max"),
        "memory_max": most if most is not None and most > spec["memory"] else None,
        "extra_networks": list(spec.get("extra_networks") or ()),
        "boot": spec.get("boot") or ["disk"],
        "autostart": spec.get("autostart"),
        "description": spec.get("description"),
    }


def _whole(entry: t.Mapping[str, t.Any], uuid: str) -> Entry:
    image = _image(entry["image"])
    order = {key: value for key, value in entry.items() if key in ORDER_OPTIONS}
    unknown = sorted(str(key) for key in set(entry) - set(ORDER_OPTIONS) - set(EXTRA))
    if unknown:
        raise GridError(
            "invalid_order",
            f"unknown fields: {shorten(', '.join(unknown))}",
            remedy=f"A machine has {', '.join((*ORDER_OPTIONS, *EXTRA))}",
        )
    spec = parse_order({**order, "image": image["name"]})
    site = _matching("site", entry.get("site") or "site", _SITE, "Give 1 to 63 letters, digits and . _ -")
    generation = entry.get("generation") or 0
    if isinstance(generation, bool) or not str(generation).isascii() or not str(generation).isdigit():
        raise GridError(
            "invalid_generation", f"{shorten(generation)} is not a generation", remedy="Give a whole number from 0"
        )
    mac, mtus = mac_address(spec["network"], site, uuid), _mtus(entry.get("mtus"))
    user, python, ordered = entry.get("user"), entry.get("python"), entry.get("ordered_site")
    return {
        **spec,
        "image": image,
        "uuid": uuid,
        "site": site,
        "ordered_site": _matching("site", ordered, _SITE, "Give 1 to 63 letters, digits and . _ -")
        if ordered
        else None,
        "generation": int(generation),
        "user": check_text("user", user) if user else None,
        "python": _matching("python", python, _PYTHON, "Give the absolute path of an interpreter") if python else None,
        **cpu_tuning(spec["performance"], now()),
        "disk_io": spec["performance"].get("disk_io") or None,
        "mac": mac,
        **_growing(spec),
        "cards": cards(spec.get("extra_networks"), mac, mtus),
        "mtu": _mtu(entry.get("mtu")),
        "mtus": mtus,
        "exists": bool(entry.get("exists")),
        "pages": _paging(entry.get("paging"), image["digest"]),
    }


def parse_entry(entry: t.Any) -> tuple[str | None, str | None, Entry | None]:
    """An entry as (uuid, name, specification); the last is ``None`` where it only says which machine is meant.

    The specification is the canonical order with ``image`` as ``{name, digest}``, ``uuid``, ``site``, ``generation``,
    ``user``, ``python``, ``cpu_shares``, ``cpu_limit``, ``disk_io``, ``mac``, ``cards`` (those on its other networks),
    ``mtu``, ``mtus``, ``exists`` and ``pages`` (the export from which it may page, or ``None``). Numbers may come as
    text, as templates make them.

    :raises GridError: ``invalid_...``.
    """
    if not isinstance(entry, t.Mapping):
        raise GridError(
            "invalid_order", f"{shorten(entry)} is not a machine", remedy="Give a mapping with uuid and name"
        )
    uuid = check_uuid(entry["uuid"]) if entry.get("uuid") else None
    name = check_text("name", entry["name"]) if entry.get("name") else None
    if entry.get("image") is None:
        if uuid is None and name is None:
            raise GridError(
                "invalid_order", "the machine has neither uuid nor name", remedy="Give at least one of them"
            )
        return uuid, name, None
    if uuid is None:
        raise GridError("invalid_uuid", "the machine has no uuid", remedy="Give the uuid as the order returned it")
    return uuid, name, _whole(entry, uuid)
