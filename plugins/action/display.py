# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``display``: screenshots become files here."""

from __future__ import annotations

import base64
import contextlib
import os
import tempfile

from ansible.plugins.action import ActionBase
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._hypervisor.connection import to_grid_error
from ansible_collections.virtuoso.grid.plugins.module_utils._machine.core.entry import check_uuid


def _write(path: str, data: bytes) -> None:
    """The file is there whole or not at all, and for its owner only."""
    descriptor, staged = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".screenshot-")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(staged, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staged)
        raise


def _save(uuid: object, content: str, directory: str) -> str:
    """The path of a machine's screenshot, written there.

    :param content: the picture in base64.
    """
    # The host that sent this is not trusted with a file name.
    path = os.path.join(directory, check_uuid(uuid) + ".png")
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        _write(path, base64.b64decode(content))
    except OSError as exc:
        raise to_grid_error(exc).on(tried=f"write {path}") from exc
    return path


class ActionModule(ActionBase):
    """Runs the module on the provider and writes what it returns."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, object] | None = None) -> dict[str, object]:
        """The module's result, with ``path`` instead of ``content`` in each screenshot."""
        super().run(tmp, task_vars)
        result: dict[str, object] = self._execute_module(task_vars=task_vars)
        directory = self._loader.path_dwim(str(self._task.args.get("dest")))
        machines = result.get("machines")
        for machine in machines if isinstance(machines, list) else ():
            shot = machine.get("screenshot")
            if isinstance(shot, dict) and "content" in shot:
                try:
                    shot["path"] = _save(machine["uuid"], shot.pop("content"), directory)
                except GridError as exc:
                    machine.update(screenshot=None, **exc.on(object=f"machine {machine['name']}").result())
                    result.update(exc.result())
        return result
