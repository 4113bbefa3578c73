//! Which cards there are, and why there is none: every way it can be missing is a sentence, never a panic. The
//! bindings load symbols lazily and panic at the first that a driver lacks, so the library is looked for, and its
//! version asked, before anything else.

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{result, sys};

use crate::error::KernelError;

/// The CUDA version the kernels were compiled with, as the driver counts: `1000 * major + 10 * minor`.
const DRIVER_VERSION_MIN: i32 = 13_000;

/// The first architecture with bf16 tensor cores and asynchronous copies.
const COMPUTE_CAPABILITY_MIN: (u32, u32) = (8, 0);

/// Why no card can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Absence {
    /// There is no driver library.
    #[error(
        "this machine has no NVIDIA driver (libcuda.so.1 was not found); install driver 580 or newer, or use the CPU \
         with --device cpu"
    )]
    NoDriver,
    /// There is a driver and no card.
    #[error("the NVIDIA driver found no card; check nvidia-smi, or use the CPU with --device cpu")]
    NoDevice,
    /// The driver is too old.
    #[error(
        "the NVIDIA driver supports CUDA {}.{}, and the kernels need 13.0; install driver 580 or newer, or use the \
         CPU with --device cpu", .found / 1000, .found % 1000 / 10
    )]
    OldDriver {
        /// What the driver supports, `1000 * major + 10 * minor`.
        found: i32,
    },
    /// There are fewer cards.
    #[error("there is no card {ordinal}: the driver found {count}, counted from 0")]
    NoSuchDevice {
        /// The card asked for.
        ordinal: u32,
        /// Cards found.
        count: u32,
    },
    /// The card is too old.
    #[error(
        "{name} has compute capability {}.{}, and the kernels need 8.0 (Ampere) or newer; use the CPU with --device \
         cpu", .found.0, .found.1
    )]
    OldDevice {
        /// The card.
        name: String,
        /// Its compute capability.
        found: (u32, u32),
    },
    /// The driver answered a question with an error.
    #[error(
        "the NVIDIA driver failed: {call}: {message}; check nvidia-smi, or use the CPU with --device cpu"
    )]
    Driver {
        /// What was asked.
        call: &'static str,
        /// The driver's answer.
        message: String,
    },
}

/// A card, as the driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number, from 0.
    pub ordinal: u32,
    /// Product name.
    pub name: String,
    /// `GPU-` and the id in hexadecimal groups, as `nvidia-smi -L` prints it.
    pub uuid: String,
    /// Major and minor compute capability.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub n_sms: u32,
    /// Second-level cache.
    pub l2_bytes: u64,
    /// Memory.
    pub memory_bytes: u64,
    /// CUDA version the driver supports, `1000 * major + 10 * minor`; 0 for the emulator.
    pub driver_version: i32,
}

fn driver<T>(call: &'static str, answer: Result<T, result::DriverError>) -> Result<T, Absence> {
    answer.map_err(|error| Absence::Driver { call, message: format!("{:?}", error.0) })
}

/// All cards, in the driver's order.
///
/// # Errors
/// Why there is none.
pub fn detect() -> Result<Vec<DeviceInfo>, Absence> {
    // SAFETY: opens the driver library to see whether it is there; loading it runs its initialisers, as any use of
    // the card would.
    if !unsafe { sys::is_culib_present() } {
        return Err(Absence::NoDriver);
    }
    match result::init() {
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => return Err(Absence::NoDevice),
        answer => driver("cuInit", answer)?,
    }
    let mut version = 0;
    // SAFETY: writes one integer.
    driver("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&mut version) }.result())?;
    if version < DRIVER_VERSION_MIN {
        return Err(Absence::OldDriver { found: version });
    }
    let count = driver("cuDeviceGetCount", result::device::get_count())?;
    if count == 0 {
        return Err(Absence::NoDevice);
    }
    (0..count.unsigned_abs()).map(|ordinal| describe(ordinal, version)).collect()
}

/// One card that the kernels run on.
pub(super) fn device(ordinal: u32) -> Result<DeviceInfo, KernelError> {
    let devices = detect().map_err(KernelError::NoCuda)?;
    let count = devices.len() as u32;
    let info = devices.into_iter().nth(ordinal as usize);
    let info = info.ok_or(KernelError::NoCuda(Absence::NoSuchDevice { ordinal, count }))?;
    if info.compute_capability < COMPUTE_CAPABILITY_MIN {
        let found = info.compute_capability;
        return Err(KernelError::NoCuda(Absence::OldDevice { name: info.name, found }));
    }
    Ok(info)
}

fn describe(ordinal: u32, driver_version: i32) -> Result<DeviceInfo, Absence> {
    let device = driver("cuDeviceGet", result::device::get(ordinal as i32))?;
    let attribute = |attribute| {
        // SAFETY: the device comes from cuDeviceGet.
        let value = unsafe { result::device::get_attribute(device, attribute) };
        driver("cuDeviceGetAttribute", value).map(i32::unsigned_abs)
    };
    // SAFETY: the device comes from cuDeviceGet.
    let memory_bytes = driver("cuDeviceTotalMem", unsafe { result::device::total_mem(device) })? as u64;
    let uuid = driver("cuDeviceGetUuid", result::device::get_uuid(device))?;
    Ok(DeviceInfo {
        ordinal,
        name: driver("cuDeviceGetName", result::device::get_name(device))?,
        uuid: uuid_text(&uuid.bytes.map(|byte| byte as u8)),
        compute_capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        n_sms: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        l2_bytes: u64::from(attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?),
        memory_bytes,
        driver_version,
    })
}

/// `GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
fn uuid_text(bytes: &[u8; 16]) -> String {
    let hex = |range: std::ops::Range<usize>| {
        bytes[range].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    format!("GPU-{}-{}-{}-{}-{}", hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detection_answers_on_any_machine() {
        match detect() {
            Ok(devices) => assert!(!devices.is_empty()),
            Err(absence) => assert!(absence.to_string().contains("--device cpu"), "{absence}"),
        }
    }

    #[test]
    fn a_card_that_is_not_there_is_a_sentence() {
        let Err(KernelError::NoCuda(absence)) = device(999) else { panic!("there is no card 999") };
        assert!(!absence.to_string().is_empty());
    }

    #[test]
    fn versions_and_ids_read_as_people_write_them() {
        assert!(Absence::OldDriver { found: 12_040 }.to_string().contains("CUDA 12.4,"));
        let id = std::array::from_fn(|i| i as u8 + 0xa0);
        assert_eq!(uuid_text(&id), "GPU-a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf");
    }
}
