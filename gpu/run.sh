#!/usr/bin/env bash
# Everything there is to say about one card, into one folder: parity of every kernel with its spec, of the whole forward pass
# with the CPU and with transformers, cached against cold on the bundled session, then speeds. At most eight minutes.
# Usage: run.sh [FOLDER]. Steps that fail do not stop the others; the exit status is 1 if one failed.
set -uo pipefail
pack=$(cd "$(dirname "$0")" && pwd)
out=$(realpath -m "${1:-gpu-record}")
mkdir -p "$out"
cp "$pack/commit" "$out/commit"
export REQUIRE_GPU=1 NO_COLOR=1
failed=0

# step NAME SECONDS COMMAND...: runs with a time limit, keeps what it prints, says how it ended.
step() {
  local name=$1 limit=$2 begin=$SECONDS
  shift 2
  timeout --kill-after=5 "$limit" "$@" >"$out/$name.txt" 2>"$out/$name.log"
  local status=$?
  local verdict=passed
  if [[ $status -ne 0 ]]; then verdict="FAILED ($status)" failed=1; fi
  printf '%-24s %s, %d s\n' "$name" "$verdict" $((SECONDS - begin)) | tee -a "$out/steps"
}
# A test program whose filter matches nothing passes, too, and proves nothing.
ran() {
  if ! grep -q '^test result: ok. [1-9]' "$out/$1.txt"; then
    printf '%-24s FAILED: no test ran\n' "$1" | tee -a "$out/steps"
    failed=1
  fi
}
skipped() { printf '%-24s skipped: %s\n' "$1" "$2" | tee -a "$out/steps"; }

: >"$out/steps"
step nvidia-smi 10 nvidia-smi -q
step doctor 20 "$pack/reprise" doctor --json

step kernels-parity 60 "$pack/kernels-tests" cuda:: --test-threads 4
ran kernels-parity
cd "$pack/engine" || exit 1
step engine-parity 45 "$pack/engine-tests" cuda:: --test-threads 2
ran engine-parity
cd "$out" || exit 1
if command -v compute-sanitizer >/dev/null; then
  # Races are looked for between the threads of a block; the small shapes of the parity tests are enough for that.
  step sanitizer-memcheck 45 compute-sanitizer --tool memcheck --error-exitcode 9 \
    "$pack/kernels-tests" cuda:: --test-threads 1
  step sanitizer-racecheck 30 compute-sanitizer --tool racecheck --error-exitcode 9 \
    "$pack/kernels-tests" cuda::attention --test-threads 1
else
  skipped sanitizer 'compute-sanitizer is not installed'
fi

step verify 40 "$pack/reprise" run --device cuda --verify --output "$out/run-verify"
step kernels-bench 60 "$pack/kernels-bench"
step engine-bench 60 "$pack/engine-bench"
if python3 -c 'import torch, transformers' 2>/dev/null; then
  step peer 45 python3 "$pack/peer.py"
else
  skipped peer 'python3 has no torch and transformers'
fi
step replay 60 "$pack/reprise" run --device cuda --model synthetic:qwen3-8b --drafter synthetic:qwen3-0.6b \
  --kv-budget 16GiB --arms cold,cache-only,cache+rescore,cache+compression --output "$out/run-qwen3-8b"
# The record is text; what a report draws can be drawn again from it.
for run in "$out"/run-*; do rm -rf "$run/plots" "$run/report.html"; done
exit $failed
