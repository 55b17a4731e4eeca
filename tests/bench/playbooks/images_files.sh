#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Files for the peers in directory $1. `first`: of the image $3, version 1 as raw disk and as qcow2. `second`: 80 MiB of noise and 85 MiB
# that version 1 has elsewhere are written to the machine's disk $3, and version 2 is made of it as overlay, raw disk and qcow2.
set -eu
mkdir -p "$1"
cd "$1"
if [ "$2" = first ]; then
    qemu-img convert -f qcow2 -O raw "$3" 1.raw
    qemu-img convert -f qcow2 -O qcow2 "$3" 1.qcow2
    exit
fi
head -c 80M /dev/urandom >noise
# From where the root file system's data lie
dd if=1.raw of=moved bs=1M skip=150 count=85 status=none
qemu-io -f qcow2 -c "write -s noise 1700M 80M" -c "write -s moved 1800M 85M" "$3" >/dev/null
cp "$3" overlay.qcow2
qemu-img convert -f qcow2 -O raw "$3" 2.raw
qemu-img convert -f qcow2 -O qcow2 "$3" 2.qcow2
rm noise moved
