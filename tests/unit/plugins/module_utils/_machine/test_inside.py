# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fields of ``docs/ordering.md`` against those of an order, and those that a test looks for inside a guest."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.ordered_address import ADDRESS_OPTIONS
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.spec import (
    ORDER_OPTIONS,
    PERFORMANCE_OPTIONS,
    USER_OPTIONS,
)
from inside import INSIDE, OUTSIDE

PAGE = Path(__file__).resolve().parents[5] / "docs" / "ordering.md"


def table_after(line):
    """The fields in the first column of the first table after a line."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n{line}\n")[2].lstrip("\n")
    rows = text.partition("\n\n")[0].splitlines()[2:]
    return [field for row in rows for field in re.findall(r"`([a-z_.]+)`", row.split("|")[1])]


def test_every_field_of_the_page_is_looked_for_inside_or_has_a_reason():
    fields = table_after("## Fields of a machine")
    fields += [f"users.{field}" for field in table_after("A user:")]
    fields += [f"address.{field}" for field in table_after("An address:")]
    assert sorted(fields) == sorted([*INSIDE, *OUTSIDE])


def test_the_page_has_every_field():
    performance = [f"performance.{field}" for field in PERFORMANCE_OPTIONS]
    assert sorted(table_after("## Fields of a machine")) == sorted(
        [*(set(ORDER_OPTIONS) - {"performance"}), *performance]
    )
    assert sorted(table_after("A user:")) == sorted(USER_OPTIONS)
    assert sorted(table_after("An address:")) == sorted(ADDRESS_OPTIONS)
