#!/usr/bin/env python3
"""Builds kernels/prebuilt/*.fatbin from kernels/src/ops/**/*.cu and writes down what was built in manifest.json.

    build.py build    compiles what is stale, in place
    build.py check    compiles everything into a temporary folder and compares it with what is checked in, byte by byte

The compiler comes from hash-pinned wheels (requirements.txt), installed once below target/. The image depends on the
sources, the flags below and the compiler alone, not on the folder: nothing here passes a path into it. The manifest says
per kernel and architecture what the compiler made of it; kernels/tests/it/prebuilt.rs holds that against budget.toml, so
that every `cargo test` applies the gates and needs no compiler. Python 3.9 or later, standard library only.

Exit status: 0 done or equal, 1 failed or different, 3 the compiler cannot be installed here.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PREBUILT = Path(__file__).resolve().parent
CRATE = PREBUILT.parent
OPS = CRATE / "src" / "ops"
HEADERS = CRATE / "src" / "device" / "cuda"
REQUIREMENTS = PREBUILT / "requirements.txt"

FLAGS = ["-std=c++17", "-O3", "-fatbin", "--compress-mode=size", "-Werror", "all-warnings"]
# An image per generation, and PTX of the oldest for the driver to compile where none fits.
ANY_TARGETS = {f"sm_{arch}": f"arch=compute_{arch},code=sm_{arch}" for arch in (80, 86, 89, 90, 100, 120)}
ANY_TARGETS["compute_80"] = "arch=compute_80,code=compute_80"
# wgmma and TMA exist on this architecture alone, and code for it runs nowhere else.
HOPPER_MARK = "// sm_90a only"
HOPPER_TARGETS = {"sm_90a": "arch=compute_90a,code=sm_90a"}

# What is counted in the machine code: tensor cores and the copies that feed them, 16-byte accesses, local memory.
COUNTED = ("HMMA", "HGMMA", "LDSM", "LDGSTS", "UTMALDG", "LDG.128", "STG.128", "LDS.128", "STS.128", "LDL", "STL")
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][A-Z0-9_]*)((?:\.\w+)*)")
RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


class Unavailable(Exception):
    """The compiler cannot be installed on this machine."""


# The compiler.


def toolchain():
    """The folder with nvcc and cuobjdump; installed on the first call, and again when the requirements change."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    venv = CRATE.parent / "target" / f"cuda-toolchain-{digest}"
    done = venv / "installed"
    if not done.exists():
        install(venv)
        done.touch()
    (tools,) = venv.glob("lib/python3*/site-packages/nvidia/cu13/bin")
    return tools


def install(venv):
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise Unavailable("the pinned compiler is for x86-64 Linux")
    if shutil.which("g++") is None:
        raise Unavailable("nvcc needs g++ to preprocess; install it")
    print(f"installing the CUDA compiler into {venv}", flush=True)
    made = run([sys.executable, "-m", "venv", "--clear", venv], check=False)
    if made.returncode != 0:
        raise Unavailable(f"python3 -m venv failed:\n{made.stdout}{made.stderr}")
    pip = [venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pinned = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", REQUIREMENTS]
    got = run(pip + pinned, check=False)
    if "DO NOT MATCH THE HASHES" in got.stderr:
        sys.exit(got.stderr)
    if got.returncode != 0:
        raise Unavailable(f"pip cannot get the wheels of {REQUIREMENTS.name}:\n{got.stderr}")


def run(command, check=True, **options):
    """Runs a command and returns it with its output; prints what it said and exits where it fails."""
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if check and result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}")
    return result


# Sources and modules.


class Source:
    """A `.cu` file and the name of the module it becomes: ops/matmul/gemm.cu is matmul_gemm."""

    def __init__(self, path):
        self.path = path
        self.name = "_".join(path.relative_to(OPS).with_suffix("").parts)
        hopper = path.read_text().startswith(HOPPER_MARK)
        self.targets = HOPPER_TARGETS if hopper else ANY_TARGETS
        self.files = included(path)
        # As `sha256sum` prints the files: the source, then its headers in the order in which they are met.
        lines = (f"{sha256(file)}  {file.relative_to(CRATE).as_posix()}\n" for file in self.files)
        self.digest = hashlib.sha256("".join(lines).encode()).hexdigest()


