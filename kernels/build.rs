//! Builds what the crate has besides Rust. Under the feature `emulation`: the CUDA kernels as C++ for the CPU, with the
//! machine of `emu/` that runs them. Knows no kernel by name; every `.cu` below `src/ops` is found, and in it every
//! entry point by its `KERNEL(` line.

#![cfg_attr(
    feature = "emulation",
    expect(clippy::expect_used, reason = "a build script has nobody to hand its errors to")
)]

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "emulation")]
    emulation::build();
}

#[cfg(feature = "emulation")]
mod emulation {
    //! The C++ build of the kernels.

    use std::fmt::Write;
    use std::fs;
    use std::hash::{DefaultHasher, Hash, Hasher};
    use std::path::{Path, PathBuf};

    /// First lines of a `.cu` or `.cuh` that only has a meaning on one architecture say so with these words.
    const HOPPER_ONLY: &str = "// sm_90a only";
    const OPS: &str = "src/ops";
    const HEADERS: &str = "src/device/cuda";
    const EMULATOR: &str = "emu";

    /// An entry point: its name and the largest block it is compiled for, as the source spells it.
    struct Entry {
        name: String,
        max_threads: String,
    }

    /// A kernel file as a translation unit of its own.
    struct Unit {
        /// The path below the crate as an identifier.
        id: String,
        n_entries: usize,
        /// C++ that includes the kernel file.
        text: String,
        /// Of everything its object depends on.
        fingerprint: u64,
    }

    pub fn build() {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo names OUT_DIR"));
        for watched in [EMULATOR, OPS, HEADERS] {
            println!("cargo:rerun-if-changed={watched}");
        }
        // Set by emu/asan.sh.
        println!("cargo:rustc-check-cfg=cfg(sanitized)");
        let mut build = compiler(&root);
        let units = units(&root, &build);
        compile(&mut build, &units, &out);
        let sources = out.join("sources.cpp");
        write(&sources, &table_of(&units));
        build.file(sources).file(root.join("emu/machine.cpp")).file(root.join("emu/registry.cpp"));
        build.compile("reprise_emulation");
    }

    /// Every kernel file that runs here and has entry points.
    fn units(root: &Path, build: &cc::Build) -> Vec<Unit> {
        let headers: Vec<_> =
            files_below(&root.join(HEADERS), "cuh").into_iter().filter(|path| runs_here(path)).collect();
        let mut shared = DefaultHasher::new();
        format!("{:?}", build.get_compiler().args()).hash(&mut shared);
        for included in [files_below(&root.join(OPS), "cuh"), files_below(&root.join(EMULATOR), "h")].concat()
        {
            read(&included).hash(&mut shared);
        }
        headers.iter().for_each(|header| read(header).hash(&mut shared));

        let mut names: Vec<String> = Vec::new();
        let mut units = Vec::new();
        for source in
            [files_below(&root.join(OPS), "cu"), files_below(&root.join("emu/tests"), "cu")].concat()
        {
            let entries = if runs_here(&source) { entries_of(&source) } else { Vec::new() };
            if entries.is_empty() {
                continue;
            }
            for entry in &entries {
                assert!(!names.contains(&entry.name), "{}: a second kernel {}", source.display(), entry.name);
                names.push(entry.name.clone());
            }
            let id = source.strip_prefix(root).expect("below the crate").to_string_lossy();
            let id: String = id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            let text = text_of(&source, &id, &entries, &headers);
            let mut fingerprint = shared.clone();
            (&text, read(&source)).hash(&mut fingerprint);
            units.push(Unit { id, n_entries: entries.len(), text, fingerprint: fingerprint.finish() });
        }
        units
    }

