# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory plugin: the information service's machines as hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: grid
short_description: Machines that were ordered, as hosts
version_added: 0.1.0
description:
  - Reads the store of the information service, and adds each machine as a host that any playbook can use. It is reached
    by SSH through its provider, or through the home of its network if that is registered. These need nothing but SSH.
  - Its configuration is a file whose name ends with C(grid.yml) or C(grid.yaml).
  - Machines are in the group C(machines), and in groups by state, site, owner, image and tag, C(state_running),
    C(site_north), C(owner_alice), C(image_debian_12), C(tag_web). Characters that are not allowed in names of
    groups become underscores. Those with an address and a Python, so that any module runs there, are in the group
    C(ansible_ready).
  - Host variables begin with C(virtuoso_), C(virtuoso_uuid), C(virtuoso_reference), C(virtuoso_state),
    C(virtuoso_provider), C(virtuoso_site), C(virtuoso_owner), C(virtuoso_image), C(virtuoso_vcpus), C(virtuoso_memory)
    and C(virtuoso_disk) (bytes), C(virtuoso_addresses), C(virtuoso_mac), C(virtuoso_network), C(virtuoso_display),
    C(virtuoso_tags), C(virtuoso_seen), C(virtuoso_stale) and others.
  - The host key of a machine is accepted at the first connection and kept under the machine's uuid. So machines that
    have the same address at different times are not confused.
  - Providers and homes of the store get the variables C(virtuoso_kind), C(virtuoso_uuid) and C(virtuoso_seen), and the
    group of their site. Unless O(providers) is set, another inventory has to say how they are reached and put them into
    the group C(providers). So a provider that is removed from that inventory gets no more machines.
  - Nothing that comes from a provider or a machine is ever used as a template.
author:
  - virtuoso.grid contributors (@virtuoso-grid)
extends_documentation_fragment:
  - constructed
  - inventory_cache
requirements:
  - SQLAlchemy >= 2.0
