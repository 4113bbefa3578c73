//! The compiled kernels in the binary, one image for each `.cu` file. `kernels/prebuilt/` holds them with a manifest of
//! what they were made from.

/// Which cards an image has code for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    /// Every supported one, and PTX for those to come.
    Any,
}

/// The kernels of one source file.
#[derive(Debug)]
pub(super) struct Module {
    /// File stem.
    pub name: &'static str,
    /// What it runs on.
    pub architecture: Architecture,
    /// A fatbin.
    pub image: &'static [u8],
}

/// All modules.
pub(super) const MODULES: &[Module] = &[];
