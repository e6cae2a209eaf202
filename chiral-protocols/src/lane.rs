//! The fast lane: who of several is preferred, and what the others keep all the same.

/// Of so many in a row one is not of the preferred, as long as there are others.
pub(crate) const FLOOR: usize = 4;

/// Puts those who are preferred first, but for every [`FLOOR`]th place, which is another's. Within
/// each of both the order stays.
pub(crate) fn order<T>(all: Vec<T>, preferred: impl FnMut(&T) -> bool) -> Vec<T> {
    let (first, others): (Vec<T>, Vec<T>) = all.into_iter().partition(preferred);
    let mut ordered = Vec::with_capacity(first.len() + others.len());
    let (mut first, mut others) = (first.into_iter(), others.into_iter());
    loop {
        let theirs = (ordered.len() + 1).is_multiple_of(FLOOR);
        let next = match theirs {
            true => others.next().or_else(|| first.next()),
            false => first.next().or_else(|| others.next()),
        };
        match next {
            Some(next) => ordered.push(next),
            None => return ordered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fourth_place_is_left_to_the_others() {
        let ordered = order((0..10).collect(), |n| *n >= 3);
        assert_eq!(ordered, [3, 4, 5, 0, 6, 7, 8, 1, 9, 2]);
        assert_eq!(order(vec![1, 2], |n| *n == 2), [2, 1]);
        assert_eq!(order((0..5).collect(), |_| true), [0, 1, 2, 3, 4]);
        assert_eq!(order((0..5).collect(), |_| false), [0, 1, 2, 3, 4]);
        assert!(order(Vec::<u8>::new(), |_| true).is_empty());
    }
}
