//! Least squares with coefficients of 0 or more, and a say on which of them the data determines at all.
//!
//! QR by Gram-Schmidt, each column twice so that rounding does not pile up, then the active-set method of Lawson and Hanson
//! (Solving Least Squares Problems, 1974, chapter 23) on the triangular factor. Knows numbers and nothing of what they mean.

/// A unit column that keeps less than this beside the columns before it is a combination of them.
const INDEPENDENT_MIN: f64 = 1e-7;
/// Share of a combination below which a column has no part in it.
const PART_MIN: f64 = 1e-5;

/// What the data says of one coefficient; `N` names the coefficients, by position unless they are renamed.
#[derive(Clone, Debug, PartialEq)]
pub enum Estimate<N = usize> {
    /// The data determines it.
    Found {
        /// The coefficient, 0 where it would have to be negative to fit better.
        value: f64,
        /// Its standard error, rows taken as independent; `None` at the bound 0 and without rows to spare.
        standard_error: Option<f64>,
    },
    /// Its column is all zeros: the data says nothing of it.
    Absent,
    /// Only a sum with these other coefficients is determined: their columns combine into its own.
    Tied(Vec<N>),
}

impl<N> Estimate<N> {
    /// The coefficient, where the data determines it.
    pub const fn value(&self) -> Option<f64> {
        match self {
            Self::Found { value, .. } => Some(*value),
            Self::Absent | Self::Tied(_) => None,
        }
    }

    /// The coefficient, where it is at least twice its standard error: told from 0.
    pub fn told_from_zero(&self) -> Option<f64> {
        match self {
            Self::Found { value, standard_error } => {
                Some(*value).filter(|&value| value > 0.0 && value >= 2.0 * standard_error.unwrap_or(0.0))
            }
            Self::Absent | Self::Tied(_) => None,
        }
    }
}

impl Estimate {
    /// The same with names for positions.
    pub fn named<N: Clone>(&self, names: &[N]) -> Estimate<N> {
        match self {
            Self::Found { value, standard_error } => {
                Estimate::Found { value: *value, standard_error: *standard_error }
            }
            Self::Absent => Estimate::Absent,
            Self::Tied(with) => {
                Estimate::Tied(with.iter().map(|&position| names[position].clone()).collect())
            }
        }
    }
}

/// A fit.
#[derive(Clone, Debug, PartialEq)]
pub struct LeastSquares {
    /// One estimate per column.
    pub estimates: Vec<Estimate>,
    /// Coefficients to predict with: tied ones hold one of the ways to split their sum.
    pub solution: Vec<f64>,
}

/// Fits `target` as a sum of `columns`, each times a coefficient of 0 or more. `None` without rows, with a column of another
/// length, and where a number is not finite.
pub fn least_squares(columns: &[Vec<f64>], target: &[f64]) -> Option<LeastSquares> {
    let is_sound = |values: &[f64]| values.len() == target.len() && values.iter().all(|v| v.is_finite());
    if target.is_empty() || !is_sound(target) || !columns.iter().all(|column| is_sound(column)) {
        return None;
    }
    let norms: Vec<f64> = columns.iter().map(|column| norm(column)).collect();
    let unit = |(column, &size): (&Vec<f64>, &f64)| -> Vec<f64> {
        column.iter().map(|value| if size > 0.0 { value / size } else { 0.0 }).collect()
    };
    let basis = Basis::new(columns.iter().zip(&norms).map(unit).collect());
    let projected: Vec<f64> = basis.q.iter().map(|q| dot(q, target)).collect();
    let (scaled, free) = nonnegative(&basis.r, &projected);

    let mut solution = vec![0.0; columns.len()];
    for (&column, value) in basis.kept.iter().zip(&scaled) {
        solution[column] = value / norms[column];
    }
    let fitted = |row: usize| columns.iter().zip(&solution).map(|(column, c)| column[row] * c).sum::<f64>();
    let squares: f64 = target.iter().enumerate().map(|(row, y)| (y - fitted(row)).powi(2)).sum();
    let errors = standard_errors(&basis.r, &free, squares, target.len());

    let mut estimates = vec![Estimate::Absent; columns.len()];
    for (position, &column) in basis.kept.iter().enumerate() {
        let standard_error = errors[position].map(|error| error / norms[column]);
        estimates[column] = Estimate::Found { value: solution[column], standard_error };
    }
    for tied in &basis.tied {
        for &column in tied {
            let others = tied.iter().copied().filter(|&other| other != column);
            match &mut estimates[column] {
                Estimate::Tied(known) => known.extend(others),
                estimate => *estimate = Estimate::Tied(others.collect()),
            }
        }
    }
    let is_finite = solution.iter().all(|value| value.is_finite()) && squares.is_finite();
    is_finite.then_some(LeastSquares { estimates, solution })
}

