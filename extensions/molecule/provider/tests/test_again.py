# SPDX-License-Identifier: GPL-3.0-or-later
"""The role by itself, on hosts that the playbook has set up."""

from __future__ import annotations

import re

testinfra_hosts = ["local://"]


def test_check_mode_finds_nothing_to_do(ansible):
    told = ansible("ansible-playbook", "--check", "--diff", "role.yml")
    assert re.findall(r"^(mol-\w+) .* changed=(\d+) ", told, re.MULTILINE) == [
        ("mol-bookworm", "0"),
        ("mol-trixie", "0"),
    ], told
