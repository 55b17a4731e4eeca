# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses of images as they may be shown: what opens a door is left out (pure)."""

from __future__ import annotations

import re
import typing as t
import urllib.parse

_HIDDEN = "***"
_SECRET = (
    "token",
    "sig",
    "signature",
    "key",
    "secret",
    "password",
    "passwd",
    "pass",
    "auth",
    "credential",
    "accesskey",
    "apikey",
)


def shown(url: str) -> str:
    """An address without its password, and without those values of its query that are one by their names."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return url.partition("://")[0] + "://" + _HIDDEN
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    login = ""
    if "@" in parts.netloc:
        login = f"{parts.username or ''}:{_HIDDEN}@" if parts.password is not None else f"{_HIDDEN}@"
    query = "&".join(_query(pair) for pair in parts.query.split("&")) if parts.query else ""
    return urllib.parse.urlunsplit((parts.scheme, f"{login}{host}{port}", parts.path, query, ""))


def _query(pair: str) -> str:
    name, dummy, value = pair.partition("=")
    words = re.split(r"[^a-z0-9]+", name.lower())
    return f"{name}={_HIDDEN}" if value and any(word in _SECRET for word in words) else pair


def secrets_of(url: str) -> list[str]:
    """What :func:`shown` leaves out, as it is written in the address and as it is meant."""
    try:
        parts = urllib.parse.urlsplit(url)
        found = [parts.password if parts.password is not None else parts.username if "@" in parts.netloc else None]
    except ValueError:
        return []
    found += [pair.partition("=")[2] for pair in parts.query.split("&") if _query(pair) != pair]
    kept = [text for text in found if text]
    return list(dict.fromkeys([*kept, *map(urllib.parse.unquote, kept)]))


def censored(text: str, url: str) -> str:
    """A text about an address, such as an error of a library, without the secrets of the address."""
    for secret in secrets_of(url):
        text = text.replace(secret, _HIDDEN)
    return text


def secrets_in(images: t.Iterable[t.Mapping[str, object]]) -> set[str]:
    """The secrets of all addresses in entries of the module ``image``, which are not checked yet."""
    sources = [entry.get("source") for entry in images]
    urls = [source.get("url") for source in sources if isinstance(source, t.Mapping)]
    return {secret for url in urls if isinstance(url, str) for secret in secrets_of(url)}
