//! The compiled kernels in the binary, one image for each `.cu` file.
//!
//! How a kernel gets from its source to a launch: `just kernels` compiles `src/ops/<op>.cu` into `prebuilt/<op>.fatbin`,
//! machine code for each architecture and PTX, and notes in `prebuilt/manifest.json` what it was made from and what the
//! compiler made of it. [`MODULES`] puts that image into the binary. When a device is opened, [`card`](super::card) hands
//! the driver every image that has code for it; a launch names an entry point, which is looked up in those once.
//! `tests/it/prebuilt.rs` fails when an image is older than its source or the compiler broke the kernel's budget.
//!
//! This file knows no kernel's parameters: those stand in the launcher beside each source.

/// Which cards an image has code for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    /// Every supported one, and PTX for those to come.
    Any,
    /// Hopper alone: wgmma and TMA.
    Sm90a,
}

/// The kernels of one source file.
#[derive(Debug)]
pub(super) struct Module {
    /// Path of the source below `src/ops`, its folders joined by `_`.
    pub name: &'static str,
    /// What it runs on.
    pub architecture: Architecture,
    /// A fatbin.
    pub image: &'static [u8],
}

/// All modules.
pub(super) const MODULES: &[Module] = &[
    any("argmax", include_bytes!("../../../prebuilt/argmax.fatbin")),
    any("attention_any_dim", include_bytes!("../../../prebuilt/attention_any_dim.fatbin")),
    any("attention_decode", include_bytes!("../../../prebuilt/attention_decode.fatbin")),
    any("attention_prefill", include_bytes!("../../../prebuilt/attention_prefill.fatbin")),
    sm_90a("attention_prefill_wgmma", include_bytes!("../../../prebuilt/attention_prefill_wgmma.fatbin")),
    any("block_score", include_bytes!("../../../prebuilt/block_score.fatbin")),
    any("block_select", include_bytes!("../../../prebuilt/block_select.fatbin")),
    any("embedding", include_bytes!("../../../prebuilt/embedding.fatbin")),
    any("kv_store", include_bytes!("../../../prebuilt/kv_store.fatbin")),
    any("matmul_gemm", include_bytes!("../../../prebuilt/matmul_gemm.fatbin")),
    any("matmul_gemv", include_bytes!("../../../prebuilt/matmul_gemv.fatbin")),
    sm_90a("matmul_wgmma", include_bytes!("../../../prebuilt/matmul_wgmma.fatbin")),
    any("qk_norm_rope", include_bytes!("../../../prebuilt/qk_norm_rope.fatbin")),
    any("rms_norm", include_bytes!("../../../prebuilt/rms_norm.fatbin")),
    any("sparse_attention", include_bytes!("../../../prebuilt/sparse_attention.fatbin")),
    any("swiglu", include_bytes!("../../../prebuilt/swiglu.fatbin")),
    any("synthetic", include_bytes!("../../../prebuilt/synthetic.fatbin")),
    any("tail_score_ranges", include_bytes!("../../../prebuilt/tail_score_ranges.fatbin")),
];

/// A module for every card.
const fn any(name: &'static str, image: &'static [u8]) -> Module {
    Module { name, architecture: Architecture::Any, image }
}

/// A module for Hopper.
const fn sm_90a(name: &'static str, image: &'static [u8]) -> Module {
    Module { name, architecture: Architecture::Sm90a, image }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prebuilt_image_is_in_the_binary() {
        let manifest: serde_json::Value =
            serde_json::from_str(include_str!("../../../prebuilt/manifest.json")).unwrap();
        let architecture = |module: &serde_json::Value| match module["targets"][0].as_str().unwrap() {
            "sm_80" => Architecture::Any,
            "sm_90a" => Architecture::Sm90a,
            other => panic!("images for {other} alone have no place in `Architecture`"),
        };
        let built: Vec<_> = manifest["modules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|module| (module["name"].as_str().unwrap(), architecture(module)))
            .collect();
        let mut listed: Vec<_> = MODULES.iter().map(|module| (module.name, module.architecture)).collect();
        listed.sort_by_key(|(name, _)| *name);
        assert_eq!(listed, built, "MODULES on the left, the manifest on the right");
        for module in MODULES {
            let path = format!("{}/prebuilt/{}.fatbin", env!("CARGO_MANIFEST_DIR"), module.name);
            assert_eq!(module.image, std::fs::read(path).unwrap(), "{}", module.name);
        }
    }
}
