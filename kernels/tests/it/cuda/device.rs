//! Memory, recordings and accounting of a device.

use kernels::KernelError;
use kernels::device::cuda::DeviceMatrix;
use kernels::dtype::DType;

use crate::cuda::devices;

#[test]
fn what_is_written_is_read_back() {
    for cuda in devices() {
        let mut buffer = cuda.upload(&[1.0f32, 2.0, 3.0]).unwrap();
        assert_eq!(buffer.read().unwrap(), [1.0, 2.0, 3.0]);
        buffer.write(&[7.0]).unwrap();
        buffer.write_at(2, &[9.0]).unwrap();
        let mut first = [0.0; 2];
        buffer.read_into(&mut first).unwrap();
        assert_eq!(first, [7.0, 2.0]);
        assert_eq!(buffer.read().unwrap(), [7.0, 2.0, 9.0]);
        let mut copy = cuda.alloc(3).unwrap();
        copy.copy_from(&buffer).unwrap();
        buffer.zero().unwrap();
        assert_eq!((copy.read().unwrap(), buffer.read().unwrap()), (vec![7.0, 2.0, 9.0], vec![0.0; 3]));
        assert_eq!(cuda.zeroed::<u32>(5).unwrap().read().unwrap(), [0; 5]);
        assert!(cuda.alloc::<u8>(0).unwrap().read().unwrap().is_empty());
    }
}

#[test]
fn memory_is_counted_while_it_is_held() {
    for cuda in devices() {
        let kept = cuda.alloc::<f32>(256).unwrap();
        drop(cuda.alloc::<u8>(4096).unwrap());
        assert_eq!(cuda.bytes_in_use(), 1024);
        assert_eq!(cuda.take_bytes_peak(), 1024 + 4096);
        assert_eq!(cuda.take_bytes_peak(), 1024);
        drop(kept);
        assert_eq!(cuda.bytes_in_use(), 0);
    }
}

#[test]
fn more_memory_than_there_can_be_is_an_error() {
    for cuda in devices() {
        let error = cuda.alloc::<f32>(usize::MAX).unwrap_err();
        assert!(matches!(error, KernelError::DeviceMemory { .. }), "{error}");
    }
}

#[test]
fn a_recording_refuses_what_it_cannot_hold_and_ends_all_the_same() {
    for cuda in devices() {
        let buffer = cuda.upload(&[1u32]).unwrap();
        let refused = cuda.capture(|| buffer.read().map(drop));
        assert!(matches!(refused, Err(KernelError::Cuda { .. })));
        let empty = cuda.capture(|| Ok(())).unwrap();
        empty.run().unwrap();
        assert_eq!(buffer.read().unwrap(), [1]);
    }
}

#[test]
fn a_matrix_whose_bytes_do_not_fit_its_shape_is_refused() {
    for cuda in devices() {
        let error = DeviceMatrix::upload(&cuda, DType::F32, 2, 3, &[0; 23]).unwrap_err();
        assert!(matches!(error, KernelError::Bytes { expected: 24, got: 23, .. }), "{error}");
        assert!(DeviceMatrix::upload(&cuda, DType::Q8_0, 1, 33, &[]).is_err());
    }
}
