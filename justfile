# The only door: `just` lists, `just ready` is all that CI does.

default:
    @just --list

# Format, lints, documents, smoke run, tests: what CI runs
ready:
    bash .ci/run

# The whole test suite
test:
    cargo test --workspace

# The bundled session through the four arms, checked bit for bit
smoke:
    cargo run --release -- run --verify

# Every op at model shapes, attention, the whole prefill and the importer
bench:
    cargo bench --workspace

# Rewrite golden files after a change that is meant
golden:
    UPDATE_GOLDEN=1 cargo test --workspace

# Recompile the CUDA kernels whose sources changed; the compiler comes from PyPI
kernels:
    python3 kernels/prebuilt/build.py build
    cargo test -p kernels --test it prebuilt

# Recompile every CUDA kernel, compare byte by byte, hold it against its budget
check-kernels:
    python3 kernels/prebuilt/build.py check
    cargo test -p kernels --test it prebuilt
