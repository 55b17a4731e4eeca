# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of argument specifications that modules share, and ``merge``. Each part has a doc fragment of its name."""

from __future__ import annotations

import typing as t

Spec = t.Dict[str, t.Any]
"""Arguments of ``AnsibleModule``, by name. They are ``**`` arguments of differing types, hence ``Any``."""

_LISTS = ("mutually_exclusive", "required_together", "required_one_of", "required_if")


def merge(*specs: Spec) -> Spec:
    """Merge several sets of ``AnsibleModule`` arguments (pure). Lists of rules are joined.

    :raises ValueError: where two sets have the same option.
    """
    merged: Spec = {"argument_spec": {}}
    for spec in specs:
        for key, value in spec.items():
            if key == "argument_spec":
                twice = set(value) & set(merged["argument_spec"])
                if twice:
                    raise ValueError(f"options given twice: {sorted(twice)}")
                merged["argument_spec"].update(value)
            elif key in _LISTS:
                merged[key] = [*merged.get(key, []), *value]
            else:
                merged[key] = value
    return merged


HYPERVISOR: Spec = {"argument_spec": {"uri": {"type": "str", "default": "qemu:///system"}}}
"""Options of modules that talk to a host's libvirt."""

DEPOT: Spec = {"argument_spec": {"path": {"type": "path", "default": "/var/lib/virtuoso"}}}
"""Options of modules that use a host's image store: the directory of images and of machines' disks."""

STORE: Spec = {"argument_spec": {"store": {"type": "str", "required": True}}}
"""Options of modules that use the information service."""

FIND: Spec = {
    "argument_spec": {
        "of": {
            "type": "str",
            "choices": ["host", "provider", "machine", "home", "site", "network", "image", "link", "device"],
            "default": "host",
        },
        "where": {"type": "list", "elements": "raw", "default": []},
        "size": {"type": "int", "default": 1},
        "members": {"type": "dict"},
        "same": {"type": "list", "elements": "str", "default": []},
        "different": {"type": "list", "elements": "str", "default": []},
        "sum": {"type": "list", "elements": "raw", "default": []},
        "join": {"type": "list", "elements": "str", "default": []},
        "order": {"type": "list", "elements": "str", "default": []},
        "limit": {"type": "int", "default": 100},
        "include": {"type": "list", "elements": "str", "choices": ["virtual", "physical", "future"]},
        "scope": {"type": "dict"},
        "within": {"type": "str"},
        "method": {"type": "str", "choices": ["exact", "sample", "auto"], "default": "auto"},
        "seed": {"type": "int"},
        "columns": {"type": "list", "elements": "str"},
        "sql": {"type": "str"},
    }
}
"""A question to the information service."""
