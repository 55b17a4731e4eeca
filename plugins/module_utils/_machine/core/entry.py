# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks one entry of the module ``machine``'s ``machines``, and makes a :class:`records.Wanted` of it (pure).

The controller has checked the order, but a host trusts nobody: everything is checked again.
"""

from __future__ import annotations

import re
import typing as t
import uuid as uuids

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._ethernet import MTU_RANGE, card_mac, mac_address
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import (
    Card,
    CpuLimit,
    Growth,
    Image,
    Ordered,
    Performance,
    SizedExport,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import Order, Wanted
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import (
    ORDER_OPTIONS,
    check_text,
    parse_order,
    shorten,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._times import FOREVER, now

EXTRA = ("uuid", "generation", "site", "provider", "user", "python", "exists", "paging", "ordered_site", "mtu", "mtus")
"""The fields of an entry beside those of an order."""

RESERVED_SHARES = 10000
"""The weight of a machine while its reservation holds, so that others can't starve it."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}", re.ASCII)
_SITE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}", re.ASCII)
_PYTHON = re.compile(r"/[A-Za-z0-9_./+-]{1,255}", re.ASCII)
# Printable ASCII. RFC 6143, section 7.2.2: the key is made of the first eight characters only
_PASSWORD = re.compile(r"[\x21-\x7e]{1,8}", re.ASCII)


def check_uuid(value: object) -> str:
    """``value`` as a lower-case uuid with hyphens. It becomes part of paths, so nothing else is allowed.

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


def _matching(what: str, value: object, pattern: re.Pattern[str], remedy: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise GridError(f"invalid_{what}", f"{shorten(value)} is not a valid {what}", remedy=remedy)
    return value


def check_password(value: object) -> str:
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


def label(entry: object) -> str:
    """The name of an unchecked entry in results and errors."""
    if isinstance(entry, t.Mapping):
        for key in ("name", "uuid"):
            if entry.get(key):
                return str(entry[key])[:63]
    return "(without name)"


def _image(value: object) -> Image:
    if not isinstance(value, t.Mapping):
        raise GridError("invalid_image", f"{shorten(value)} is not an image", remedy="Give its name and digest")
    digest = _matching(
        "image", value.get("digest"), _DIGEST, "Give the image's digest: sha256: and 64 hexadecimal digits"
    )
    return {"name": check_text("image", value.get("name") or digest), "digest": digest}


class CpuTuning(t.TypedDict):
    """A machine's share of processor time; ``None`` for the host's default."""

    cpu_shares: t.Optional[int]
    cpu_limit: t.Optional[CpuLimit]


def cpu_tuning(performance: Performance, time: str) -> CpuTuning:
    """The share of processor time at this time.

    While a reservation holds, each virtual CPU may use its slice in a period and no more, so that the sum of what was
    promised is never exceeded.
    """
    shares, reservation = performance.get("cpu_shares"), performance.get("reservation")
    if not reservation or not reservation.get("from", time) <= time < reservation.get("to", FOREVER):
        return {"cpu_shares": shares, "cpu_limit": None}
    return {
        "cpu_shares": RESERVED_SHARES if shares is None else shares,
        "cpu_limit": {"period": reservation["period"], "quota": reservation["slice"]},
    }


def _paging(value: object, digest: str) -> SizedExport | None:
    """The export that the machine may page from, as the module ``image_export`` returned it."""
    if value is None:
        return None
    host, port, size = (
        value.get(key) if isinstance(value, t.Mapping) else None for key in ("host", "port", "virtual_size")
    )
    numbers = [int(text) if text.isascii() and text.isdigit() else 0 for text in (str(port), str(size))]
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


def _mtu(value: object) -> int | None:
    """The MTU of the machine's network, which its guest learns."""
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


def _mtus(value: object) -> dict[str, int]:
    """The MTUs of the machine's other networks."""
    if value is not None and not isinstance(value, t.Mapping):
        raise GridError(
            "invalid_mtu", f"{shorten(value)} is not a mapping of networks to MTUs", remedy="Give one, or leave it out"
        )
    found = {str(network): _mtu(mtu) for network, mtu in (value or {}).items()}
    return {network: mtu for network, mtu in found.items() if mtu is not None}


def cards(networks: t.Iterable[str] | None, mac: str, mtus: t.Mapping[str, int]) -> dict[str, Card]:
    """A machine's cards beside its first, by network.

    :param mac: the first card's.
    :param mtus: those that are known, by network.
    """
    return {network: Card(card_mac(network, mac), mtus.get(network)) for network in networks or ()}


def _growing(spec: Order) -> Growth:
    """The fields of growth; one that the order leaves out is what a machine has without it."""
    most = spec.get("memory_max")
    return {
        "vcpus_max": spec.get("vcpus_max"),
        "memory_max": most if most is not None and most > spec["memory"] else None,
        "extra_networks": list(spec.get("extra_networks") or ()),
        "boot": spec.get("boot") or ["disk"],
        "autostart": spec.get("autostart"),
        "description": spec.get("description"),
    }


def _require_known(entry: t.Mapping[str, object]) -> None:
    unknown = sorted(str(key) for key in set(entry) - set(ORDER_OPTIONS) - set(EXTRA))
    if unknown:
        raise GridError(
            "invalid_order",
            f"unknown fields: {shorten(', '.join(unknown))}",
            remedy=f"A machine has {', '.join((*ORDER_OPTIONS, *EXTRA))}",
        )


def _generation(value: object) -> int:
    generation = value or 0
    if isinstance(generation, bool) or not str(generation).isascii() or not str(generation).isdigit():
        raise GridError(
            "invalid_generation", f"{shorten(generation)} is not a generation", remedy="Give a whole number from 0"
        )
    return int(str(generation))


def _site(value: object) -> str:
    return _matching("site", value, _SITE, "Give 1 to 63 letters, digits and . _ -")


def _whole(entry: t.Mapping[str, object], uuid: str) -> Wanted:
    image = _image(entry["image"])
    _require_known(entry)
    spec = parse_order({**{key: value for key, value in entry.items() if key in ORDER_OPTIONS}, "image": image["name"]})
    # image and site come to be others below
    shared = t.cast(Ordered, {key: value for key, value in spec.items() if key not in ("image", "site")})
    site, generation = _site(entry.get("site") or "site"), _generation(entry.get("generation"))
    mac, mtus = mac_address(spec["network"], site, uuid), _mtus(entry.get("mtus"))
    user, python, ordered = entry.get("user"), entry.get("python"), entry.get("ordered_site")
    return {
        **shared,
        "image": image,
        "uuid": uuid,
        "site": site,
        "ordered_site": _site(ordered) if ordered else None,
        "generation": generation,
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
        "display_password": None,
    }


class Parsed(t.NamedTuple):
    """A checked entry. ``wanted`` is ``None`` where the entry only says which machine is meant."""

    uuid: t.Optional[str]
    name: t.Optional[str]
    wanted: t.Optional[Wanted]


def parse_entry(entry: object) -> Parsed:
    """A checked entry. Numbers may come as text, as templates make them.

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
        return Parsed(uuid, name, None)
    if uuid is None:
        raise GridError("invalid_uuid", "the machine has no uuid", remedy="Give the uuid as the order returned it")
    return Parsed(uuid, name, _whole(entry, uuid))
