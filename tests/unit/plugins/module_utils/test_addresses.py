# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The addresses of other hosts: names are resolved, and one that can't be is an error."""

from __future__ import annotations

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._addresses import reachable, resolve
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

HOSTS = {"p1": "192.0.2.1", "p2": "p2.example", "self1": "self1"}


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("192.0.2.1", ["192.0.2.1"]),
        ("2001:db8::1", ["2001:db8::1"]),
        ("fe80::1%lo", ["fe80::1"]),
        ("no-such-host.invalid", []),
        ("", []),
        ("a" * 64 + ".invalid", []),
        ("x..y", []),
    ],
)
def test_names_and_addresses(address, found):
    assert [each for each in resolve(address) if each not in ("127.0.0.1", "::1")] == found


def test_both_families_are_kept_and_loopback_is_not():
    found = {"p1": ["192.0.2.1"], "p2": ["192.0.2.2", "2001:db8::2", "127.0.1.1"], "self1": ["127.0.1.1"]}
    assert reachable(found, HOSTS, "self1") == {**found, "p2": ["192.0.2.2", "2001:db8::2"], "self1": []}


@pytest.mark.parametrize(("addresses", "why"), [([], "is not known"), (["127.0.1.1"], "is this host itself")])
def test_a_host_without_an_address_is_an_error_that_tells_what_to_do(addresses, why):
    found = {"p1": ["192.0.2.1"], "p2": addresses, "self1": []}
    with pytest.raises(GridError) as error:
        reachable(found, HOSTS, "self1")
    assert error.value.code == "address_unknown" and f"'p2.example' (p2) {why}" in error.value.msg
    assert "virtuoso_address" in error.value.remedy and "self1" not in error.value.msg
    assert reachable(found, HOSTS, "self1", required=False)["p2"] == []
