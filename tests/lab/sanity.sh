#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# ansible-test sanity on a copy of the collection: it wants the real path ansible_collections/virtuoso/grid, and no link.
# Its virtual environments are kept in the user's cache; a home of its own keeps the user's untouched.
set -eu
cd "$(dirname "$0")/../.."
checkout=$(pwd -P)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/virtuoso-grid
tree=build/sanity/ansible_collections
home=$cache/ansible-test
python=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

mkdir -p "$tree/virtuoso/grid" "$home/.ansible/test/cache" "$home/.config"
for version in 24_2 25_2; do
    cp tests/lab/get_pip.py "$home/.ansible/test/cache/get_pip_$version.py"
done
# ansible-test hands no PIP_* variables on; a configuration of the user's still counts
[ ! -e "$HOME/.config/pip" ] || ln -sfn "$HOME/.config/pip" "$home/.config/pip"
[ ! -e "$HOME/.pip" ] || ln -sfn "$HOME/.pip" "$home/.pip"

git ls-files --cached --others --exclude-standard -z | while IFS= read -r -d '' file; do
    [ ! -e "$file" ] && [ ! -L "$file" ] || printf '%s\0' "$file"
done | rsync -a --delete --delete-excluded --from0 --files-from=- ./ "$tree/virtuoso/.new/"
rsync -a --delete --exclude=/tests/output --exclude=/.git "$tree/virtuoso/.new/" "$tree/virtuoso/grid/"
rm -rf "$tree/virtuoso/.new"
# a repository of its own: in the checkout's all of build/ is ignored, and nothing would be tested
[ -e "$tree/virtuoso/grid/.git" ] || git init -q "$tree/virtuoso/grid"
for name in ansible/posix community/crypto; do
    mkdir -p "$tree/${name%/*}"
    rsync -aL --delete "build/collections/ansible_collections/$name/" "$tree/$name/"
done

PATH=$checkout/.venv/bin:$PATH
cd "$tree/virtuoso/grid"
HOME=$home exec ansible-test sanity --local --python "$python" --color no "$@"