    /// Compiles the units whose object is not there yet in this form, and adds all objects to the library.
    fn compile(build: &mut cc::Build, units: &[Unit], out: &Path) {
        let object = |unit: &Unit| out.join(format!("{}-{:016x}.o", unit.id, unit.fingerprint));
        let stale: Vec<&Unit> = units.iter().filter(|unit| !object(unit).exists()).collect();
        let mut fresh = build.clone();
        for unit in &stale {
            let path = out.join(format!("{}.cpp", unit.id));
            write(&path, &unit.text);
            fresh.file(path);
        }
        for (compiled, unit) in fresh.compile_intermediates().iter().zip(&stale) {
            fs::rename(compiled, object(unit)).unwrap_or_else(|e| panic!("{}: {e}", compiled.display()));
        }
        build.objects(units.iter().map(object));
    }

    /// The list of all units for the registry.
    fn table_of(units: &[Unit]) -> String {
        let (mut declarations, mut rows) = (String::new(), String::new());
        for Unit { id, n_entries, .. } in units {
            writeln!(declarations, "extern const Kernel {id}[];").expect("a string takes text");
            writeln!(rows, "    {{{id}, {n_entries}}},").expect("a string takes text");
        }
        format!(
            "#include \"registry.h\"\nnamespace emu {{\n{declarations}extern const Source SOURCES[] = {{\n{rows}}};\n\
             extern const size_t N_SOURCES = sizeof SOURCES / sizeof *SOURCES;\n}}  // namespace emu\n"
        )
    }

    /// C++17 as the kernels need it. Fused multiplication and vectors only where the building machine has them.
    fn compiler(root: &Path) -> cc::Build {
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").opt_level(2).warnings(true).define("REPRISE_EMULATION", None);
        build.include(root.join("emu")).include(root.join(HEADERS)).include(root.join("src"));
        // Device code reads the same bytes as integers and as vectors.
        build.flag("-fno-strict-aliasing").flag("-fno-exceptions").flag("-fno-rtti");
        build.flag(format!("-ffile-prefix-map={}/=", root.display()));
        // `#pragma unroll` is nvcc's; `threadIdx.x < n` is the idiom; a header has more than one kernel calls.
        build.flag("-Wno-unknown-pragmas").flag("-Wno-sign-compare").flag("-Wno-unused-function");
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            build.flag("-mavx2").flag("-mfma");
        }
        build
    }

    /// One kernel file as C++. The headers come first, outside of the unnamed namespace that keeps the file's names
    /// apart from those of other kernels.
    fn text_of(source: &Path, id: &str, entries: &[Entry], headers: &[PathBuf]) -> String {
        let mut unit = String::from("#include \"registry.h\"\n");
        for header in headers {
            writeln!(unit, "#include \"{}\"", header.display()).expect("a string takes text");
        }
        write!(unit, "namespace {{\n#include \"{}\"\n}}\nnamespace emu {{\n", source.display())
            .expect("a string takes text");
        writeln!(unit, "extern const Kernel {id}[] = {{").expect("a string takes text");
        for Entry { name, max_threads } in entries {
            writeln!(unit, "    {{\"{name}\", {max_threads}, Trampoline<&::{name}>::enter}},")
                .expect("a string takes text");
        }
        unit.push_str("};\n}  // namespace emu\n");
        unit
    }

    /// The `KERNEL(threads) name(` lines of a file.
    fn entries_of(source: &Path) -> Vec<Entry> {
        let text = read(source);
        let entry = |line: &str| {
            let rest = line.strip_prefix("KERNEL(")?;
            let (max_threads, rest) = rest.split_once(") ")?;
            let (name, _) = rest.split_once('(')?;
            Some(Entry { name: name.trim().to_owned(), max_threads: max_threads.trim().to_owned() })
        };
        let lines = text.lines().filter(|line| line.starts_with("KERNEL("));
        lines
            .map(|line| entry(line).unwrap_or_else(|| panic!("{}: not an entry: {line}", source.display())))
            .collect()
    }

    fn runs_here(path: &Path) -> bool {
        !read(path).lines().take(5).any(|line| line.starts_with(HOPPER_ONLY))
    }

    /// Files with this extension in a folder and all folders in it, in order of their names.
    fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                found.extend(files_below(&path, extension));
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
        found.sort();
        found
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}
