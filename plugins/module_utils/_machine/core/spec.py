# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An order as a user writes it, checked and brought into its canonical form, :class:`records.Order` (pure)."""

from __future__ import annotations

import copy
import re
import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import Spec as Options
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.records import (
    DiskLimits,
    Growth,
    Performance,
    Reservation,
    User,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.form import (
    require_form,
    require_text,
    whole_keys,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.ordered_address import (
    ADDRESS_OPTIONS,
    parse_address,
)
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.records import Order
from ansible_collections.virtuoso.grid.plugins.module_utils._names import FORMS, shorten
from ansible_collections.virtuoso.grid.plugins.module_utils._times import parse_microseconds, parse_time
from ansible_collections.virtuoso.grid.plugins.module_utils._units import format_size, parse_size

Spec = Order
"""The name of :class:`records.Order` in other rooms."""

Given = t.Mapping[str, t.Any]
"""Options as the argument specification has typed them. ``Any``, because each field has a type of its own."""

MIB = 2**20
# Memory is added to a running machine in such blocks.
BLOCK = 2 * MIB
MEMORY_RANGE = (16 * MIB, 16 * 2**40)
DISK_RANGE = (MIB, 64 * 2**40)
VCPUS_RANGE = (1, 1024)
SHARES_RANGE = (1, 10000)
# https://libvirt.org/formatdomain.html#cpu-tuning, period and quota
PERIOD_RANGE = (1000, 1000000)
SLICE_LEAST = 1000
# A guest that can read nothing hangs: 64 KiB and ten requests a second are the least.
DISK_IO_RANGES = {"bytes": (2**16, 2**40), "iops": (10, 10**7)}

GOALS = ("balance", "pack", "price", "interactivity")
DISPLAYS = ("vnc", "none")
STARTS = ("whole", "on_demand")
READY = ("ssh", "cloud_init", "address", "none")
BOOTS = ("disk", "network")
DESCRIPTION_LENGTH = 500

WHERE = ("site", "architecture", "features", "affinity", "anti_affinity")
"""The fields of an order that only placement uses."""

GROWTH = ("vcpus_max", "memory_max", "extra_networks", "boot", "autostart", "description")
"""Fields that an order has only where it says something of them."""

USER_OPTIONS: Options = {
    "name": {"type": "str", "required": True},
    "ssh_authorized_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "sudo": {"type": "bool", "default": True},
    "shell": {"type": "str", "default": "/bin/bash"},
}

RESERVATION_OPTIONS: Options = {
    "period": {"type": "raw", "required": True},
    "slice": {"type": "raw", "required": True},
    "memory": {"type": "str"},
    "from": {"type": "raw"},
    "to": {"type": "raw"},
}

DISK_IO_OPTIONS: Options = {
    "read_bytes": {"type": "str"},
    "write_bytes": {"type": "str"},
    "read_iops": {"type": "int"},
    "write_iops": {"type": "int"},
}

PERFORMANCE_OPTIONS: Options = {
    "cpu_shares": {"type": "int"},
    "disk_io": {"type": "dict", "options": DISK_IO_OPTIONS},
    "reservation": {"type": "dict", "options": RESERVATION_OPTIONS},
}

ORDER_OPTIONS: Options = {
    "name": {"type": "str", "required": True},
    "owner": {"type": "str", "required": True},
    "image": {"type": "str", "required": True},
    "vcpus": {"type": "int", "default": 1},
    "memory": {"type": "str", "default": "512 MiB"},
    "disk": {"type": "str"},
    "packages": {"type": "list", "elements": "str", "default": []},
    "users": {"type": "list", "elements": "dict", "default": [], "options": USER_OPTIONS},
    "network": {"type": "str", "default": "virtuoso"},
    "address": {"type": "dict", "options": ADDRESS_OPTIONS},
    "display": {"type": "str", "default": "vnc", "choices": list(DISPLAYS)},
    "performance": {"type": "dict", "default": {}, "options": PERFORMANCE_OPTIONS},
    "goal": {"type": "str", "default": "balance", "choices": list(GOALS)},
    "tags": {"type": "list", "elements": "str", "default": []},
    "site": {"type": "str"},
    "architecture": {"type": "str"},
    "features": {"type": "list", "elements": "str"},
    "affinity": {"type": "list", "elements": "str"},
    "anti_affinity": {"type": "list", "elements": "str"},
    "start": {"type": "str", "default": "whole", "choices": list(STARTS)},
    "ready": {"type": "str", "choices": list(READY)},
    "vcpus_max": {"type": "int"},
    "memory_max": {"type": "str"},
    "extra_networks": {"type": "list", "elements": "str"},
    "boot": {"type": "list", "elements": "str", "choices": list(BOOTS)},
    "autostart": {"type": "bool"},
    "description": {"type": "str"},
}
"""The fields of one entry of ``virtuoso_machines``, as Ansible argument specification."""

NETWORK = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,49}"
"""The form of a network's name."""

_PATTERNS: dict[str, tuple[str, str]] = {
    # RFC 1123, section 2.1 and RFC 1035, section 2.3.4: one label of a host name
    "name": (
        r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        "1 to 63 lower-case letters, digits and inner hyphens, like a host name",
    ),
    "owner": (r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}", "1 to 64 letters, digits and . _ @ -"),
    "image": (
        f"{FORMS['name'][0]}(@{FORMS['version'][0]})?|{FORMS['digest'][0]}",
        "a name, name@version, or sha256: and 64 hexadecimal digits",
    ),
    # libvirt takes almost any; a network between sites has a narrower form of its own (_overlay/plan/model)
    "network": (NETWORK, "1 to 50 letters, digits and . _ -, not starting with a dot or hyphen"),
    "tag": (r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", "1 to 63 letters, digits and . _ -"),
    "site": (r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}", "1 to 63 letters, digits and . _ -"),
    "architecture": (r"[a-z0-9_]{1,16}", "an architecture as the kernel names it, for example x86_64"),
    "feature": (r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", "1 to 63 letters, digits and . _ -"),
    "affinity": (
        r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?|tag:[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}",
        "the name of a machine, or tag: and a tag",
    ),
    # Debian Policy, section 5.6.7
    "package": (r"[a-z0-9][a-z0-9+.-]{1,126}", "a Debian package name"),
    "user": FORMS["user"],
    "shell": (r"/[A-Za-z0-9_./+-]{1,255}", "the absolute path of a shell in the machine, such as /bin/bash"),
    # sshd(8), AUTHORIZED_KEYS FILE FORMAT, without options
    "SSH key": (
        r"(ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]{2,60} [A-Za-z0-9+/]{16,16384}={0,3}( .{0,200})?",
        "one line: type, key in base64, comment",
    ),
}
_FILE = re.compile(r"[/~.]\S*|\S+\.pub", re.ASCII)
_WITH_OPTIONS = re.compile(r"\s(ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]{2,60} [A-Za-z0-9+/]{16}", re.ASCII)
_COMPILED = {what: re.compile(pattern, re.ASCII) for what, (pattern, dummy) in _PATTERNS.items()}


def check_text(what: str, value: object) -> str:
    """``value`` if it has the form of a ``name``, ``owner``, ``image``, ``network``, ``tag``, ``package``, ``user`` or
    ``SSH key``.

    :raises GridError: ``invalid_<what>``.
    """
    code = "invalid_" + what.lower().replace(" ", "_")
    require_text(what, value, code)
    if not isinstance(value, str) or not _COMPILED[what].fullmatch(value) or not value.isprintable():
        raise GridError(code, f"{shorten(value)} is not a valid {what}", remedy=f"Give {_PATTERNS[what][1]}")
    return value


def _check_range(what: str, value: int, allowed: tuple[int, int], whose: str = "") -> int:
    """:param whose: the field that it is part of, with which the code is made."""
    if not allowed[0] <= value <= allowed[1]:
        raise GridError(
            f"invalid_{whose or what}",
            f"{what} {value} is out of range" if not whose else f"{what} {value} of {whose} is out of range",
            remedy=f"Give between {allowed[0]} and {allowed[1]}",
        )
    return value


def parse_order(entry: object, defaults: t.Mapping[str, object] | None = None) -> Order:
    """The canonical form of one ordered machine. Fields about where it may be are only in it where they say something.

    :param entry: one item of ``virtuoso_machines``.
    :param defaults: values for fields that the entry leaves out, for example ``owner``.
    :returns: the order; lists of names are sorted and without duplicates, so that equal orders are equal values.
    :raises GridError: ``invalid_order`` for wrong fields or types; ``invalid_name``, ``invalid_size``... for wrong
        values.
    """
    if not isinstance(entry, t.Mapping):
        raise GridError(
            "invalid_order",
            f"{shorten(entry)} is not a machine",
            remedy="Give each machine as a mapping with at least name and image",
        )
    given = {**(defaults or {}), **{key: value for key, value in entry.items() if value is not None}}
    nulls = {key: None for key in entry if key not in given}
    # The name is checked first, because every later error contains it.
    about = f"machine {shorten(given.get('name', '(without name)'))}"
    try:
        if "name" in given:
            check_text("name", given["name"])
        require_form({**given, **nulls}, ORDER_OPTIONS, "a machine")
        checked = ArgumentSpecValidator(copy.deepcopy(ORDER_OPTIONS)).validate(whole_keys(given))
        if checked.error_messages:
            raise GridError(
                "invalid_order",
                "; ".join(checked.error_messages),
                remedy="Correct it: docs/ordering.md has each field's type, and what it can be",
            )
        return _canonical(checked.validated_parameters)
    except GridError as exc:
        exc.on(object=about, tried="read the order")
        raise


def parse_reservation(given: Given) -> Reservation:
    """A reservation in its canonical form. A field that isn't given is left out.

    :raises GridError: ``invalid_duration``, ``invalid_size``, ``invalid_time``, ``invalid_reservation``.
    """
    period = parse_microseconds(given["period"], "period", minimum=PERIOD_RANGE[0], maximum=PERIOD_RANGE[1])
    reservation: Reservation = {
        "period": period,
        "slice": parse_microseconds(given["slice"], "slice", minimum=SLICE_LEAST, maximum=period),
    }
    if given.get("memory") is not None:
        reservation["memory"] = -(-parse_size(given["memory"], "memory of the reservation") // MIB) * MIB
    if given.get("from") is not None:
        reservation["from"] = parse_time(given["from"], "from")
    if given.get("to") is not None:
        reservation["to"] = parse_time(given["to"], "to")
    if "from" in reservation and "to" in reservation and reservation["from"] >= reservation["to"]:
        raise GridError(
            "invalid_reservation",
            f"the reservation ends at {reservation['to']}, not after its beginning at {reservation['from']}",
            remedy="Give a time in to that is after from",
        )
    return reservation


def parse_disk_io(given: Given) -> DiskLimits:
    """The limits of a disk in their canonical form. A field that isn't given is left out.

    :raises GridError: ``invalid_size``, ``invalid_disk_io``.
    """
    limits: dict[str, int] = {}
    for field in DISK_IO_OPTIONS:
        if given.get(field) is None:
            continue
        if field.endswith("_bytes"):
            limits[field] = parse_size(
                given[field],
                f"{field} of disk_io",
                minimum=DISK_IO_RANGES["bytes"][0],
                maximum=DISK_IO_RANGES["bytes"][1],
            )
        else:
            limits[field] = _check_range(field, given[field], DISK_IO_RANGES["iops"], "disk_io")
    return t.cast(DiskLimits, limits)


def _performance(given: Given, memory: int) -> Performance:
    performance: Performance = {}
    if given.get("cpu_shares") is not None:
        performance["cpu_shares"] = _check_range("cpu_shares", given["cpu_shares"], SHARES_RANGE)
    if given.get("disk_io") is not None:
        performance["disk_io"] = parse_disk_io(given["disk_io"])
    if given.get("reservation") is not None:
        reservation = performance["reservation"] = parse_reservation(given["reservation"])
        if reservation.get("memory", 0) > memory:
            raise GridError(
                "invalid_reservation",
                f"{format_size(reservation['memory'])} of memory are reserved, the machine has {format_size(memory)}",
                remedy="Reserve no more than the machine's memory, or leave memory out to reserve all of it",
            )
    return performance


class _Where(t.TypedDict, total=False):
    site: str
    architecture: str
    features: t.List[str]
    affinity: t.List[str]
    anti_affinity: t.List[str]


def _names(form: str, names: t.Iterable[object]) -> list[str]:
    return sorted({check_text(form, each) for each in names})


def _where(spec: Given) -> _Where:
    """The fields about where a machine may be, those that say something."""
    found: _Where = {}
    if spec.get("site"):
        found["site"] = check_text("site", spec["site"])
    if spec.get("architecture"):
        found["architecture"] = check_text("architecture", spec["architecture"])
    if spec.get("features"):
        found["features"] = _names("feature", spec["features"])
    if spec.get("affinity"):
        found["affinity"] = _names("affinity", spec["affinity"])
    if spec.get("anti_affinity"):
        found["anti_affinity"] = _names("affinity", spec["anti_affinity"])
    near, apart = found.get("affinity", []), found.get("anti_affinity", [])
    both = sorted(set(near) & set(apart))
    if both or spec["name"] in near or spec["name"] in apart:
        raise GridError(
            "impossible_affinity",
            f"{', '.join(both)} can't be in affinity and in anti_affinity of the same machine"
            if both
            else "a machine can't be bound to itself",
            remedy="Name other machines, each in affinity or in anti_affinity",
        )
    return found


def _bound(what: str, most: int, least: int, shown: str) -> int:
    if most < least:
        raise GridError(
            f"invalid_{what}",
            f"{what} is less than the {shown} that the machine has",
            remedy=f"Give at least {shown}, or leave it out",
        )
    return most


def _growth(spec: Given, memory: int) -> Growth:
    """The fields of :data:`GROWTH` that say something."""
    found: Growth = {}
    if spec.get("vcpus_max") is not None:
        found["vcpus_max"] = _bound(
            "vcpus_max",
            _check_range("vcpus_max", spec["vcpus_max"], VCPUS_RANGE),
            spec["vcpus"],
            f"{spec['vcpus']} vcpus",
        )
    if spec.get("memory_max") is not None:
        size = parse_size(spec["memory_max"], "memory_max", minimum=MEMORY_RANGE[0], maximum=MEMORY_RANGE[1])
        found["memory_max"] = _bound("memory_max", -(-size // BLOCK) * BLOCK, memory, format_size(memory))
    others = _names("network", spec.get("extra_networks") or ())
    if spec["network"] in others:
        raise GridError(
            "invalid_network",
            f"the network {spec['network']} is in extra_networks too",
            remedy="Each network has one card of the machine: name others",
        )
    if others:
        found["extra_networks"] = others
    if spec.get("boot"):
        found["boot"] = list(dict.fromkeys(spec["boot"]))
    if spec.get("autostart") is not None:
        found["autostart"] = spec["autostart"]
    if spec.get("description"):
        found["description"] = _description(spec["description"].strip())
    return found


def _description(text: str) -> str:
    if len(text) > DESCRIPTION_LENGTH or not all(char.isprintable() or char == "\n" for char in text):
        raise GridError(
            "invalid_description",
            f"the description has {len(text)} characters"
            if len(text) > DESCRIPTION_LENGTH
            else "the description has characters that can't be shown",
            remedy=f"Give at most {DESCRIPTION_LENGTH} printable characters",
        )
    return text


def _users(given: t.Iterable[Given]) -> list[User]:
    users: list[User] = [
        {
            "name": check_text("user", user["name"]),
            "ssh_authorized_keys": _keys(user["name"], user["ssh_authorized_keys"]),
            "sudo": user["sudo"],
            "shell": check_text("shell", user["shell"]),
        }
        for user in given
    ]
    names = [user["name"] for user in users]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise GridError(
            "invalid_user", f"users has {', '.join(twice)} more than once", remedy="Give each user once, with all keys"
        )
    return users


def _keys(user: str, texts: t.Iterable[str]) -> list[str]:
    """A user's keys, each once. Each of ``texts`` is a key, or what a file of keys has: a line for each, and comments.

    :raises GridError: ``invalid_ssh_key``.
    """
    lines = [line.strip() for text in texts for line in text.splitlines()]
    keys = [_key(user, line) for line in lines if line and not line.startswith("#")]
    return list(dict.fromkeys(keys))


def _key(user: str, line: str) -> str:
    if _COMPILED["SSH key"].fullmatch(line) and line.isprintable():
        return line
    form = f"Give {_PATTERNS['SSH key'][1]}"
    if "PRIVATE KEY" in line:
        problem, remedy = "a private key", "Give the public one, which is in the file whose name ends with .pub"
    elif _FILE.fullmatch(line):
        problem = f"the name of a file, {shorten(line)}"
        remedy = "Give what is in it: \"{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}\""
    elif _WITH_OPTIONS.search(line):
        problem, remedy = f"a key with options before it, {shorten(line)}", f"{form}, without options"
    else:
        problem, remedy = f"no SSH key: {shorten(line)}", form
    raise GridError("invalid_ssh_key", f"ssh_authorized_keys of user {user} has {problem}", remedy=remedy)


def _canonical(spec: Given) -> Order:
    for what in ("owner", "image", "network"):
        check_text(what, spec[what])
    _check_range("vcpus", spec["vcpus"], VCPUS_RANGE)
    memory = parse_size(spec["memory"], "memory", minimum=MEMORY_RANGE[0], maximum=MEMORY_RANGE[1])
    disk = (
        None
        if spec.get("disk") is None
        else parse_size(spec["disk"], "disk", minimum=DISK_RANGE[0], maximum=DISK_RANGE[1])
    )
    users = _users(spec["users"])
    # libvirt and QEMU count guest memory in whole MiB on x86; rounding here keeps order and machine equal
    step = MIB if spec.get("memory_max") is None else BLOCK
    memory = -(-memory // step) * step
    address = parse_address(spec.get("address"))
    order: Order = {
        "name": spec["name"],
        "owner": spec["owner"],
        "image": spec["image"],
        "vcpus": spec["vcpus"],
        "network": spec["network"],
        "display": spec["display"],
        "goal": spec["goal"],
        "start": spec["start"],
        **_where(spec),
        **_growth(spec, memory),
        "memory": memory,
        "disk": None if disk is None else -(-disk // MIB) * MIB,
        "packages": _names("package", spec["packages"]),
        "users": users,
        "performance": _performance(spec["performance"] or {}, memory),
        "tags": _names("tag", spec["tags"]),
    }
    if address is not None:
        order["address"] = address
    if spec.get("ready") is not None:
        order["ready"] = spec["ready"]
    return order


def split_image(image: str) -> tuple[str | None, str | None, str | None]:
    """The parts of an image as ordered: (name, version, digest); ``None`` for a part that it doesn't have."""
    if image.startswith("sha256:"):
        return None, None, image
    name, dummy, version = image.partition("@")
    return name, version or None, None


def reference(uuid: str) -> str:
    """The reference of a machine: its uuid as a URN (RFC 9562)."""
    return f"urn:uuid:{uuid}"
