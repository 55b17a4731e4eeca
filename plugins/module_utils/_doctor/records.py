# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the doctor gathers, as records with named fields. Managed hosts fill them, the controller judges them."""

from __future__ import annotations

import typing as t

IMAGES = 10808
MIGRATION = 49215
NBD = 10872
"""The last of 49152-49215 and of 10809-10872, which QEMU and libvirt take last: they count up from the first."""
LISTEN = (IMAGES, MIGRATION, NBD)
"""The ports that hosts listen on while they are probed."""


class System(t.TypedDict):
    """The distribution, as /etc/os-release says."""

    id: str
    like: t.List[str]
    version: str
    name: str


class Python(t.TypedDict):
    """The interpreter that modules run with."""

    executable: str
    version: t.List[int]
    libvirt: bool
    """Whether this interpreter can import libvirt."""
    packaged_libvirt: bool
    """Whether the distribution's own interpreter has it."""


class Clock(t.TypedDict):
    """Seconds since the epoch by the host's clock, when gathering began and ended."""

    begin: float
    end: float
    synchronised: t.Optional[bool]
    """Whether the kernel's clock is disciplined by NTP; none where it can't be told."""


class Kvm(t.TypedDict):
    """Hardware acceleration."""

    flags: bool
    """Whether the processor shows vmx or svm."""
    device: bool
    """Whether /dev/kvm is there."""
    error: t.Optional[str]
    """Why /dev/kvm can't be opened."""
    recorded: t.Optional[str]
    """kvm or qemu: what the role provider found by running a guest."""


class Network(t.TypedDict):
    """A network of libvirt's."""

    name: str
    active: bool
    autostart: bool


class Libvirt(t.TypedDict):
    """The daemon."""

    answers: bool
    hangs: bool
    error: t.Optional[str]
    version: t.List[int]
    """Three numbers, or empty."""
    qemu: t.List[int]
    security: t.List[str]
    """Active security drivers, for example apparmor and dac."""
    networks: t.List[Network]


class Certificate(t.TypedDict):
    """A certificate's dates, in seconds since the epoch."""

    path: str
    present: bool
    error: t.Optional[str]
    not_before: float
    not_after: float
    digest: str
    """SHA-256 of the certificate."""


class Depot(t.TypedDict):
    """The file system of the depot; of its nearest parent where it isn't made yet. Bytes."""

    path: str
    present: bool
    size: int
    free: int


class AppArmor(t.TypedDict):
    """Mandatory access control."""

    enabled: bool
    template: bool
    """Whether libvirt's template for machines' profiles is installed."""


class Firewall(t.TypedDict):
    """Chains that refuse what no rule admits, except the collection's own table."""

    readable: bool
    input: t.List[str]


class Attempt(t.TypedDict):
    """One TCP connection that was tried."""

    result: str
    """open, refused, timeout, unreachable, unresolved or other."""
    error: t.Optional[str]


class Ports(t.TypedDict):
    """What the host could reach of the others, and whether it could be reached itself."""

    begin: float
    end: float
    """When it listened, by its own clock."""
    listening: t.Dict[str, bool]
    """By port: whether something listened there, the probe or a service."""
    attempts: t.Dict[str, t.Dict[str, Attempt]]
    """By the peer's name, by port."""


class HostFacts(t.TypedDict):
    """All that the module host_check gathers on a host."""

    set_up: bool
    """Whether the playbook setup has been here."""
    system: System
    python: Python
    clock: Clock
    kvm: Kvm
    libvirt: Libvirt
    certificates: t.List[Certificate]
    depot: Depot
    apparmor: AppArmor
    firewall: Firewall
    ports: Ports


class Peer(t.TypedDict):
    """Another host that this one connects to."""

    name: str
    address: str
    ports: t.List[int]


class Way(t.TypedDict):
    """How the controller reached a host."""

    reached: bool
    error: t.Optional[str]
    """Why not, or why the facts could not be gathered."""
    stage: str
    """What failed: connect, become or facts; empty where nothing did."""
    user: str
    become: str
    """Name of the become plugin, empty without one."""
    become_user: str
    """Who commands run as."""
    password: bool
    """Whether a become password was given."""
    login_password: bool
    """Whether it logs in with a password."""
    offset_min: float
    offset_max: float
    """The host's clock minus the controller's lies between these, in seconds."""


class Host(t.TypedDict):
    """A host of the inventory, as the module doctor takes it."""

    name: str
    roles: t.List[str]
    peers: t.List[Peer]
    network: str
    """The libvirt network that the role provider makes."""
    way: Way
    facts: t.Optional[HostFacts]


class Controller(t.TypedDict):
    """What the controller is."""

    ansible: str
    python: str
    libraries: t.Dict[str, t.Optional[str]]
    """By name: its version, or none."""
    store: str
    store_error: t.Optional[str]
    store_code: t.Optional[str]
    store_remedy: t.Optional[str]
    state_dir: str
    state_mode: t.Optional[int]
    """Permission bits of the state directory; none where it isn't made yet."""
    state_owned: bool
    authority: Certificate
    now: float


class Source(t.TypedDict):
    """Addresses of a machine that one source knows."""

    source: str
    """agent, lease or neighbour, of its provider; home."""
    addresses: t.List[str]


class MachineFacts(t.TypedDict):
    """What a provider sees of a machine."""

    present: bool
    state: str
    seen: t.List[Source]
    ordered: t.Optional[str]
    network: str
    bridge: str
    mac: str
    mode: str
    """nat, route, open or isolated; bridge, a bridge of the provider's; overlay, a network of the grid; or unknown."""
    rules: t.List[str]
    """Rules of the provider's firewall that may stop traffic to it."""


class Reach(t.TypedDict):
    """From where a machine was tried."""

    host: str
    role: str
    """provider, home or controller."""
    attempts: t.Dict[str, Attempt]
    """By address."""
    error: t.Optional[str]
    """Why nothing could be tried."""


class Machine(t.TypedDict):
    """A machine in question."""

    name: str
    known: bool
    """Whether the store has it."""
    provider: t.Optional[str]
    homes: t.List[str]
    """Hosts that have the network of the machine."""
    port: int
    ordered: t.Optional[str]
    """The address that it was ordered with."""
    facts: t.Optional[MachineFacts]
    error: t.Optional[str]
    """Why there are no facts."""
    reaches: t.List[Reach]