def sources():
    found = [Source(path) for path in sorted(OPS.rglob("*.cu"))]
    names = [source.name for source in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        sys.exit(f"two sources make one module: {', '.join(sorted(twice))}")
    return sorted(found, key=lambda source: source.name)


def included(path):
    """The file and what it includes, breadth first. What stands in neither folder is the emulator's, or nvcc fails."""
    files = [path]
    for file in files:
        for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', file.read_text(), re.MULTILINE):
            near = [folder / name for folder in (file.parent, HEADERS) if (folder / name).is_file()]
            if near and near[0].resolve() not in files:
                files.append(near[0].resolve())
    return files


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def module(source, fatbin, tools):
    """What the manifest says of a module."""
    return {
        "name": source.name,
        "sources": [file.relative_to(CRATE).as_posix() for file in source.files],
        "source_sha256": source.digest,
        "targets": list(source.targets),
        "fatbin_sha256": sha256(fatbin),
        "entry_points": entry_points(fatbin, tools),
    }


def compile_source(source, folder, tools):
    fatbin = folder / f"{source.name}.fatbin"
    targets = [word for target in source.targets.values() for word in ("-gencode", target)]
    paths = ["-I", HEADERS.relative_to(CRATE), "-o", fatbin, source.path.relative_to(CRATE)]
    # nvcc adds flags from its environment; a build must not depend on them.
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR")}
    said = run([tools / "nvcc", *FLAGS, *targets, *paths], cwd=CRATE, env=clean)
    # ptxas only informs where it had to serialise wgmma, which costs most of the speed: it must have nothing to say.
    if said.stdout or said.stderr:
        sys.exit(f"{source.path.relative_to(CRATE)} compiles, but not in silence:\n{said.stdout}{said.stderr}")
    return module(source, fatbin, tools)


def entry_points(fatbin, tools):
    """Per entry point and architecture: registers, memory and the counted instructions, from the image itself.

    The shared memory is the static part; from sm_90 on the system reserves 1,024 bytes of it.
    """
    env = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    found = {}
    arch = name = None
    for line in run([tools / "cuobjdump", "--dump-resource-usage", fatbin], env=env).stdout.splitlines():
        if line.startswith("arch = "):
            arch = line[len("arch = "):]
        elif line.startswith(" Function "):
            name = line[len(" Function "):].rstrip(":")
        elif usage := RESOURCES.search(line):
            registers, stack, shared, local = map(int, usage.groups())
            found.setdefault(name, {})[arch] = {
                "registers": registers, "static_shared_bytes": shared, "stack_bytes": stack, "local_bytes": local,
                "instructions": 0, **{counted: 0 for counted in COUNTED},
            }
    for line in run([tools / "cuobjdump", "--dump-sass", fatbin], env=env).stdout.splitlines():
        if line.startswith("arch = "):
            arch = line[len("arch = "):]
        elif "Function : " in line:
            counts = found[line.split("Function : ")[1].strip()][arch]
        elif instruction := INSTRUCTION.search(line):
            mnemonic, modifiers = instruction.groups()
            counts["instructions"] += 1
            wide = f"{mnemonic}.128" if "128" in modifiers.split(".") else None
            for counted in (mnemonic, wide):
                if counted in COUNTED:
                    counts[counted] += 1
    return {name: {arch: without_zeros(counts) for arch, counts in found[name].items()} for name in sorted(found)}


def without_zeros(counts):
    return {name: count for name, count in counts.items() if count or name not in COUNTED}


# The manifest.


def manifest(modules, tools):
    version = run([tools / "nvcc", "--version"]).stdout
    compiler = re.search(r"release .*", version).group()
    return {"compiler": compiler, "flags": FLAGS, "modules": modules}


def to_text(document):
    """JSON with a line per architecture, so that a change of a kernel reads as a change of its lines."""
    text = json.dumps(document, indent=1)
    flat = lambda match: re.sub(r"\s*\n\s*", " ", match.group())
    text = re.sub(r'"sm_\w+": \{[^{}]*\}', flat, text)
    return re.sub(r"\[[^][{}]*\]", flat, text) + "\n"


def checked_in():
    path = PREBUILT / "manifest.json"
    return json.loads(path.read_text()) if path.exists() else {"modules": []}


def compile_all(stale, folder, tools):
    """Compiles side by side, two at a time."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        jobs = {source.name: pool.submit(compile_source, source, folder, tools) for source in stale}
        built = {}
        for name, job in jobs.items():
            built[name] = job.result()
            print(f"built {name}", flush=True)
        return built


def build():
    tools = toolchain()
    known = checked_in()
    empty = manifest([], tools)
    same_compiler = {**known, "modules": []} == empty
    by_name = {entry["name"]: entry for entry in known["modules"]} if same_compiler else {}

    def is_stale(source):
        entry = by_name.get(source.name, {})
        fatbin = PREBUILT / f"{source.name}.fatbin"
        fresh = entry.get("source_sha256") == source.digest and entry["targets"] == list(source.targets)
        return not (fresh and fatbin.exists() and sha256(fatbin) == entry["fatbin_sha256"])

    wanted = sources()
    built = compile_all([source for source in wanted if is_stale(source)], PREBUILT, tools)
    modules = [built.get(source.name) or by_name[source.name] for source in wanted]
    (PREBUILT / "manifest.json").write_text(to_text(manifest(modules, tools)))
    for fatbin in PREBUILT.glob("*.fatbin"):
        if fatbin.stem not in {source.name for source in wanted}:
            fatbin.unlink()
    print(f"{len(built)} of {len(wanted)} modules rebuilt")


def check():
    tools = toolchain()
    with tempfile.TemporaryDirectory() as folder:
        built = compile_all(sources(), Path(folder), tools)
        differing = [
            f"{name}.fatbin"
            for name in built
            if not (PREBUILT / f"{name}.fatbin").exists()
            or (PREBUILT / f"{name}.fatbin").read_bytes() != (Path(folder) / f"{name}.fatbin").read_bytes()
        ]
        if to_text(manifest(list(built.values()), tools)) != (PREBUILT / "manifest.json").read_text():
            differing.append("manifest.json")
    if differing:
        sys.exit(f"{len(differing)} differ from what the sources give: {', '.join(differing)}; run `just kernels`")
    print(f"{len(built)} modules and the manifest are what the sources give, byte for byte")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["build", "check"])
    what = parser.parse_args().what
    try:
        build() if what == "build" else check()
    except Unavailable as reason:
        print(reason, file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