/// Columns as `q` times `r`, the dependent ones set aside.
#[derive(Default)]
struct Basis {
    /// Orthonormal columns.
    q: Vec<Vec<f64>>,
    /// Kept column k as a combination of `q[..=k]`.
    r: Vec<Vec<f64>>,
    /// Positions of the kept columns.
    kept: Vec<usize>,
    /// Each dependent column with the kept ones it is a combination of.
    tied: Vec<Vec<usize>>,
}

impl Basis {
    /// Takes unit columns, or zeros, in order: of dependent ones the first are kept.
    fn new(columns: Vec<Vec<f64>>) -> Self {
        let mut basis = Self::default();
        for (position, mut rest) in columns.into_iter().enumerate() {
            if norm(&rest) < 0.5 {
                continue;
            }
            let mut parts = vec![0.0; basis.q.len()];
            for _ in 0..2 {
                for (q, part) in basis.q.iter().zip(&mut parts) {
                    let along = dot(q, &rest);
                    *part += along;
                    rest.iter_mut().zip(q).for_each(|(value, q)| *value -= along * q);
                }
            }
            let size = norm(&rest);
            if size < INDEPENDENT_MIN {
                let combination = back_substitute(&basis.r, &parts);
                let used = basis.kept.iter().zip(combination).filter(|(_, part)| part.abs() > PART_MIN);
                let mut tied: Vec<usize> = used.map(|(&column, _)| column).collect();
                tied.push(position);
                basis.tied.push(tied);
                continue;
            }
            rest.iter_mut().for_each(|value| *value /= size);
            parts.push(size);
            basis.q.push(rest);
            basis.r.push(parts);
            basis.kept.push(position);
        }
        basis
    }
}

/// Solves the triangular system whose column k is `r[k]`.
fn back_substitute(r: &[Vec<f64>], right: &[f64]) -> Vec<f64> {
    let mut rest = right.to_vec();
    for k in (0..r.len()).rev() {
        rest[k] /= r[k][k];
        let value = rest[k];
        for (above, part) in rest[..k].iter_mut().zip(&r[k]) {
            *above -= value * part;
        }
    }
    rest
}

/// The best coefficients of 0 or more for `r x = right`, and which of them are free (not held at 0).
fn nonnegative(r: &[Vec<f64>], right: &[f64]) -> (Vec<f64>, Vec<bool>) {
    let n = r.len();
    let unbounded = back_substitute(r, right);
    if unbounded.iter().all(|&value| value >= 0.0) {
        return (unbounded, vec![true; n]);
    }
    let tolerance = 1e-12 * norm(right);
    let (mut x, mut free) = (vec![0.0; n], vec![false; n]);
    // Each round frees one coefficient; the method ends well before this many rounds.
    for _ in 0..10 * n {
        let gains = gradient(r, right, &x);
        let candidates = (0..n).filter(|&k| !free[k] && gains[k] > tolerance);
        let Some(best) = candidates.max_by(|&a, &b| gains[a].total_cmp(&gains[b])) else { break };
        free[best] = true;
        loop {
            let trial = solve_free(r, right, &free);
            let step = |k: usize| x[k] / (x[k] - trial[k]);
            let blocking = (0..n).filter(|&k| free[k] && trial[k] <= 0.0);
            let Some(first) = blocking.min_by(|&a, &b| step(a).total_cmp(&step(b))) else {
                x = trial;
                break;
            };
            let share = step(first).clamp(0.0, 1.0);
            x.iter_mut().zip(&trial).for_each(|(value, trial)| *value += share * (trial - *value));
            (x[first], free[first]) = (0.0, false);
        }
    }
    (x, free)
}

