#!/usr/bin/env bash
# Runs the tests of the CUDA kernels with the emulator and the kernels compiled under the address and
# undefined-behaviour sanitizers: an access outside of a buffer or of shared memory, or one of a vector that is not
# aligned, stops the tests with its line. Arguments are filters for the test binary.
set -euo pipefail
cd "$(dirname "$0")/../.."
sanitizers='-fsanitize=address,undefined'
# The C++ compiler that links puts the sanitizers' libraries first, which it does only if left its default libraries.
export RUSTFLAGS="--cfg sanitized -Cdefault-linker-libraries=yes -Clink-arg=$sanitizers"
export CXXFLAGS="$sanitizers -fno-sanitize-recover=undefined"
# What the test harness holds until the end is no leak.
export ASAN_OPTIONS=detect_leaks=0
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/asan"
# Named, so that the flags are for what is tested and not for what helps to build it.
target=$(rustc -vV | sed -n 's/^host: //p')
if [ $# = 0 ]; then set -- cuda:: emulation::; fi
cargo test -p kernels --features emulation --test it --target "$target" -- "$@"
