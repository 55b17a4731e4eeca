# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: systemd containers that stand for the hosts of three sites.

Needs nothing but Python's standard library, podman and mmdebstrap; see definition.py for what it makes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time

import hosts
import images
import limits
import wan
from command import LabError, fail, podman, say
from definition import BUILD, HOSTS, PREFIX, STATE_DIR, Host

STATE = BUILD / "state"
"""What the lab's inventory has as virtuoso_state_dir."""


def _forget_machines() -> None:
    """The store knows machines that went with their hosts' disks, and SSH knows their keys."""
    stale = [path for path in STATE.glob("grid.db*") if path.is_file()]
    if stale:
        say("forgetting the machines of the lab that was here before")
    for path in stale:
        path.unlink()


def _mended(host: Host, state: str) -> bool:
    """Whether the host is up; one that stopped is started again with all that is on it, if podman still can."""
    if state in ("silent", "stopped"):
        say(f"{host.name} is {state}: starting it again")
        podman("restart", "--time", "0", host.container, check=False)
    elif state in ("dead", "outdated"):
        say(f"{host.name} is {state}")
    return state in ("up", "silent", "stopped") and hosts.runs(host)


def _make_all() -> None:
    """Make all hosts, empty: a store that knows the machines of one that stayed and not those of another would be
    wrong."""
    _forget_machines()
    for host in HOSTS:
        hosts.remove(host.container, hosts.named_volumes(host))
    for host in HOSTS:
        hosts.start(host)


def _clear_foreign(states: dict[str, str], there: dict[str, dict]) -> None:
    """Make room where the lab on this machine is another checkout's."""
    if "foreign" not in states.values():
        return
    say("the lab that is here belongs to another checkout: removing it")
    for name in there:
        hosts.remove(name, [])
    remove_volumes()
    hosts.remove_network()


def up(_args: argparse.Namespace) -> None:
    try:
        _up()
    except hosts.StaleLease as lease:
        if not hosts.drop_leases():
            raise
        say(f"forgot stale addresses and starts over: {lease}")
        _up()


def _up() -> None:
    begin = time.monotonic()
    there = hosts.containers()
    states = {host.name: hosts.condition(host, there.get(host.container)) for host in HOSTS}
    limits.check(sum(state not in ("up", "silent") for state in states.values()))
    if all(state == "up" for state in states.values()) and all(map(hosts.admitted, HOSTS)):
        say(f"already up: {', '.join(host.name for host in HOSTS)}")
        return
    hosts.make_image_store()
    for name in sorted({host.image for host in HOSTS}):
        images.ensure(name)
    _clear_foreign(states, there)
    hosts.ensure_network()
    mended = [_mended(host, states[host.name]) for host in HOSTS]
    if not all(mended):
        _make_all()
    hosts.wait_for_ssh(list(HOSTS))
    for host in HOSTS:
        hosts.admit(host)
        images.drop_older(host.image)
    if wan.is_on():
        wan.plug()
    say(f"up in {time.monotonic() - begin:.1f} s: " + ", ".join(f"{h.name} {h.address}" for h in HOSTS))


def remove_volumes() -> None:
    listed = podman("volume", "ls", "--quiet", "--filter", f"name={PREFIX}-").stdout.split()
    for volume in listed:
        if volume.startswith(f"{PREFIX}-"):
            podman("volume", "rm", "--force", volume)


def down(_args: argparse.Namespace) -> None:
    if shutil.which("podman") is None:
        return
    wan.off()
    for name in hosts.containers():
        hosts.remove(name, [])
    remove_volumes()
    hosts.remove_network()
    for path in (hosts.KNOWN_HOSTS, hosts.ANSIBLE_SSH_CONFIG, hosts.ADMIN_SSH_CONFIG):
        path.unlink(missing_ok=True)
    say("removed its containers, volumes and network")


def status(_args: argparse.Namespace) -> None:
    there = hosts.containers()
    for host in HOSTS:
        state = hosts.condition(host, there.pop(host.container, None))
        print(f"{host.name:12} {host.address:14} {host.image:16} {state}")
    for name, entry in there.items():
        print(f"{name.removeprefix(PREFIX + '-'):12} {'':14} {'extra':16} {entry.get('State')}")


def ssh(args: argparse.Namespace) -> None:
    os.execvp("ssh", ["ssh", "-F", str(hosts.ADMIN_SSH_CONFIG), args.host, *args.command])


def image(args: argparse.Namespace) -> None:
    print(images.ensure(args.name))


def forget(_args: argparse.Namespace) -> None:
    """Remove what `down` keeps for the next lab: the host images and the store of guest images."""
    if shutil.which("podman") is not None:
        images.remove_all()
    hosts.remove_image_store()


def host_up(args: argparse.Namespace) -> None:
    """An extra host: always a fresh one, so that what a test finds there is what the image has."""
    host = Host(args.name, args.image, args.address, {f"{PREFIX}-{args.name}": STATE_DIR}, account=args.account)
    if host.name in {known.name for known in HOSTS} or host.address in {known.address for known in HOSTS}:
        raise LabError(f"{host.name} {host.address} is one of the lab's own hosts: take another name and address")
    begin = time.monotonic()
    limits.check(1)
    hosts.ensure_network()
    hosts.remove(host.container, hosts.named_volumes(host))
    hosts.start(host)
    hosts.wait_for_ssh([host])
    hosts.admit(host)
    images.drop_older(host.image)
    say(f"{host.name} {host.address} ({host.image}) up in {time.monotonic() - begin:.1f} s")


def host_down(args: argparse.Namespace) -> None:
    if args.name in {host.name for host in HOSTS}:
        raise LabError(f"{args.name} is one of the lab's own hosts: 'down' removes all of them")
    hosts.remove(f"{PREFIX}-{args.name}", [f"{PREFIX}-{args.name}"])
    hosts.forget_key(args.name)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="lab.py", description=__doc__)
    verbs = top.add_subparsers(required=True, metavar="COMMAND")
    verbs.add_parser("up", help="start the lab, or what is missing of it").set_defaults(do=up)
    verbs.add_parser("down", help="remove the lab's containers, volumes and network").set_defaults(do=down)
    verbs.add_parser("status", help="say how each host is").set_defaults(do=status)
    verbs.add_parser("forget", help="remove the images that 'down' keeps").set_defaults(do=forget)
    verb = verbs.add_parser("ssh", help="log in on a host, or run a command there")
    verb.add_argument("host")
    verb.add_argument("command", nargs=argparse.REMAINDER)
    verb.set_defaults(do=ssh)
    verb = verbs.add_parser("image", help="build a host image if its recipe has changed, and print its name")
    verb.add_argument("name", help="such as bare-bookworm or host-trixie")
    verb.set_defaults(do=image)
    verb = verbs.add_parser("host-up", help="start an extra, fresh host")
    verb.add_argument("name")
    verb.add_argument("--image", default="bare-bookworm")
    verb.add_argument("--address", required=True)
    verb.add_argument(
        "--account", default="", help="who logs in with the lab's key, with sudo and a password; else root"
    )
    verb.set_defaults(do=host_up)
    verb = verbs.add_parser("host-down", help="remove an extra host")
    verb.add_argument("name")
    verb.set_defaults(do=host_down)
    wan.add_verbs(verbs)
    return top


def main() -> None:
    args = parser().parse_args()
    try:
        args.do(args)
    except LabError as error:
        fail(str(error))


if __name__ == "__main__":
    main()
