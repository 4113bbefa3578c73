//! Matmul on the device against its specification: every format, odd shapes, both tile sizes, part of a wider y; and on
//! cards, the paths that cannot be emulated.

use half::bf16;
use kernels::device::cuda::{Cuda, CudaOptions, DeviceMatrix, GemmPath, Shape, detect};
use kernels::dtype::DType;
use kernels::ops::matmul::gemm::{self, Tile};
use kernels::ops::matmul::wgmma::{self, Width};
use kernels::ops::matmul::{self, Epilogue, Form, Matrix, MatrixView, gemv};

use crate::cuda::{card, devices};
use crate::seeded::{Seeded, bits_of, nmse, random_matrix};

/// What y holds before, and keeps where it is not written.
const BEFORE: f32 = 0.75;

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    /// Whatever the device takes for the shape.
    Door,
    /// The own kernels for several tokens, in tiles of one size.
    Tiles(Tile),
    /// Hopper's kernels, in tiles of one width.
    Hopper(Width),
}

/// One multiplication: its inputs on the host, x rounded to bf16 as the device gets it.
struct Case {
    dtype: DType,
    n: usize,
    ldy: usize,
    epilogue: Epilogue,
    x: Vec<bf16>,
    bytes: Vec<u8>,
    w: Matrix,
}

impl Case {
    fn new(dtype: DType, n: usize, rows: usize, cols: usize) -> Self {
        let (bytes, w) = random_matrix(dtype, rows, cols);
        let x = Seeded::new(21).values(n * cols).into_iter().map(bf16::from_f32).collect();
        Self { dtype, n, ldy: rows, epilogue: Epilogue::Store, x, bytes, w }
    }

    fn form(&self) -> Form {
        Form { n: self.n, ldy: self.ldy, epilogue: self.epilogue }
    }

    /// y as the device leaves it: `n` rows, `ldy` apart, whose first elements are the products.
    fn on(&self, cuda: &Cuda, by: By) -> Vec<f32> {
        let w = DeviceMatrix::upload(cuda, self.dtype, self.w.rows(), self.w.cols(), &self.bytes).unwrap();
        let x = cuda.upload(&self.x).unwrap();
        let mut y = cuda.upload(&vec![BEFORE; self.n * self.ldy]).unwrap();
        let (x, to, form) = (x.view(), y.view_mut(), self.form());
        let asked = match by {
            By::Door => matmul::cuda(cuda, x, &w, to, form),
            By::Tiles(tile) => gemm::cuda(cuda, x, &w, to, form, tile),
            By::Hopper(width) => wgmma::cuda(cuda, x, &w, to, form, width),
        };
        asked.unwrap();
        y.read().unwrap()
    }

    /// The same by the specification, with weights `w`.
    fn specified(&self, w: &Matrix) -> Vec<f32> {
        let x: Vec<f32> = self.x.iter().map(|x| x.to_f32()).collect();
        let mut products = vec![f32::NAN; self.n * w.rows()];
        matmul::spec(&x, w, &mut products);
        let mut y = vec![BEFORE; self.n * self.ldy];
        for (row, products) in y.chunks_mut(self.ldy.max(1)).zip(products.chunks(w.rows().max(1))) {
            for (y, product) in row.iter_mut().zip(products) {
                *y = if self.epilogue == Epilogue::Add { *y + product } else { *product };
            }
        }
        y
    }

    /// The weights rounded to bf16, as prefill uses them.
    fn rounded(&self) -> Matrix {
        let mut row = vec![0.0; self.w.cols()];
        let mut bytes = Vec::new();
        for r in 0..self.w.rows() {
            self.w.row(r, &mut row);
            bytes.extend(row.iter().flat_map(|w| bf16::from_f32(*w).to_le_bytes()));
        }
        Matrix::from_bytes(DType::BF16, self.w.rows(), self.w.cols(), &bytes).unwrap()
    }

    /// Runs on the devices and checks the result there; emulated results must be the same bits.
    fn check(&self, by: By, devices: &[Cuda]) {
        let decode = self.n == 1 && by == By::Door;
        let what = format!(
            "{} {:?} {}x{}x{} {by:?}",
            self.dtype,
            self.epilogue,
            self.n,
            self.w.rows(),
            self.w.cols()
        );
        let exact = self.specified(&self.w);
        let rounded = self.specified(&self.rounded());
        let (want, bound) =
            if decode { (&exact, gemv::MAX_NMSE_CUDA) } else { (&rounded, gemm::MAX_NMSE_CUDA) };
        let mut emulated: Option<Vec<u32>> = None;
        for cuda in devices {
            let got = self.on(cuda, by);
            let error = nmse(want, &got);
            assert!(error <= bound, "{what} on {}: {error:e}", cuda.info().name);
            let widened = nmse(&exact, &got);
            // Of a few outputs one may be small by chance, and its error large beside it.
            let few = self.n * self.w.rows() < 64;
            assert!(
                few || widened <= gemm::MAX_NMSE_CUDA_WIDENED,
                "{what} on {}: {widened:e}",
                cuda.info().name
            );
            assert_eq!(bits_of(&self.on(cuda, by)), bits_of(&got), "{what} twice on {}", cuda.info().name);
            if cuda.is_emulated() {
                assert_eq!(*emulated.get_or_insert_with(|| bits_of(&got)), bits_of(&got), "{what}");
            }
        }
    }
}

