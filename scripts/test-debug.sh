#!/bin/bash
# The VM cases on the debug kernel (make debug-kernel), and once more those in which the module has
# work to do while most of the allocations fail that it makes for it, side by side. Nothing may be
# reported, and the cases may not see a difference. Says how many allocations were made to fail.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

failed=0
mkdir -p build/results
tests/vm/run.sh --kernel debug >build/results/said-debug 2>&1 &
for percent in 20 100; do
    echo "=== $percent % of the allocations fail"
    tests/vm/run.sh --kernel debug --failing "$percent" \
        --case 'Failed*:PendingWrite*:NoAutoRemap*:SpareFails*:Races*:Filesystems*:Flush*:Events*:Reboot*' ||
        failed=1
done
wait $! || failed=1
echo '=== no allocation fails'
cat build/results/said-debug
rm build/results/said-debug
exit $failed
