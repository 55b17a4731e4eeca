#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# From a bare Debian controller to one that can lint, test and run the collection. What is there already is left alone:
# the virtual environment and the collections are kept in the user's cache under the digest of their requirements.
set -eu
cd "$(dirname "$0")/../.."
checkout=$(pwd -P)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/virtuoso-grid
python=/usr/bin/python3
log=$checkout/build/setup.log
mkdir -p "$cache" build

say() { printf 'setup: %s\n' "$*"; }
wanted() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$1"; }
digest() { sha256sum | cut -c1-12; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
logged() {
    if ! "$@" >>"$log" 2>&1; then
        tail -n 30 "$log" >&2
        say "failed: $* (all of it in $log)" >&2
        exit 1
    fi
}

debian_packages() {
    missing=
    # dpkg-query fails, and names nothing, for packages it has never heard of
    there=" $(dpkg-query -W -f '${db:Status-Abbrev}${Package} ' $(wanted requirements/debian.txt) 2>/dev/null || true) "
    for package in $(wanted requirements/debian.txt); do
        case $there in *"ii $package "*) ;; *) missing="$missing $package" ;; esac
    done
    if [ -z "$missing" ]; then
        say "Debian packages: there"
        return
    fi
    say "Debian packages: installing$missing"
    logged as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 update
    logged as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install \
        --no-install-recommends $missing
}

# environment NAME REQUIREMENTS LINK [MORE]: a virtual environment in the cache, and LINK to it. MORE: what its key depends on beside that.
environment() {
    key=$({ for file in $2 ${4:-}; do wanted "$file"; done; "$python" -V; } | digest)
    venv=$cache/$1-$key
    if [ ! -e "$venv/.complete" ]; then
        say "virtual environment: making $venv"
        rm -rf "$venv"
        "$python" -m venv "$venv"
        logged "$venv/bin/python" -m pip install -q --no-input --disable-pip-version-check -r "$2"
        touch "$venv/.complete"
    else
        say "virtual environment: $1 is there"
    fi
    [ "$(readlink "$3" || true)" = "$venv" ] || { rm -rf "$3" && ln -s "$venv" "$3"; }
}

collections() {
    key=$(wanted requirements/collections.txt | digest)
    tree=$cache/collections-$key
    if [ ! -e "$tree/.complete" ]; then
        say "collections: unpacking them from $(wanted requirements/collections.txt | head -n 1)"
        rm -rf "$tree"
        mkdir -p "$tree/wheel"
        logged .venv/bin/python -m pip download -q --no-input --disable-pip-version-check --no-deps -d "$tree/wheel" \
            "$(wanted requirements/collections.txt | head -n 1)"
        "$python" - "$tree" $(wanted requirements/collections.txt | tail -n +2) <<'UNPACK'
import pathlib, sys, zipfile
tree = pathlib.Path(sys.argv[1])
folders = tuple("ansible_collections/" + name.replace(".", "/") + "/" for name in sys.argv[2:])
wheel, = tree.glob("wheel/*.whl")
with zipfile.ZipFile(wheel) as archive:
    names = [name for name in archive.namelist() if name.startswith(folders)]
    for folder in folders:
        if not any(name.startswith(folder) for name in names):
            sys.exit(f"{wheel.name} has no {folder}")
    archive.extractall(tree, names)
UNPACK
        rm -rf "$tree/wheel"
        touch "$tree/.complete"
    else
        say "collections: there"
    fi
    root=build/collections/ansible_collections
    for name in $(wanted requirements/collections.txt | tail -n +2); do
        mkdir -p "$root/${name%%.*}"
        ln -sfn "$tree/ansible_collections/${name%%.*}/${name#*.}" "$root/${name%%.*}/${name#*.}"
    done
    mkdir -p "$root/virtuoso"
    ln -sfn "$checkout" "$root/virtuoso/grid"
}

# cloud-init for unit tests: unpacked from its packages, never installed, so that no service of it is on the controller.
cloud_init() {
    key=$(wanted requirements/cloud-init.txt | digest)
    tree=$cache/cloud-init-$key
    if [ ! -e "$tree/.complete" ]; then
        say "cloud-init: unpacking it"
        rm -rf "$tree"
        mkdir -p "$tree/packages"
        # A new machine has no lists of packages yet, or old ones.
        logged as_root apt-get -q -o DPkg::Lock::Timeout=300 update
        # apt fetches as a user of its own, who may not get at the cache
        (cd "$tree/packages" && logged apt-get -q -o APT::Sandbox::User=root download $(wanted "$checkout/requirements/cloud-init.txt"))
        for package in "$tree"/packages/*.deb; do
            logged dpkg-deb --extract "$package" "$tree"
        done
        rm -rf "$tree/packages"
        touch "$tree/.complete"
    else
        say "cloud-init: there"
    fi
    ln -sfn "$tree" build/cloud-init
}

debian_packages
# one set-up at a time: checkouts share the cache
exec 9>"$cache/.lock"
flock 9
: >"$log"
environment venv requirements/dev.txt .venv requirements/runtime.txt
collections
cloud_init
# What checks the archive before it is published: only where it is asked for (make lint)
[ "${1:-}" != publish ] || environment publish requirements/publish.txt build/publish
