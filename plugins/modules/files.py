#!/usr/bin/python
# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: files
short_description: Write many small files, directories and links in one task
description:
  - Writes files, makes directories and symbolic links, and removes others, all in one task. M(ansible.builtin.copy) in
    a loop starts several programs on the host for each file, which would take most of the time of the collection's
    roles.
  - Everything belongs to root. A file is replaced atomically. A symbolic link in a file's place is replaced, not
    followed.
  - Not for secrets. Content is shown in diff mode, and in logs of tasks' arguments.
version_added: 0.2.0
author: [virtuoso.grid contributors (@virtuoso-grid)]
options:
  files:
    description: The files, directories and links. Directories are made first, in the order of their paths; removals
      come last.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: The absolute path.
        type: path
        required: true
      state:
        description: What is to be at the path. V(absent) removes a directory with everything in it.
        type: str
        default: file
        choices: [file, directory, link, absent]
      content:
        description: The exact content of a file, or the target of a link. Required with V(file) and V(link).
        type: str
      exclusive:
        description: Whether files that are in the directory and not in O(files) go. Directories in it stay.
        type: bool
        default: false
        version_added: 0.2.0
      mode:
        description: Permissions as four octal digits, by default V(0644) for files and V(0755) for directories.
        type: str
extends_documentation_fragment:
  - virtuoso.grid.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Install a program and its unit
  virtuoso.grid.files:
    files:
      - {path: /usr/local/lib/example, state: directory, exclusive: true}
      - path: /usr/local/lib/example/program.py
        content: "{{ lookup('ansible.builtin.file', 'program.py', rstrip=false) }}"
      - path: /etc/systemd/system/example.service
        content: "{{ lookup('ansible.builtin.template', 'example.service.j2') }}"
      - {path: /usr/local/lib/example/old.py, state: absent}
"""

RETURN = r"""
paths:
  description: The paths of O(files) that changed, or would in check mode.
  returned: success
  type: list
  elements: str
failure:
  description:
    - What is wrong, for programs. Its C(code) is C(files_failed).
  returned: failure
  type: dict
"""

import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtuoso.grid.plugins.module_utils import _files
from ansible_collections.virtuoso.grid.plugins.module_utils._argspec import Spec
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError, Result
from ansible_collections.virtuoso.grid.plugins.module_utils._run import run_module

FILE = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "default": "file", "choices": ["file", "directory", "link", "absent"]},
    "content": {"type": "str"},
    "exclusive": {"type": "bool", "default": False},
    "mode": {"type": "str"},
}
NEEDED = [("state", "file", ("content",)), ("state", "link", ("content",))]
OPTIONS: Spec = {
    "argument_spec": {
        "files": {"type": "list", "elements": "dict", "required": True, "options": FILE, "required_if": NEEDED}
    },
    "supports_check_mode": True,
}


def work(module: AnsibleModule) -> Result:
    """Check the entries, then make them all."""
    entries: list[_files.Entry] = [
        {
            "path": entry["path"],
            "state": entry["state"],
            "content": entry["content"],
            "mode": entry["mode"] or ("0755" if entry["state"] == "directory" else "0644"),
            "exclusive": entry["exclusive"],
        }
        for entry in module.params["files"]
    ]
    for entry in entries:
        if not re.fullmatch("[0-7]{4}", entry["mode"]) or not entry["path"].startswith("/"):
            raise GridError(
                "files_failed",
                f"mode {entry['mode']} of {entry['path']}: the path is not absolute, or the mode not four octal digits",
                object=f"file {entry['path']}",
                tried="read what is to be there",
                remedy="Give an absolute path, and a mode as 0644",
            )
    try:
        paths, rows = _files.bring(entries, check_mode=module.check_mode)
    except OSError as exc:
        raise GridError(
            "files_failed", str(exc), tried="write the files", remedy="See what is there, and run again"
        ) from exc
    return {"changed": bool(paths), "paths": paths, "diff": rows}


def main() -> None:
    """Entry point."""
    run_module(work, **OPTIONS)


if __name__ == "__main__":
    main()
