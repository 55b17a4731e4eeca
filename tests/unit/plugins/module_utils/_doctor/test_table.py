# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings as a table."""

from __future__ import annotations

from ansible_collections.virtuoso.grid.plugins.module_utils._doctor import table
from ansible_collections.virtuoso.grid.plugins.module_utils._doctor.findings import finding, well
from ansible_collections.virtuoso.grid.plugins.module_utils._play import report

FINDINGS = [
    well("way", "provider1", "reached as ops"),
    well("become", "provider1", "ops becomes root by sudo"),
    finding("kvm_missing", "provider1", "the processor shows no vmx or svm; " + "slow " * 40),
    finding("unreachable", "provider2", "not reached: " + "x" * 200),
]


def shown(findings, **options):
    return report.table(report.join([table.rows(findings, **options)]), table.COLUMNS)


def test_the_table_fits_the_terminal():
    assert max(map(len, shown(FINDINGS))) <= 120


def test_the_worst_of_a_host_comes_first_and_what_is_well_is_one_row():
    rows = [row for row in table.rows(FINDINGS) if row["host"] != " "]
    assert [(row["host"], row["check"], row["state"]) for row in rows] == [
        ("provider1", "kvm", "warning"),
        ("provider1", "2 checks", "ok"),
        ("provider2", "way", "error"),
    ]
    assert rows[1]["finding"] == "way, become"


def test_with_everything_each_check_has_a_row():
    rows = [row for row in table.rows(FINDINGS, everything=True) if row["host"] != " "]
    assert len(rows) == len(FINDINGS)


def test_the_remedy_follows_behind_an_arrow():
    lines = [row["finding"] for row in table.rows(FINDINGS)]
    assert any(line.startswith("-> Enable VT-x") for line in lines)


def test_rows_pass_the_report_as_they_are():
    rows = table.rows(FINDINGS)
    assert [row["finding"] for row in report.join([rows])] == [row["finding"] for row in rows]
    assert report.refusal(report.join([rows]), "findings") == {}


def test_only_errors_are_a_verdict():
    assert table.verdict(FINDINGS[:3]) == ""
    assert table.verdict(FINDINGS).endswith("provider2: unreachable")
    assert table.title(FINDINGS) == "Doctor: 1 error, 1 warning, 2 checks well"


def test_answers_keep_their_text():
    rows = table.rows(
        [finding("port_open", "web1", "open"), well("machine", "web1", "runs"), well("rules", "web1", "-")]
    )
    assert [row["finding"] for row in rows] == ["open", "machine, rules"]


def test_nothing_is_a_table_as_well():
    assert table.rows([]) == []
