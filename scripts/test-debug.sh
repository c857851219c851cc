#!/bin/bash
# The VM cases on the debug kernel (make debug-kernel), and once more those in which the module has
# work to do while most of the allocations fail that it makes for it. Nothing may be reported, and
# the cases may not see a difference. Says how many allocations were made to fail.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

failed=0
tests/vm/run.sh --kernel debug || failed=1
for percent in 20 100; do
    echo "=== $percent % of the allocations fail"
    tests/vm/run.sh --kernel debug --failing "$percent" \
        --case 'Failed*:PendingWrite*:NoAutoRemap*:SpareFails*:Races*:Filesystems*:Flush*:Events*:Reboot*' ||
        failed=1
done
exit $failed
