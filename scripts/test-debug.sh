#!/bin/bash
# The VM cases on the debug kernel (make debug-kernel), and once more those in which the module has
# work to do while most of the allocations fail that it makes for it: on two machines side by side.
# Nothing may be reported, and the cases may not see a difference. Says how many allocations were made
# to fail.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

# So that both machines take about as long.
slow='AllocationFails*:EachBlock*:HostileSpares*:Layers*:Tool*:Scattered*:SpareFails*:Failed*:W*'
# With work for the module's own threads. A hundred thousand records are made in their callers', and
# take long to look at.
working='Failed*:PendingWrite*:NoAutoRemap*:SpareFails*:Races*:Flush*:Fua*:Events*'
working+=':Reboot*-RebootHundredThousand*'

on_machine() { # on_machine NAME OPTIONS...
    tests/vm/run.sh --kernel debug --machine "$@" 2>&1 | sed -u "s/^/$1: /"
}

failed=0
mkdir -p build/results
{
    on_machine slow --case "$slow" || failed=1
    on_machine failing-20 --failing 20 --case "$working" || failed=1
    exit $failed
} &
on_machine others --case "*-$slow" || failed=1
on_machine failing-100 --failing 100 --case "$working" || failed=1
wait $! || failed=1
exit $failed
