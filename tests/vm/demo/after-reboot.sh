# shellcheck shell=sh disable=SC2154
# Second half of the job: common.sh comes before it.

say "The same disks, after the reboot. The bad sectors are as bad as before:"
must_fail "dd if=/dev/mapper/disk of=/dev/null bs=512 skip=$BAD count=$COUNT iflag=direct"

say "The table is on the spare, sound:"
must dm-remapctl check /dev/spare

say "Activation recovers it:"
must dm-remapctl create safe /dev/mapper/disk /dev/spare
must dm-remapctl list safe

say "The files are what they were, over the bad place too:"
must mount -t ext4 /dev/mapper/safe /mnt
must "cd /mnt && sha256sum -c sums"

say "The table is saved by itself. How often, and whether, is set while it runs:"
must "cd /sys/module/dm_remap/parameters && grep . dm_remap_autosave_*"
must "echo 5 > /sys/module/dm_remap/parameters/dm_remap_autosave_interval"
must_fail "echo 0 > /sys/module/dm_remap/parameters/dm_remap_autosave_interval"
must "echo N > /sys/module/dm_remap/parameters/dm_remap_autosave_enabled"
must "echo Y > /sys/module/dm_remap/parameters/dm_remap_autosave_enabled"
must "cd /sys/module/dm_remap/parameters && grep . dm_remap_autosave_*"

say "Away with it:"
must umount /mnt
must "e2fsck -f -n /dev/mapper/safe"
must dm-remapctl remove safe
must dm-remapctl check /dev/spare
echo "done: after the reboot"
