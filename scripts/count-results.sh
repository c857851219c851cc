#!/bin/bash
# Sum up result files ("PASS|FAIL|SKIP name seconds" a line): count-results.sh FILE...
set -euo pipefail
cat "$@" | awk '
    { count[$1]++ }
    END { printf "%d passed, %d failed\n", count["PASS"], count["FAIL"] }'
