# The only door: `just` lists, `just ready` is all that CI does.

default:
    @just --list

# Format, lints, documents, smoke run, tests: what CI runs
ready:
    bash .ci/run

# The whole test suite, the CUDA kernels under emulation included
test:
    cargo test --workspace --features emulation

# Each fuzz target for so many seconds; needs a nightly toolchain and cargo-fuzz
fuzz seconds="60":
    fuzz/run.sh {{seconds}}

# The bundled session through the four arms, checked bit for bit
smoke:
    cargo run --release -- run --verify

# Every op at model shapes, attention, the whole prefill and the importer
bench:
    cargo bench --workspace

# Pack everything that checks and measures a card into target/gpu: to be carried to a machine without Rust
gpu-pack:
    bash gpu/pack.sh

# Check and measure this machine's card, into one folder; at most eight minutes after packing
gpu folder="target/gpu-record": gpu-pack
    target/gpu/run.sh {{folder}}

# Rewrite golden files after a change that is meant
golden:
    UPDATE_GOLDEN=1 cargo test --workspace --features emulation

# Recompile the CUDA kernels whose sources changed; the compiler comes from PyPI
kernels:
    python3 kernels/prebuilt/build.py build
    cargo test -p kernels --lib --test it prebuilt

# Recompile every CUDA kernel, compare byte by byte, hold it against its budget
check-kernels:
    python3 kernels/prebuilt/build.py check
    cargo test -p kernels --lib --test it prebuilt

# The CUDA kernels on the CPU under the address and undefined-behaviour sanitizers
emulation-asan:
    bash kernels/emu/asan.sh

# Train the bundled pair anew from generated sessions: hours on two cores
sample-models:
    cargo build --release --locked
    python3 -m venv target/sample-venv
    target/sample-venv/bin/pip install --quiet --requirement engine/sample/train/requirements.txt
    target/sample-venv/bin/python -m unittest discover engine/sample/train
    target/sample-venv/bin/python engine/sample/train/make.py
