# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of progress: one that the controller named goes with the process, any other stays."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils import _progress

SCRIPT = """
import sys
from ansible_collections.virtuoso.grid.plugins.module_utils import _progress as progress
progress.OWN = sys.argv[1]
work = progress.Progress(sys.argv[2]).about("tiny")
work.stage("connect")
print(open(sys.argv[2]).read())
sys.exit(int(sys.argv[3]))
"""


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("own", [True, False])
def test_a_file_that_the_controller_named_goes_with_the_process(tmp_path, own, code):
    path = tmp_path / ("own-1" if own else "mine")
    argv = [sys.executable, "-c", SCRIPT, str(tmp_path / "own-"), str(path), str(code)]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert (done.returncode, '"connect"' in done.stdout) == (code, True), done.stderr
    assert path.exists() is not own


def test_a_line_names_its_object_and_files_are_kept_apart(tmp_path):
    first = _progress.Progress(str(tmp_path / "file"), "source", interval=60)
    other = first.about("tiny")
    first.stage("connect")
    other.bytes("transfer", 1, 2)
    assert [line.split('"name": "')[1].split('"')[0] for line in (tmp_path / "file").read_text().splitlines()] == [
        "source",
        "tiny",
    ]
