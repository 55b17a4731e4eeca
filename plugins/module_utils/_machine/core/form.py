# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an order has the fields that there are, and texts where texts are wanted (pure).

Ansible's own validation takes a number, or yes and no, for the text that it prints it as; but what YAML read of it is
another text than was written.
"""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import Spec as Options
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._names import shorten

SIZES = ("memory", "memory_max", "disk", "read_bytes", "write_bytes")
"""Fields of type text in which a number is as good: it counts bytes."""


def require_text(what: str, value: object, code: str = "invalid_order") -> None:
    """See that ``value`` is not what YAML makes of a text without quotes: a number, yes or no, nothing.

    :param what: what it is, for the message.
    :raises GridError: ``code``.
    """
    if isinstance(value, str):
        return
    if isinstance(value, bool):
        found, example = f"the truth value {str(value).lower()}", "yes" if value else "no"
        reads = "yes, no, on, off, true and false without quotes as truth values"
    elif isinstance(value, (int, float)):
        found, example, reads = f"the number {value}", str(value), "digits without quotes as a number, and 007 as 7"
    elif value is None:
        found, example, reads = "null", "null", "null, ~ and nothing at all as no value"
    else:
        raise GridError(code, f"{what} is {shorten(value)}, where a text is wanted", remedy="Give a text")
    raise GridError(
        code,
        f"{what} is {found}, where a text is wanted",
        remedy=f'Quote it as it was meant, for example "{example}"; in a template, add | string. YAML reads {reads}',
    )


def require_form(given: t.Mapping[object, object], options: Options, kind: str, path: str = "") -> None:
    """See that ``given`` has only fields of ``options``, and texts where they want texts; so have the mappings in it.

    :param kind: what it is, for the message.
    :param path: the field that it is in, and a dot.
    :raises GridError: ``invalid_order``.
    """
    unknown = sorted(str(key) for key in given if key not in options)
    if unknown:
        names = ", ".join(path + key for key in unknown)
        raise GridError(
            "invalid_order",
            f"Unsupported {'field' if len(unknown) == 1 else 'fields'}: {shorten(names)}",
            remedy=f"The fields of {kind} are: {', '.join(options)}",
        )
    for field, option in options.items():
        if field in given:
            _require_field(path + field, given[field], field, t.cast("t.Mapping[str, t.Any]", option))


def _require_field(path: str, value: object, field: str, option: t.Mapping[str, t.Any]) -> None:
    if value is None and not option.get("required"):
        return
    inner: Options = option.get("options") or {}
    if option["type"] == "str":
        if field not in SIZES or isinstance(value, bool):
            require_text(path, value)
    elif option["type"] == "list":
        values = value if isinstance(value, (list, tuple)) else [value]
        for number, each in enumerate(values):
            if option.get("elements") == "str":
                require_text(f"{path}[{number}]", each)
            elif isinstance(each, t.Mapping) and inner:
                require_form(each, inner, f"an entry of {path}", f"{path}[{number}].")
    elif isinstance(value, t.Mapping) and inner:
        require_form(value, inner, path, f"{path}.")


def whole_keys(given: t.Mapping[str, object]) -> dict[str, object]:
    """``given``, with a user's keys that are one text as a list of it: Ansible would part a text at its commas, and
    comments of keys may have some."""
    users = given.get("users")
    if not isinstance(users, (list, tuple)):
        return dict(given)
    field = "ssh_authorized_keys"
    return {
        **given,
        "users": [
            {**user, field: [user[field]]} if isinstance(user, t.Mapping) and isinstance(user.get(field), str) else user
            for user in users
        ],
    }
