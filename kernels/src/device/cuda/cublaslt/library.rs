//! Finding libcublasLt: where the loader looks, else where toolkits and Python packages put it.

use std::fs;
use std::path::{Path, PathBuf};

use cudarc::cublaslt::sys;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// The file, named as the bindings name it: once a library of that name is loaded, wherever from, asking for the name
/// gives it.
const FILE: &str = "libcublasLt.so.13";

/// Folders that may hold it, the likelier first; `*` stands for any part of one name. The later ones are those of
/// PyTorch's CUDA packages.
const FOLDERS: [&str; 7] = [
    "usr/local/cuda/lib64",
    "usr/local/cuda-13*/lib64",
    "usr/lib/x86_64-linux-gnu",
    "usr/local/lib/python3*/dist-packages/nvidia/cu13/lib",
    "usr/local/lib/python3*/site-packages/nvidia/cu13/lib",
    "opt/*/lib/python3*/site-packages/nvidia/cu13/lib",
    "opt/*/.venv/lib/python3*/site-packages/nvidia/cu13/lib",
];

/// Loads the library, for as long as the process lives. `false` if there is none.
pub(super) fn load() -> bool {
    is_found() || files_below(Path::new("/")).iter().any(|file| keep(file)) && is_found()
}

/// Whether the loader finds it by name.
fn is_found() -> bool {
    // SAFETY: the library's initialisers are NVIDIA's, as the driver's are.
    unsafe { sys::is_culib_present() }
}

/// Loads a file for good, its symbols for all; `false` if it is not a library for this machine.
fn keep(file: &Path) -> bool {
    // SAFETY: as above.
    let library = unsafe { Library::open(Some(file), RTLD_NOW | RTLD_GLOBAL) };
    library.map(std::mem::forget).is_ok()
}

/// The files of that name in the folders, below `root`, in a fixed order.
fn files_below(root: &Path) -> Vec<PathBuf> {
    let folders = FOLDERS.iter().flat_map(|folder| {
        folder.split('/').fold(vec![root.to_path_buf()], |found, part| {
            found.iter().flat_map(|folder| inside(folder, part)).collect()
        })
    });
    folders.map(|folder| folder.join(FILE)).filter(|file| file.is_file()).collect()
}

/// What `part` may stand for in a folder.
fn inside(folder: &Path, part: &str) -> Vec<PathBuf> {
    let Some((start, end)) = part.split_once('*') else { return vec![folder.join(part)] };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_is_searched_in_order() {
        let root = std::env::temp_dir().join(format!("reprise-cublaslt-{}", std::process::id()));
        let places = [
            "usr/local/cuda-13.0/lib64",
            "usr/local/lib/python3.12/dist-packages/nvidia/cu13/lib",
            "opt/torch/lib/python3.11/site-packages/nvidia/cu13/lib",
            "opt/torch/lib/python3.12/site-packages/nvidia/cu13/lib",
            "opt/app/.venv/lib/python3.12/site-packages/nvidia/cu13/lib",
        ];
        for place in places {
            fs::create_dir_all(root.join(place)).unwrap();
            fs::write(root.join(place).join(FILE), "").unwrap();
        }
        // Another version, and a folder without the file, are passed over.
        fs::create_dir_all(root.join("usr/local/cuda-12.8/lib64")).unwrap();
        fs::write(root.join("usr/local/cuda-12.8/lib64").join(FILE), "").unwrap();
        fs::create_dir_all(root.join("usr/lib/x86_64-linux-gnu")).unwrap();
        let found = files_below(&root);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, places.map(|place| root.join(place).join(FILE)));
    }

    #[test]
    fn a_file_that_is_no_library_is_no_library() {
        let path = std::env::temp_dir().join(format!("reprise-no-library-{}", std::process::id()));
        fs::write(&path, "not an ELF file").unwrap();
        let kept = keep(&path);
        fs::remove_file(&path).unwrap();
        assert!(!kept);
    }
}