options:
  plugin:
    description: Names this plugin, which makes the file its configuration.
    type: str
    required: true
    choices: [virtuoso.grid.grid]
  store:
    description:
      - The database of the information service, the path of an SQLite file or an SQLAlchemy URL.
      - A relative path is relative to the directory of the configuration file.
      - A store that doesn't exist yet gives an empty inventory and a warning.
      - By default the same as the roles', C(virtuoso/grid.db) in E(XDG_DATA_HOME), which is C(~/.local/share) where it
        isn't set.
    type: str
    env:
      - name: VIRTUOSO_STORE
  include:
    description: Which machines to add. Those that exist, those that are ordered and don't exist yet, or both.
    type: list
    elements: str
    choices: [existing, future]
    default: [existing]
  where:
    description:
      - Conditions that machines must meet to be added, such as C(site == north) or C(memory >= 1 GiB), as those of
        M(virtuoso.grid.find).
    type: list
    elements: raw
    default: []
  scope:
    description: Only machines near a site, as O(virtuoso.grid.find#module:scope).
    type: dict
  stale_after:
    description:
      - Hosts that were last seen longer ago have C(virtuoso_stale) set and are in the group C(stale). They are still
        added.
    type: str
    default: 1 d
  providers:
    description:
      - Whether to add the store's providers to the group C(providers), and homes to C(homes), with their site and the
        connection variables that were registered. Set it if no other inventory names them.
      - Hosts that are in an inventory that was read before this one don't change. Inventories in a directory are read
        in the order of their names.
    type: bool
    default: false
  known_hosts:
    description:
      - The file in which host keys of machines are kept.
      - By default the path of the store's file followed by C(.known_hosts). For a store on a server,
        C(~/.ssh/virtuoso_known_hosts).
    type: path
"""

EXAMPLES = r"""
# inventory/grid.yml, beside inventory/hosts.yml that names the providers
plugin: virtuoso.grid.grid
store: ../grid.db

---
# Futures too, and a group of one's own
plugin: virtuoso.grid.grid
include: [existing, future]
groups:
  large: virtuoso_memory >= 8 * 1024 ** 3

---
# Machines of one owner near him, as an AWX inventory source of its own
plugin: virtuoso.grid.grid
store: postgresql+psycopg://grid@db.example.org/grid
where: [owner == alice]
scope: {near: home1, latency: 20 ms}
"""

import datetime
import os
import typing as t

from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.unsafe_proxy import wrap_var
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._information.inventory import entries as view
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import listing
from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.records import HostRow, MachineRow
from ansible_collections.virtuoso.grid.plugins.module_utils._units import parse_duration

_UNTRUSTED = hasattr(BaseInventoryPlugin, "trusted_by_default")
"""Whether Ansible treats text as a template only if it is marked as trusted (ansible-core 2.19 and later). Before that,
untrusted text has to be marked."""

_SUFFIXES = ("grid.yml", "grid.yaml")


def _may_be(path: str) -> bool:
    """Whether there is a store, or something that :class:`Store` reports an error of."""
    try:
        return listing.has_content(path)
    except OSError:
        return True


class InventoryModule(BaseInventoryPlugin, Cacheable, Constructable):
    """Reads rows of the store, turns them into entries, and adds these."""

    NAME = "virtuoso.grid.grid"
    trusted_by_default = False

    def verify_file(self, path: str) -> bool:
        """Whether the file's name is one of this plugin's."""
        return bool(super().verify_file(path)) and path.endswith(_SUFFIXES)

    def parse(self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True) -> None:
        """Add the hosts of the store; from the cache if it is enabled and fresh."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        key = self.get_cache_key(path)
        use_cache = self.get_option("cache") and cache
        entries = self._cache.get(key) if use_cache else None
        if entries is None:
            entries = self._entries(path)
            if self.get_option("cache"):
                self._cache[key] = entries
        # Read once: Ansible computes an option's value at each call, which would take most of the time.
        providers = self.get_option("providers")
        constructs = [(construct, self.get_option(option)) for option, construct in self._constructs()]
        wanted = [(construct, value) for construct, value in constructs if value]
        strict = self.get_option("strict")
        before = self._before()
        for entry in (view.mark_stale(entry, before) for entry in entries):
            variables = self._add(entry, providers)
            for construct, value in wanted:
                construct(value, variables, entry["name"], strict=strict)

    def _before(self) -> str:
        """What was last seen before this time is stale. Computed for a cached inventory too: time passes."""
        try:
            seconds = parse_duration(self.get_option("stale_after"), "stale_after")
            then = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=seconds)
        except (GridError, OverflowError) as exc:
            raise AnsibleParserError(f"stale_after: {exc}") from exc
        return then.strftime("%Y-%m-%dT%H:%M:%SZ")

    def _constructs(self) -> list[tuple[str, t.Callable[..., None]]]:
        return [
            ("compose", self._set_composite_vars),
            ("groups", self._add_host_to_composed_groups),
            ("keyed_groups", self._add_host_to_keyed_groups),
        ]

    def _entries(self, path: str) -> list[view.Entry]:
        location = str(
            self.get_option("store")
            or os.path.join(os.environ.get("XDG_DATA_HOME") or "~/.local/share", "virtuoso", "grid.db")
        )
        directory = os.path.dirname(os.path.abspath(path))
        file = listing.file_of(location, directory)
        selected = self.get_option("where") or self.get_option("scope")
        read = None if file is None or selected else listing.read(file)
        if read is None:
            try:
                if file is not None and not _may_be(file):
                    raise listing.no_store(file)
                file, read = self._read_store(location, directory)
            except GridError as exc:
                if exc.code == "store_missing":
                    self.display.warning(f"{exc}; the inventory has no machines yet")
                    return []
                raise AnsibleParserError(f"{path}: {exc}") from exc
        known_hosts = self.get_option("known_hosts") or (
            f"{file}.known_hosts" if file else "~/.ssh/virtuoso_known_hosts"
        )
        return view.entries(*read, include=self.get_option("include"), known_hosts=known_hosts)

    def _read_store(self, location: str, directory: str) -> tuple[str | None, tuple[list[MachineRow], list[HostRow]]]:
        """The file of the store (``None`` for a server), then machines and hosts, read with SQLAlchemy.

        Needed for servers and conditions; and whatever is wrong with a file gets its error here.

        :raises GridError: as :class:`Store`, and as :func:`find.matching`.
        """
        # Imported here because loading SQLAlchemy takes longer than everything else that this plugin does.
        from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.answer import matching
        from ansible_collections.virtuoso.grid.plugins.module_utils._information.find.question import Options
        from ansible_collections.virtuoso.grid.plugins.module_utils._information.store import query
        from ansible_collections.virtuoso.grid.plugins.module_utils._information.store.database import Store

        store = Store(location, directory=directory)
        with store.reading() as connection:
            machines, hosts = query.machines(connection), query.hosts(connection)
            where, scope = self.get_option("where"), self.get_option("scope")
            if where or scope:
                asked: Options = {
                    "of": "machine",
                    "where": where,
                    "scope": scope,
                    "include": ["virtual", "future"],
                }
                chosen = matching(connection, asked)
                machines = [row for row in machines if row["uuid"] in chosen]
        return store.location.path, (machines, hosts)

    def _add(self, entry: view.Entry, providers: bool) -> view.Variables:
        """Add a host with its groups and variables; returns the variables.

        :param providers: the option of this name.
        """
        inventory = t.cast(InventoryData, self.inventory)
        name, variables = entry["name"], dict(entry["variables"])
        is_machine = variables["virtuoso_kind"] == "machine"
        known = inventory.hosts.get(name)
        if is_machine and known and known.vars.get("virtuoso_kind") != "machine":
            # A play meant for that host is not to reach a machine that somebody has given its name.
            self.display.warning(
                f"another inventory has a host {name}, which is left as it is; the machine of this name is not"
                " reached by it. Name one of them otherwise"
            )
            return dict(entry["variables"])
        elif is_machine or providers and not known:
            variables.update(entry["connection"])
        groups = list(entry["groups"])
        if not is_machine and providers:
            groups.append(f"{variables['virtuoso_kind']}s")
        inventory.add_host(name)
        for group in groups:
            if group not in inventory.groups:
                inventory.add_group(group)
            inventory.add_child(group, name)
        # The host's own method: that of the inventory looks up the name and copies the value for each variable.
        set_variable = inventory.hosts[name].set_variable
        for variable, value in variables.items():
            set_variable(variable, value if _UNTRUSTED else wrap_var(value))
        return variables
