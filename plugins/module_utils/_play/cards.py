# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one host says of itself and others are to take, checked (pure)."""

from __future__ import annotations

import base64
import binascii
import re
import struct

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._names import shorten

KIND = "ssh-ed25519"
_LINE = re.compile(r"ssh-ed25519 ([A-Za-z0-9+/]{68}={0,2})( [^\r\n]*)?", re.ASCII)
# RFC 8709, section 4: the name of the algorithm and 32 bytes, each with its length
_HEAD = struct.pack(">I", len(KIND)) + KIND.encode() + struct.pack(">I", 32)


def public_key(text: object) -> str:
    """An Ed25519 public key of a host without its comment: exactly one line, of this one kind, without options.

    It becomes part of other hosts' files, where a second line would be a key without any restriction.

    :raises GridError: ``invalid_key``.
    """
    found = _LINE.fullmatch(text.strip("\n")) if isinstance(text, str) else None
    try:
        data = base64.b64decode(found[1], validate=True) if found else b""
    except binascii.Error:
        data = b""
    if found is None or not data.startswith(_HEAD) or len(data) != len(_HEAD) + 32:
        raise GridError(
            "invalid_key",
            f"{shorten(text)} is not one line with a public key of the kind {KIND}",
            tried="read a host's public key",
            remedy="Look at the host: what it gives as its key goes to all others. If it can be trusted, remove"
            " /etc/virtuoso/transfer_ed25519* there (or make its SSH host key anew), and run virtuoso.grid.setup again",
        )
    return f"{KIND} {found[1]}"
