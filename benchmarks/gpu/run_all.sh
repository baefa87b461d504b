#!/usr/bin/env bash
# The first GPU script: everything in benchmarks/gpu in one call, under 9 minutes, no network.
#   benchmarks/gpu/run_all.sh            # results into $OUT, or benchmarks/results
#   benchmarks/gpu/run_all.sh --toy      # the same path at toy size on a CPU
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" benchmarks/gpu/run_all.py "$@"
