#!/usr/bin/env bash
# Packs everything that `run.sh` needs into target/gpu: a folder that runs on a machine with a card and a driver, without
# Rust, a CUDA toolkit or a network.
set -euo pipefail
cd "$(dirname "$0")/.."
pack=target/gpu
rm -rf "$pack"
mkdir -p "$pack/engine/tests"

cargo build --release --locked
cp target/release/reprise "$pack/reprise"

# The executable that cargo built of one test or bench target.
built() {
  cargo "$@" --no-run --locked --message-format=json |
    python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == sys.argv[1]:
        print(message["executable"])' "$name"
}
name=it
cp "$(built test --release -p kernels --test it)" "$pack/kernels-tests"
cp "$(built test --release -p engine --test it)" "$pack/engine-tests"
name=cuda
cp "$(built bench -p kernels --bench cuda)" "$pack/kernels-bench"
cp "$(built bench -p engine --bench cuda)" "$pack/engine-bench"
for program in "$pack"/*; do if [[ -f $program ]]; then strip "$program"; fi; done

cp -r engine/tests/golden "$pack/engine/tests/golden"
cp gpu/run.sh gpu/peer.py "$pack/"
git rev-parse HEAD >"$pack/commit"
git diff --quiet HEAD || echo "with changes that are not committed" >>"$pack/commit"
du -sh "$pack"
