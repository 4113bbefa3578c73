#!/usr/bin/env bash
# Every target for so many seconds (60 without an argument), seeded with the fixtures; stops at the first crash.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
  echo 'needs a nightly toolchain and cargo-fuzz: rustup toolchain install nightly; cargo install cargo-fuzz' >&2
  exit 127
fi
fixtures=../transcripts/tests/fixtures
for target in $(cargo +nightly fuzz list); do
  case $target in
    canonical) seeds=(../transcripts/tests/canonical) ;;
    claude_code | detection | redaction) seeds=("$fixtures" ../transcripts/data) ;;
    *) seeds=("$fixtures/formats/$target") ;;
  esac
  printf '\n== %s\n' "$target"
  mkdir -p "corpus/$target"
  cargo +nightly fuzz run "$target" "corpus/$target" "${seeds[@]}" -- \
    -max_total_time="$seconds" -max_len=65536 -timeout=60 -print_final_stats=1
done
