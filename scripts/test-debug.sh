#!/bin/bash
# The VM cases on the debug kernel (make debug-kernel). Those in which the module has work to do run
# twice more, while many of its allocations fail. Nothing may be reported, and the cases may not see a
# difference. Says how many allocations were made to fail.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

# With work for the module's own threads. A hundred thousand records are made in their callers', and
# take long to look at.
working='Failed*:PendingWrite*:NoAutoRemap*:SpareFails*:Races*:Flush*:Fua*:Events*'
working+=':Reboot*-RebootHundredThousand*'

failed=0
tests/vm/run.sh --kernel debug || failed=1
for percent in 20 100; do
    tests/vm/run.sh --kernel debug --machine "failing-$percent" --failing "$percent" --case "$working" ||
        failed=1
done
exit $failed