/// How much faster the fit improves per unit of each coefficient: `rᵀ (right - r x)`.
fn gradient(r: &[Vec<f64>], right: &[f64], x: &[f64]) -> Vec<f64> {
    let mut rest = right.to_vec();
    for (column, value) in r.iter().zip(x) {
        rest.iter_mut().zip(column).for_each(|(rest, part)| *rest -= value * part);
    }
    r.iter().map(|column| dot(column, &rest)).collect()
}

/// Least squares over the free columns alone; the others are 0.
fn solve_free(r: &[Vec<f64>], right: &[f64], free: &[bool]) -> Vec<f64> {
    let (positions, basis) = free_basis(r, free);
    let projected: Vec<f64> = basis.q.iter().map(|q| dot(q, right)).collect();
    let mut x = vec![0.0; r.len()];
    for (&kept, value) in basis.kept.iter().zip(back_substitute(&basis.r, &projected)) {
        x[positions[kept]] = value;
    }
    x
}

/// Positions of the free columns, and their factor. Columns of `r` are of length 1, as the ones it was made from.
fn free_basis(r: &[Vec<f64>], free: &[bool]) -> (Vec<usize>, Basis) {
    let positions: Vec<usize> = (0..r.len()).filter(|&k| free[k]).collect();
    let padded = |&k: &usize| {
        let mut column = r[k].clone();
        column.resize(r.len(), 0.0);
        column
    };
    let basis = Basis::new(positions.iter().map(padded).collect());
    (positions, basis)
}

