//! Choosing from logits. The logits themselves are a matmul of the last rows by the output matrix; what is particular
//! to them is the choice. It knows nothing of tokens beyond their index.

/// The index of the greatest logit, the lowest index if several are equal. NaN is never chosen unless there is
/// nothing else, in which case the first is. `None` for no logits.
pub fn argmax(logits: &[f32]) -> Option<usize> {
    let better = |best: f32, x: f32| x > best || (best.is_nan() && !x.is_nan());
    logits
        .iter()
        .enumerate()
        .fold(None, |best, (i, x)| match best {
            Some((_, greatest)) if !better(greatest, *x) => best,
            _ => Some((i, *x)),
        })
        .map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ties_go_to_the_lowest_index() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), Some(1));
        assert_eq!(argmax(&[0.0, -0.0]), Some(0));
        assert_eq!(argmax(&[-0.0, 0.0]), Some(0));
    }

    #[test]
    fn nan_is_chosen_only_when_there_is_nothing_else() {
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY, f32::NAN]), Some(1));
        assert_eq!(argmax(&[5.0, f32::NAN, 6.0]), Some(2));
        assert_eq!(argmax(&[f32::NAN, f32::NAN]), Some(0));
        assert_eq!(argmax(&[]), None);
    }

    proptest! {
        #[test]
        fn the_choice_is_the_first_that_nothing_exceeds(logits: Vec<f32>) {
            let numbers = || logits.iter().filter(|x| !x.is_nan());
            match argmax(&logits) {
                None => prop_assert!(logits.is_empty()),
                Some(i) if logits[i].is_nan() => prop_assert!(i == 0 && numbers().count() == 0),
                Some(i) => {
                    prop_assert!(numbers().all(|x| *x <= logits[i]));
                    prop_assert!(logits[..i].iter().all(|x| *x != logits[i]));
                }
            }
        }
    }
}
