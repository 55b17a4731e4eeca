# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WireGuard as a program is waited for until it listens itself: the socket of one that was killed is still there."""

from __future__ import annotations

import os

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._overlay.host import apply

SLOW = """#!/bin/sh
test -e {sockets}/$2.sock && exit 9
sleep 0.3
: > {sockets}/$2.sock
exec sleep 60
"""


@pytest.fixture(name="program")
def _program(tmp_path, monkeypatch):
    def make(text):
        path = tmp_path / "wireguard-go"
        path.write_text(text.format(sockets=tmp_path), encoding="utf-8")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return make


@pytest.mark.parametrize("left", [False, True])
def test_it_listens_itself(program, tmp_path, left):
    program(SLOW)
    if left:
        (tmp_path / "wg0.sock").write_text("left", encoding="utf-8")
    started = apply.userspace("wg0", str(tmp_path))
    try:
        assert started.poll() is None and (tmp_path / "wg0.sock").read_text(encoding="utf-8") == ""
    finally:
        started.terminate()
        started.wait(5)


def test_one_that_ends_is_not_waited_for(program, tmp_path):
    program("#!/bin/sh\nexit 3\n")
    assert apply.userspace("wg0", str(tmp_path)).wait(5) == 3
