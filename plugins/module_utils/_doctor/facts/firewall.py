# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's rules, as nft or iptables print them."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._command import command
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor import rules
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.records import Firewall
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

_PATIENCE = 10


def _nft() -> t.Optional[rules.Json]:
    try:
        answer = json.loads(command(["nft", "-j", "list", "ruleset"], timeout=_PATIENCE))
    except (GridError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def _iptables(program: str) -> t.Optional[rules.Json]:
    try:
        return rules.of_iptables(command([program, "-t", "filter"], timeout=_PATIENCE))
    except (GridError, ValueError):
        return None


def _legacy() -> bool:
    """Whether rules of the old kind are loaded, which nft does not show."""
    try:
        with open("/proc/net/ip_tables_names", encoding="ascii") as file:
            return "filter" in file.read().split()
    except OSError:
        return False


def rulesets() -> t.List[rules.Json]:
    """All that could be read; nothing without the programs, or without the right to."""
    found = _nft()
    if found is None:
        return [each for each in [_iptables("iptables-save")] if each is not None]
    legacy = _iptables("iptables-legacy-save") if _legacy() else None
    return [found] if legacy is None else [found, legacy]


def firewall() -> Firewall:
    """Which chains refuse by default what comes in."""
    found = rulesets()
    return {
        "readable": bool(found),
        "input": [text for each in found for text in rules.drops_by_default(each, "input")],
    }
