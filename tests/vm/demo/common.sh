#!/bin/sh
# First half of both jobs of the demo (scripts/demo.sh): how it shows things, and the bad disk.
set -e
exec >/dev/host/verdict 2>&1

BAD=30000 # the first of the bad sectors
COUNT=16

say() {
    printf '\n# %s\n' "$*"
}

# The command, its output, and that it succeeded or failed as it must.
must() {
    echo "\$ $*"
    sh -c "$*" || { echo "unexpected: exit status $?" && exit 1; }
}

must_fail() {
    echo "\$ $*"
    ! sh -c "$*" || { echo "unexpected: this succeeded" && exit 1; }
}

# scsi_debug gives real medium errors but forgets its data with the machine. So the disk is one that
# stays, with some of its sectors taken from scsi_debug: as a disk does, it comes up after the
# reboot with the same data and the same bad sectors.
modprobe scsi_debug dev_size_mb=8 delay=0 opts=2 medium_error_start=1024 \
    medium_error_count=$COUNT
modprobe sd_mod
until sectors=$(echo /sys/bus/pseudo/devices/adapter0/host*/target*/*/block/sd*) &&
    [ -e "/dev/${sectors##*/}" ]; do
    sleep 0.1
done
SIZE=$(blockdev --getsz /dev/disk/main)
dmsetup create disk <<EOF
0 $BAD linear /dev/disk/main 0
$BAD $COUNT linear /dev/${sectors##*/} 1024
$((BAD + COUNT)) $((SIZE - BAD - COUNT)) linear /dev/disk/main $((BAD + COUNT))
EOF
ln -sf "$(readlink -f /dev/disk/spare)" /dev/spare
