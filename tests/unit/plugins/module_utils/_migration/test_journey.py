# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the steps of a move leave on their host."""

from __future__ import annotations

from ansible_collections.virtuoso.grid.plugins.module_utils._migration.host.journey import Journey


def test_a_step_that_is_soon_over_leaves_no_progress_file(tmp_path):
    path = tmp_path / "progress"
    journey = Journey({"path": str(tmp_path), "progress_file": str(path), "parallel": 1}, False)
    journey.progress.about("a").stage("migrate")
    assert not path.exists()
