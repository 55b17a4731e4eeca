# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module's work: makes the ``AnsibleModule``, and turns typed errors and failed batches into ``fail_json``."""

from __future__ import annotations

import platform
import traceback
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError, Result

CONTROLLER = "controller"
"""How errors name the host of a module of the information service; its node name would mean nothing to a user."""


class _Here:
    """How errors name the host that this runs on."""

    name = platform.node()


def run_module(
    work: t.Callable[[AnsibleModule], Result], *, where: str | None = None, **module_arguments: t.Any
) -> None:
    """Make the module, call ``work``, and end with ``exit_json`` or, on a GridError, with ``fail_json``.

    :param where: how errors name the host, instead of its node name.
    :param module_arguments: for ``AnsibleModule``.
    """
    _Here.name = where or platform.node()
    module = AnsibleModule(**module_arguments)
    try:
        result = work(module)
    except GridError as exc:
        failure: t.Dict[str, t.Any] = exc.on(host=_Here.name).result()
        module.fail_json(exception=traceback.format_exc(), **failure)
    else:
        finish(module, result)


def finish(module: AnsibleModule, result: Result) -> None:
    """End the module with this result."""
    final: t.Dict[str, t.Any] = ended(result)
    if final.get("failed"):
        module.fail_json(**final)
    module.exit_json(**final)


def ended(result: Result) -> Result:
    """A module's final result (pure): where an object of a batch failed the module fails too, and still returns every
    object's own result."""
    for batch in (value for value in result.values() if isinstance(value, list)):
        failed = [item for item in batch if isinstance(item, dict) and item.get("failed")]
        if failed:
            return {
                "failed": True,
                "msg": f"{len(failed)} of {len(batch)} failed: " + "; ".join(str(item["msg"]) for item in failed),
                "failure": {"code": "some_failed", "codes": sorted({item["failure"]["code"] for item in failed})},
                **result,
            }
    return result


def attempt(name: str, work: t.Callable[[], Result], *, kind: str, tried: str) -> Result:
    """The result of one object of a batch: what ``work`` returns, or its error. A failure affects only this object.

    :param kind: the object's noun, for example ``machine``; the error names the object by it and ``name``.
    :param tried: the operation, for the error's text.
    """
    try:
        return {"name": name, "changed": False, **work()}
    except GridError as exc:
        return {
            "name": name,
            "changed": False,
            **exc.on(host=_Here.name, object=f"{kind} {name}", tried=tried).result(),
        }
