# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``docs/architecture.md`` names rooms and files that are there, and every room and folder has its row."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
ROOMS = ROOT / "plugins/module_utils"
# How the page writes where something is, and the folder that such a path begins in
BEGINNINGS = {
    "_": "plugins/module_utils/_",
    "modules/": "plugins/modules/",
    "action/": "plugins/action/",
    "inventory/": "plugins/inventory/",
    "plugin_utils/": "plugins/plugin_utils/",
    "roles/": "roles/",
    "tasks/": "roles/deploy/tasks/",
    "docs/": "docs/",
    "plugins/": "plugins/",
}


def named_paths() -> list[str]:
    """Everything in backticks that looks like a place in the tree, without its ending."""
    words = re.findall(r"`([a-z_]+(?:/[a-z_.]+)*/?)`", PAGE.split("## Rules that hold", maxsplit=1)[0])
    return [word for word in words if word.startswith("_") or "/" in word]


def test_what_the_page_names_is_there():
    missing = []
    for word in named_paths():
        beginning = next((each for each in BEGINNINGS if word.startswith(each)), None)
        # Without one of them it is a path within a room.
        places = [ROOT / (BEGINNINGS[beginning] + word[len(beginning) :])] if beginning else ROOMS.glob(f"_*/{word}*")
        if not any(place.exists() or place.with_suffix(".py").exists() for place in places):
            missing.append(word)
    assert named_paths()
    assert missing == []


def test_each_room_and_folder_has_its_row():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `_")]
    named = set()
    for row in rows:
        words = re.findall(r"`([a-z_/]+)`", row.split("|")[1])
        room = words[0].split("/")[0]
        named |= {room} | {word if word.startswith("_") else f"{room}/{word}" for word in words}
    folders = {
        str(path.relative_to(ROOMS))
        for path in ROOMS.glob("_*/**")
        if path.is_dir() and list(path.glob("*.py")) and path.parent.parent in (ROOMS, ROOMS.parent)
    }
    assert folders - named == set()
