#!/bin/bash
# What the layer costs, in the kernel and in the core alone, beside the plain disk and dm-linear and
# beside what it may cost: a table here, the same as bench.json and bench.svg in build/bench. Some
# minutes; the machine should be idle, for what is measured by the clock of the wall.
set -euo pipefail
cd "$(dirname "$0")/../.."

kernel=6.12
out=build/bench
mkdir -p "$out"
tests/bench/kernel-bench.sh --kernel "$kernel" >&2
build/cmake/tests/bench/core-bench --benchmark_out="$out/core.json" >&2
tests/bench/report.py "$out/kernel-$(scripts/kernels.sh version "$kernel").txt" "$out/core.json" "$out"
