# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which host exports which layer to machines that page from it (pure)."""

from __future__ import annotations

import typing as t

from ansible_collections.virtuoso.grid.plugins.module_utils._play.records import (
    Endpoint,
    Export,
    Provider,
    WantedExport,
)


class PagingPlan(t.TypedDict):
    """What one provider is to export, both as entries of the module ``image_export``.

    :ivar exports: layers that it has, for other providers.
    :ivar pagers: layers of others, for its own machines.
    """

    exports: list[WantedExport]
    pagers: list[WantedExport]


def paging_plan(
    wanted: t.Mapping[str, t.Sequence[WantedExport]],
    provider: str,
    sources: t.Sequence[Export],
    providers: t.Sequence[Provider] = (),
    endpoints: t.Mapping[str, Endpoint] | None = None,
) -> PagingPlan:
    """Who exports what, as far as it is known which exports there are.

    :param wanted: by provider, what its machines are to page from.
    :param sources: the exports that there are, the best first.
    :param providers: what is known of all providers. A layer that nobody exports yet is for the first that has it.
    :param endpoints: by name, for the ports of their SSH servers, where these are not 22.
    """
    served = {export["digest"]: export for export in reversed(sources) if not export.get("failed")}
    digests = dict.fromkeys(entry["digest"] for entries in wanted.values() for entry in entries)
    holders = {digest: _holders(digest, providers) for digest in digests if digest not in served}
    return {
        "exports": [{"digest": digest} for digest, names in holders.items() if names[:1] == [provider]],
        "pagers": [
            _pager(served[entry["digest"]], endpoints or {})
            for entry in wanted.get(provider, ())
            if entry["digest"] in served
        ],
    }


def _holders(digest: str, providers: t.Sequence[Provider]) -> list[str]:
    return [each["name"] for each in providers if any(image["digest"] == digest for image in each.get("images") or [])]


def _pager(source: Export, endpoints: t.Mapping[str, Endpoint]) -> WantedExport:
    endpoint: Endpoint = endpoints.get(source["source"]) or {}
    return {
        "digest": source["digest"],
        "upstream": {"host": source["host"], "port": source["port"], "virtual_size": source["virtual_size"]},
        "ahead": {"name": source["source"], "host": source["host"], "port": int(endpoint.get("port") or 22)},
    }
