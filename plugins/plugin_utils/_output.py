# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether lines of text may be printed between those of Ansible's own."""

from __future__ import annotations

from ansible import constants as C

_DOCUMENTS = ("json", "jsonl", "null")
"""Callback plugins that print one document for programs, or nothing, on standard output."""


def is_text(callback: str) -> bool:
    """Whether this callback plugin prints text for people (pure). :param callback: its name, with or without that of
    its collection."""
    return callback.rpartition(".")[2] not in _DOCUMENTS


def output_is_text() -> bool:
    """Whether Ansible prints text for people. A table or a line of progress would make a document unreadable; programs
    find the same in the results of the tasks."""
    return is_text(str(C.config.get_config_value("DEFAULT_STDOUT_CALLBACK") or ""))
