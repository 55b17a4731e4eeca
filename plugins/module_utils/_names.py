# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which names, digests, paths and addresses are well-formed, and the errors for those that aren't (pure)."""

from __future__ import annotations

import posixpath
import re

from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError

FORMS: dict[str, tuple[str, str]] = {
    "name": (r"[a-z0-9][a-z0-9._-]{0,62}", "1 to 63 lower-case letters, digits and . _ -, not starting with a dot"),
    "version": (r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", "1 to 63 letters, digits and . _ -"),
    "digest": (r"sha256:[0-9a-f]{64}", "sha256: and 64 lower-case hexadecimal digits"),
    "user": (r"[a-z_][a-z0-9_-]{0,31}", "a user name of 1 to 32 lower-case letters, digits, _ and -"),
    "suite": (r"[a-z][a-z0-9.-]{0,62}", "a Debian release's name such as bookworm"),
    # Debian Policy, section 5.6.7, with an optional architecture and version as apt-get takes them
    "package": (r"[a-z0-9][a-z0-9+.-]{1,126}(:[a-z0-9-]{1,20})?(=[A-Za-z0-9.+:~-]{1,100})?", "a Debian package name"),
    "module": (r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", "the name of a kernel module"),
    "mirror": (
        r"(https?|copy|file)://[!-~]{1,500}|deb( \[[ -~]{1,300}\])? (https?|copy|file)://[!-~]{1,500} [!-~ ]{1,200}",
        "an address or a sources.list line",
    ),
    "url": (r"https?://[!-~]{1,2000}", "an https:// or http:// address"),
    "cmdline": (r"[ -~]{0,500}", "up to 500 printable characters"),
}
_COMPILED = {what: re.compile(pattern, re.ASCII) for what, (pattern, dummy) in FORMS.items()}


def shorten(value: object) -> str:
    """An untrusted value for an error's text: printable, at most 60 characters."""
    text = str(value)
    return repr(text if len(text) <= 60 else text[:57] + "...")


def check(what: str, value: object) -> str:
    """Return ``value`` if it is a well-formed ``what``, a key of ``FORMS``. :raises GridError: ``invalid_<what>``."""
    if not isinstance(value, str) or not _COMPILED[what].fullmatch(value):
        raise GridError(f"invalid_{what}", f"{shorten(value)} is not a valid {what}", remedy=f"Give {FORMS[what][1]}")
    return value


def check_path(what: str, value: object) -> str:
    """Return ``value`` if it is an absolute path in its shortest form, without ``..`` and control characters.

    :param what: what the path is, for the error's text.
    :raises GridError: ``invalid_path``.
    """
    if isinstance(value, str) and 1 < len(value) <= 4096 and value.isprintable() and value.startswith("/"):
        if not value.startswith("//") and posixpath.normpath(value) == value:
            return value
    raise GridError(
        "invalid_path",
        f"{what} {shorten(value)} is not an absolute path",
        remedy="Give a path such as /srv/image.qcow2, without .. in it",
    )