/// Standard errors of the free coefficients: residual variance times the diagonal of the inverse of `rᵀ r`.
fn standard_errors(r: &[Vec<f64>], free: &[bool], squares: f64, n_rows: usize) -> Vec<Option<f64>> {
    let (positions, basis) = free_basis(r, free);
    let mut errors = vec![None; r.len()];
    let Some(spare) = n_rows.checked_sub(basis.kept.len()).filter(|&spare| spare > 0) else { return errors };
    let n = basis.kept.len();
    let mut diagonal = vec![0.0; n];
    for unit in 0..n {
        let mut right = vec![0.0; n];
        right[unit] = 1.0;
        let inverse = back_substitute(&basis.r, &right);
        diagonal.iter_mut().zip(inverse).for_each(|(sum, value)| *sum += value * value);
    }
    for (&kept, sum) in basis.kept.iter().zip(diagonal) {
        errors[positions[kept]] = Some((squares / spare as f64 * sum).sqrt());
    }
    errors
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Length, without overflow of the squares.
fn norm(values: &[f64]) -> f64 {
    let largest = values.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    if largest == 0.0 {
        0.0
    } else {
        largest * values.iter().map(|v| (v / largest).powi(2)).sum::<f64>().sqrt()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(fit: &LeastSquares) -> Vec<Option<f64>> {
        fit.estimates.iter().map(|estimate| estimate.value()).collect()
    }

    fn near(got: Option<f64>, expected: f64) -> bool {
        got.is_some_and(|value| (value - expected).abs() <= 1e-9 * expected.abs().max(1.0))
    }

    #[test]
    fn a_line_through_points_has_its_textbook_coefficients_and_errors() {
        // x = 1..5, y = 2, 4, 5, 4, 5: slope 0.6, intercept 2.2, residual squares 2.4, errors sqrt(0.08), sqrt(0.88).
        let ones = vec![1.0; 5];
        let fit = least_squares(&[ones, vec![1.0, 2.0, 3.0, 4.0, 5.0]], &[2.0, 4.0, 5.0, 4.0, 5.0]).unwrap();
        let error = |estimate: &Estimate| match estimate {
            Estimate::Found { standard_error, .. } => *standard_error,
            other => panic!("{other:?}"),
        };
        assert!(near(fit.estimates[0].value(), 2.2) && near(fit.estimates[1].value(), 0.6), "{fit:?}");
        assert!(
            near(error(&fit.estimates[0]), 0.88_f64.sqrt())
                && near(error(&fit.estimates[1]), 0.08_f64.sqrt())
        );
    }

    #[test]
    fn a_coefficient_that_would_be_negative_is_zero_and_the_others_are_fitted_again() {
        // Without the bound: 10 - 2 x. With it, the mean.
        let fit = least_squares(&[vec![1.0; 3], vec![1.0, 2.0, 3.0]], &[8.0, 6.0, 4.0]).unwrap();
        assert!(near(fit.estimates[0].value(), 6.0));
        assert_eq!(fit.estimates[1], Estimate::Found { value: 0.0, standard_error: None });
    }

    #[test]
    fn dependent_columns_are_tied_and_still_predict() {
        let (x, ones) = (vec![1.0, 2.0, 3.0, 5.0], vec![1.0; 4]);
        let both: Vec<f64> = x.iter().map(|x| 2.0 * x + 3.0).collect();
        let target: Vec<f64> = x.iter().map(|x| 4.0 * x + 1.0).collect();
        let fit = least_squares(&[x, ones, both, vec![0.0; 4]], &target).unwrap();
        assert_eq!(
            fit.estimates,
            [
                Estimate::Tied(vec![1, 2]),
                Estimate::Tied(vec![0, 2]),
                Estimate::Tied(vec![0, 1]),
                Estimate::Absent
            ]
        );
        assert!((fit.solution[0] - 4.0).abs() < 1e-9 && (fit.solution[1] - 1.0).abs() < 1e-9);
        assert_eq!(fit.solution[2..], [0.0, 0.0]);
    }

    #[test]
    fn fewer_rows_than_columns_tie_what_one_row_cannot_tell() {
        let fit = least_squares(&[vec![10.0], vec![1.0]], &[50.0]).unwrap();
        assert_eq!(fit.estimates, [Estimate::Tied(vec![1]), Estimate::Tied(vec![0])]);
        assert!((fit.solution[0] - 5.0).abs() < 1e-12);
    }

    #[test]
    fn nothing_is_fitted_without_rows_or_with_numbers_that_are_none() {
        assert_eq!(least_squares(&[Vec::new()], &[]), None);
        assert_eq!(least_squares(&[vec![1.0, f64::NAN]], &[1.0, 2.0]), None);
        assert_eq!(least_squares(&[vec![1.0]], &[1.0, 2.0]), None);
        assert_eq!(values(&least_squares(&[vec![0.0; 2]], &[1.0, 2.0]).unwrap()), [None]);
    }

    proptest! {
        #[test]
        fn coefficients_of_independent_columns_are_recovered(
            rows in proptest::collection::vec(proptest::array::uniform4(0.0_f64..100.0), 8..40),
            truth in proptest::array::uniform4(0.0_f64..10.0),
        ) {
            let columns: Vec<Vec<f64>> = (0..4).map(|k| rows.iter().map(|row| row[k]).collect()).collect();
            let target: Vec<f64> = rows.iter().map(|row| dot(row, &truth)).collect();
            let fit = least_squares(&columns, &target).unwrap();
            for (estimate, truth) in fit.estimates.iter().zip(truth) {
                prop_assert!((estimate.value().unwrap() - truth).abs() < 1e-6, "{estimate:?} for {truth}");
            }
        }

        /// At the best point no coefficient gains: a free one has no slope, one at 0 would have to be negative.
        #[test]
        fn the_bounded_fit_is_the_best_one(
            rows in proptest::collection::vec(proptest::array::uniform5(-10.0_f64..10.0), 8..40),
        ) {
            let columns: Vec<Vec<f64>> = (0..4).map(|k| rows.iter().map(|row| row[k]).collect()).collect();
            let target: Vec<f64> = rows.iter().map(|row| row[4]).collect();
            let fit = least_squares(&columns, &target).unwrap();
            let rest: Vec<f64> = rows.iter().map(|row| row[4] - dot(&row[..4], &fit.solution)).collect();
            for (column, value) in columns.iter().zip(&fit.solution) {
                let slope = dot(column, &rest) / norm(column) / norm(&target);
                prop_assert!(*value >= 0.0 && slope < 1e-8, "{fit:?}, slope {slope}");
                prop_assert!(*value == 0.0 || slope.abs() < 1e-8, "{fit:?}, slope {slope}");
            }
        }
    }
}
