# shellcheck shell=sh disable=SC2154
# Second half of the job: common.sh comes before it.

say "The disk cannot read sectors $BAD to $((BAD + COUNT - 1)):"
must_fail "dd if=/dev/mapper/disk of=/dev/null bs=512 skip=$BAD count=$COUNT iflag=direct"

say "A spare, and the mapped device in front of the disk. Nothing on the disk is changed."
must dm-remapctl format --yes /dev/mapper/disk /dev/spare
must dm-remapctl create safe /dev/mapper/disk /dev/spare
must dmsetup table safe

say "A filesystem on it. The bad sectors are still bad:"
must mkfs.ext4 -q /dev/mapper/safe
must mount -t ext4 /dev/mapper/safe /mnt
must_fail "dd if=/dev/mapper/safe of=/dev/null bs=512 skip=$BAD count=$COUNT iflag=direct"

say "Move them to the spare. Their data can't be read, so they are pending until they are written."
must dm-remapctl remap safe "$BAD" "$COUNT"
must dm-remapctl list safe

say "Fill the filesystem, so that files lie over the bad place, and verify them from the disk."
must "cd /mnt && for i in 1 2 3 4 5; do head -c 4194304 /dev/urandom > file\$i; done"
must "cd /mnt && sha256sum file* > sums && cat sums"
must "sync; echo 3 > /proc/sys/vm/drop_caches; cd /mnt && sha256sum -c sums"

say "The place is good now, and it is the spare that serves it:"
must "dd if=/dev/mapper/safe of=/dev/null bs=512 skip=$BAD count=$COUNT iflag=direct"
must dm-remapctl list safe
must dm-remapctl status safe
must dm-remapctl save safe
must dmsetup status safe

say "Unmount, and reboot the machine. The device is not even removed."
must umount /mnt
echo "done: before the reboot"
