# SPDX-License-Identifier: GPL-3.0-or-later
"""Draw docs/demo.svg from what `make demo` left: the table of machines over the screenshots of their consoles."""

from __future__ import annotations

import base64
import json
import os
import struct
import subprocess
import sys
import typing as t
from pathlib import Path
from xml.sax.saxutils import escape

CHECKOUT = Path(__file__).resolve().parents[2]
STATE = CHECKOUT / "build" / "lab" / "state"
TARGET = CHECKOUT / "docs" / "demo.svg"

CHAR, LINE, MARGIN, SCREEN = 7.3, 20, 20, 520


def machines() -> list[dict[str, t.Any]]:
    """What the lab's store knows."""
    argv = [
        str(CHECKOUT / ".venv/bin/ansible"),
        "localhost",
        "-m",
        "virtuoso.grid.order_info",
        "-a",
        f"store={STATE / 'grid.db'}",
    ]
    env = {**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
    done = subprocess.run(argv, cwd=CHECKOUT, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.partition("=>")[2])["machines"]


def table(rows: list[dict[str, t.Any]]) -> list[str]:
    """The same columns as the report."""
    cells = [("NAME", "IMAGE", "PROVIDER", "STATE", "ADDRESS", "CONSOLE")]
    for row in rows:
        display = row["display"] or {}
        console = f"{display.get('type')} {display.get('host')}:{display.get('port')}"
        image = (row["image"] or {}).get("name", "-")
        cells.append((row["name"], image, row["provider"], row["state"], row["address"] or "-", console))
    widths = [max(len(line[index]) for line in cells) for index in range(len(cells[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in cells]


def screen(row: dict[str, t.Any], left: float, top: float) -> tuple[str, float]:
    """One console as SVG, and its height."""
    data = (STATE / "screenshots" / f"{row['uuid']}.png").read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    tall = SCREEN * height / width
    title = escape(f"{row['name']} on {row['provider']}")
    content = base64.b64encode(data).decode("ascii")
    return (
        f'<text x="{left}" y="{top + 14}" fill="#9aa5b1">{title}</text>'
        f'<image x="{left}" y="{top + LINE}" width="{SCREEN}" height="{tall:.0f}" '
        f'href="data:image/png;base64,{content}"/>'
        f'<rect x="{left}" y="{top + LINE}" width="{SCREEN}" height="{tall:.0f}" fill="none" stroke="#52606d"/>',
        tall + LINE,
    )


def main() -> int:
    """Write the picture."""
    rows = machines()
    lines = table(rows)
    parts, left, tall = [], float(MARGIN), 0.0
    top = MARGIN + LINE * len(lines) + MARGIN
    for row in sorted(rows, key=lambda row: row["provider"]):
        drawn, height = screen(row, left, top)
        parts.append(drawn)
        tall = max(tall, height)
        left += SCREEN + MARGIN
    width = max(left, 2 * MARGIN + CHAR * max(map(len, lines)))
    text = "".join(
        f'<text x="{MARGIN}" y="{MARGIN + LINE * number + 14}" '
        f'fill="{"#9aa5b1" if number == 0 else "#f5f7fa"}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    TARGET.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{top + tall + MARGIN:.0f}" '
        'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="12" xml:space="preserve">'
        "<!-- SPDX-License-Identifier: GPL-3.0-or-later -->"
        f'<rect width="100%" height="100%" fill="#1f2933"/>{text}{"".join(parts)}</svg>\n',
        encoding="utf-8",
    )
    print(f"picture: {TARGET.relative_to(CHECKOUT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
