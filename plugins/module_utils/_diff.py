# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The entries of a module's ``diff``: what differs between two states, as ``ansible-playbook --diff`` prints it."""

from __future__ import annotations

import json
import typing as t

State = t.Optional[t.Mapping[str, object]]
"""An object's state by key, JSON values; ``None`` where the object doesn't exist."""


def changed_keys(before: State, after: State) -> list[str]:
    """The keys whose values differ, in alphabetical order (pure)."""
    old, new = before or {}, after or {}
    return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))


def diff(header: str, before: State, after: State) -> dict[str, str]:
    """One entry of a module's ``diff`` list (pure): only what differs, as sorted JSON, so it is short and stable.

    :param header: the object, for example ``machine web1``.
    """
    keys = changed_keys(before, after)

    def text(state: State) -> str:
        if state is None:
            return ""
        return (
            json.dumps({key: state[key] for key in keys if key in state}, indent=2, sort_keys=True, default=str) + "\n"
        )

    return {"before_header": header, "after_header": header, "before": text(before), "after": text(after)}
