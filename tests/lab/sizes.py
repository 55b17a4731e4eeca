# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes that the project keeps: files of at most 400 lines, functions of at most 60."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

FILE_LINES = 400
FUNCTION_LINES = 60


def long_functions(path: Path, text: str) -> list[str]:
    """Functions past the limit, their docstrings not counted."""
    found = []
    for node in ast.walk(ast.parse(text, filename=str(path))):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
        lines = node.end_lineno - first.lineno + 1
        if lines > FUNCTION_LINES:
            found.append(f"{path}:{node.lineno}: {node.name} has {lines} lines, {FUNCTION_LINES} are allowed")
    return found


def main() -> int:
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    problems = []
    for path in (Path(name) for name in names if name.endswith((".py", ".yml", ".yaml", ".sh"))):
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > FILE_LINES:
            problems.append(f"{path}: {lines} lines, {FILE_LINES} are allowed")
        if path.suffix == ".py":
            problems += long_functions(path, text)
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