/// A number of columns near `about` that the format has.
fn cols(dtype: DType, about: usize) -> usize {
    about.next_multiple_of(dtype.block_len())
}

#[test]
fn one_token_agrees_with_the_specification_for_every_format() {
    for dtype in DType::ALL {
        // Rows: one, odd, and more than a block's; columns: a part of a group of 1024, a group, several, which warps
        // then share.
        for (rows, about) in [(1, 32), (7, 96), (33, 520), (19, 1024), (5, 2600), (3, 4360)] {
            for epilogue in [Epilogue::Store, Epilogue::Add] {
                Case { epilogue, ..Case::new(dtype, 1, rows, cols(dtype, about)) }
                    .check(By::Door, &devices());
            }
        }
    }
}

#[test]
fn several_tokens_agree_with_the_specification_for_every_format() {
    for dtype in DType::ALL {
        for (n, rows, about) in [(2, 1, 32), (7, 33, 96), (64, 70, 200), (65, 64, 160), (130, 67, 72)] {
            for epilogue in [Epilogue::Store, Epilogue::Add] {
                // Part of a wider y, its rows an even number of elements apart: whole tiles are stored in pairs.
                let case = Case::new(dtype, n, rows, cols(dtype, about));
                Case { epilogue, ldy: rows + 2 - rows % 2, ..case }.check(By::Door, &devices());
            }
        }
    }
}

#[test]
fn rows_that_begin_anywhere_agree_too() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for (n, rows, cols) in [(1, 5, 1), (1, 9, 1171), (2, 3, 7), (3, 66, 133), (65, 5, 65)] {
            for epilogue in [Epilogue::Store, Epilogue::Add] {
                Case { epilogue, ..Case::new(dtype, n, rows, cols) }.check(By::Door, &devices());
            }
        }
    }
}

#[test]
fn large_tiles_give_the_bits_of_small_ones() {
    for dtype in DType::ALL {
        let case = Case::new(dtype, 131, 137, cols(dtype, 136));
        case.check(By::Tiles(Tile::Large), &devices());
        for cuda in devices() {
            let large = bits_of(&case.on(&cuda, By::Tiles(Tile::Large)));
            assert_eq!(
                bits_of(&case.on(&cuda, By::Tiles(Tile::Small))),
                large,
                "{dtype} on {}",
                cuda.info().name
            );
        }
    }
}

#[test]
fn a_token_has_the_same_bits_whoever_else_is_there() {
    for dtype in DType::ALL {
        let (rows, cols) = (37, cols(dtype, 264));
        let case = Case::new(dtype, 70, rows, cols);
        for cuda in devices() {
            let small = By::Tiles(Tile::Small);
            let all = bits_of(&case.on(&cuda, small));
            for first in [0, 3, 66] {
                let part = Case {
                    n: 4,
                    x: case.x[first * cols..][..4 * cols].to_vec(),
                    ..Case::new(dtype, 4, rows, cols)
                };
                assert_eq!(
                    bits_of(&part.on(&cuda, small)),
                    all[first * rows..][..4 * rows],
                    "{dtype} {first}"
                );
            }
        }
    }
}

#[test]
fn stacked_matrices_are_one_and_its_rows_are_matrices() {
    for dtype in [DType::BF16, DType::Q8_0, DType::Q6K] {
        let (n, rows, cols) = (3, 40, cols(dtype, 64));
        let whole = Case::new(dtype, n, rows, cols);
        for cuda in devices() {
            let w = DeviceMatrix::upload(&cuda, dtype, rows, cols, &whole.bytes).unwrap();
            let x = cuda.upload(&whole.x).unwrap();
            let mut y = cuda.upload(&vec![BEFORE; n * rows]).unwrap();
            for part in [0..24, 24..25, 25..40] {
                let to = y.slice_mut(part.start..n * rows);
                let form = Form { n, ldy: rows, epilogue: Epilogue::Store };
                let part = MatrixView::from(&w).slice(part);
                gemm::cuda(&cuda, x.view(), part, to, form, Tile::Small).unwrap();
            }
            let apart = bits_of(&y.read().unwrap());
            assert_eq!(
                apart,
                bits_of(&whole.on(&cuda, By::Tiles(Tile::Small))),
                "{dtype} on {}",
                cuda.info().name
            );
        }
    }
}

