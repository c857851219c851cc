#!/bin/bash
# Run the ctest tests that carry a label: test-ctest.sh unit|sim|cli. Results, "PASS|FAIL|SKIP name
# seconds" a line, are in build/results/LABEL.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

label=$1
results=build/results/$label.txt
report=$PWD/build/results/$label.xml
mkdir -p build/results
rm -f "$results" "$report"

status=0
ctest --test-dir build/cmake -L "^$label\$" -j "$(nproc)" --output-on-failure --no-tests=error \
    --output-junit "$report" </dev/null || status=$?

# ctest calls "notrun" what skipped itself and what it could not start; the reason tells.
[[ ! -e $report ]] || awk -F '"' '
    /<testcase / { name = $2; seconds = $6; verdict[name] = $8 == "run" ? "PASS" : "FAIL" }
    /<testcase / && $8 == "disabled" { verdict[name] = "SKIP" }
    /<skipped message="SKIP_/ { verdict[name] = "SKIP" }
    /<\/testcase>/ { print verdict[name], name, seconds }' "$report" >"$results"

# A run that failed without a failing test (none found, none built) counts as one.
if [[ $status -ne 0 ]] && ! grep -qs '^FAIL' "$results"; then
    echo "FAIL $label.run 0" >>"$results"
fi
exit "$status"
