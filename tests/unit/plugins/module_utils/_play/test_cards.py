# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one host says of itself goes into others' files only if it is what it should be."""

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._play.cards import public_key

DATA = "AAAAC3NzaC1lZDI1NTE5AAAAIBgmtdLYgNUvwv5hhZvT1XbkbEIdJSeHSkW8hQeg4a4m"
KEY = f"ssh-ed25519 {DATA}"


def made(directory, *words):
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-f", str(directory / "key"), *words], check=True)
    return (directory / "key.pub").read_text(encoding="utf-8")


def test_a_key_as_ssh_keygen_writes_it_is_taken_without_its_comment(tmp_path):
    text = made(tmp_path, "-t", "ed25519", "-C", "virtuoso-transfer@p1 and more")
    assert public_key(text) == " ".join(text.split()[:2])
    assert public_key(KEY) == public_key(f"{KEY}\n") == public_key(f"{KEY} a b") == KEY


@pytest.mark.parametrize(
    "text",
    [
        f"{KEY}\n{KEY}\n",
        f"{KEY}\r{KEY}",
        f"{KEY} x\nssh-rsa AAAA",
        f"# {KEY}",
        f'command="/bin/sh" {KEY}',
        f"cert-authority {KEY}",
        f"{KEY[:-4]}",
        f"ssh-ed25519 {'A' * 68}",
        f"ssh-rsa {DATA}",
        f"ssh-ed25519  {DATA}",
        f" {KEY}",
        "",
        None,
        5,
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(GridError) as caught:
        public_key(text)
    assert caught.value.code == "invalid_key" and "all others" in caught.value.remedy


def test_other_kinds_are_refused(tmp_path):
    with pytest.raises(GridError):
        public_key(made(tmp_path, "-t", "ecdsa"))