/// Shapes for the paths of cards: whole tiles and parts of them in each direction, y wider than the matrix.
fn check_on_card(by: By, cards: &[Cuda]) {
    for (n, rows, cols) in
        [(2, 1_usize, 8), (64, 70, 200), (129, 257, 72), (300, 516, 1096), (128, 256, 4096)]
    {
        for epilogue in [Epilogue::Store, Epilogue::Add] {
            for ldy in [rows, rows.next_multiple_of(4) + 8, rows + 3] {
                Case { epilogue, ldy, ..Case::new(DType::BF16, n, rows, cols) }.check(by, cards);
            }
        }
    }
}

#[test]
fn hoppers_kernels_agree_with_the_specification() {
    let options = CudaOptions { cublaslt: false, hopper_kernels: true };
    let cards = card(options, Cuda::hopper_kernels, "Hopper card");
    if cards.is_empty() {
        return;
    }
    for by in [By::Hopper(Width::Narrow), By::Hopper(Width::Wide), By::Door] {
        check_on_card(by, &cards);
    }
    let case = Case::new(DType::BF16, 300, 516, 1096);
    for cuda in &cards {
        let narrow = bits_of(&case.on(cuda, By::Hopper(Width::Narrow)));
        assert_eq!(bits_of(&case.on(cuda, By::Hopper(Width::Wide))), narrow, "the width shows");
    }
}

#[test]
fn cublaslt_agrees_with_the_specification_where_it_is_found() {
    let options = CudaOptions { cublaslt: true, hopper_kernels: false };
    let found = |cuda: &Cuda| matches!(cuda.gemm_path(), GemmPath::CublasLt { .. });
    let cards = card(options, found, "cuBLASLt with a card");
    if cards.is_empty() {
        return;
    }
    check_on_card(By::Door, &cards);
    for cuda in &cards {
        let shape = Shape { n: 128, rows: 256, cols: 4096, ldy: 256, adds: false };
        let chosen = cuda.cublaslt_algorithm(shape).unwrap().expect("an algorithm for an ordinary shape");
        eprintln!("{:?}: {chosen}", cuda.gemm_path());
    }
}

#[test]
fn the_emulator_and_a_device_that_asks_for_nothing_else_use_the_own_kernels() {
    let options = CudaOptions { cublaslt: false, hopper_kernels: false };
    let shape = Shape { n: 2, rows: 8, cols: 8, ldy: 8, adds: false };
    let opened = detect().is_ok().then(|| Cuda::open(0, options).expect("the card opens"));
    for cuda in devices().into_iter().filter(Cuda::is_emulated).chain(opened) {
        assert_eq!(cuda.gemm_path(), GemmPath::Own);
        assert!(cuda.cublaslt_algorithm(shape).unwrap().is_none());
    }
}

#[test]
fn nothing_is_nothing_and_an_empty_sum_is_zero() {
    for (n, rows, cols) in [(0, 3, 32), (1, 0, 32), (4, 0, 32), (1, 3, 0), (4, 3, 0)] {
        let case = Case::new(DType::BF16, n, rows, cols);
        for cuda in devices() {
            assert_eq!(case.on(&cuda, By::Door), vec![0.0; n * rows], "{n}x{rows}x{cols}");
        }
    }
}

#[test]
fn infinities_and_nan_reach_the_output_and_stay_in_their_row() {
    for dtype in DType::ALL {
        let cols = cols(dtype, 40);
        let mut case = Case::new(dtype, 3, 5, cols);
        case.x[cols + 1] = bf16::NAN;
        for cuda in devices() {
            let y = case.on(&cuda, By::Door);
            assert!(y[5..10].iter().all(|v| v.is_nan()), "{dtype}");
            assert!(y[..5].iter().chain(&y[10..]).all(|v| v.is_finite()), "{dtype}");
        }
    }
}

#[test]
#[should_panic(expected = "x: 7 elements for 2 tokens of 4 columns")]
fn activations_of_another_shape_panic() {
    let (bytes, _) = random_matrix(DType::F32, 3, 4);
    let cuda = devices().remove(0);
    let w = DeviceMatrix::upload(&cuda, DType::F32, 3, 4, &bytes).unwrap();
    let (x, mut y) = (cuda.zeroed::<bf16>(7).unwrap(), cuda.zeroed::<f32>(6).unwrap());
    let form = Form { n: 2, ldy: 3, epilogue: Epilogue::Store };
    let _ = matmul::cuda(&cuda, x.view(), &w, y.view_mut(), form);
}
