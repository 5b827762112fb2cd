//! Batches of equal length: without padding, a result does not depend on the rest of its batch.

use std::cmp::Reverse;

/// Maximum tokens per batch, unless one text is longer. Larger batches are not faster on a CPU.
pub(crate) const BATCH_TOKENS: usize = 1 << 11;

/// Indices of `items` in batches of equal length, the longest first, with at most `max_tokens` tokens each.
fn by_length<T>(items: &[T], len: impl Fn(&T) -> usize, max_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&at| Reverse(len(&items[at])));
    let same = |&a: &usize, &b: &usize| len(&items[a]) == len(&items[b]);
    let batches = order.chunk_by(same).flat_map(|equal| {
        let rows = max_tokens / len(&items[equal[0]]).max(1);
        equal.chunks(rows.max(1))
    });
    batches.map(<[usize]>::to_vec).collect()
}

/// Runs `items` in batches of equal length; results are in the order of `items`.
///
/// # Panics
/// If `run` does not return one result per item.
pub(crate) fn in_batches<T, R>(
    items: &[T],
    len: impl Fn(&T) -> usize,
    max_tokens: usize,
    mut run: impl FnMut(&[&T]) -> Vec<R>,
) -> Vec<R> {
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    for batch in by_length(items, len, max_tokens) {
        let together: Vec<&T> = batch.iter().map(|&at| &items[at]).collect();
        let done = run(&together);
        assert_eq!(done.len(), batch.len(), "a result for each item");
        for (at, result) in batch.into_iter().zip(done) {
            results[at] = Some(result);
        }
    }
    results.into_iter().map(|result| result.expect("every item is in a batch")).collect()
}

/// Runs the items that are `Ok`; the errors of the others stay in their positions.
pub(crate) fn for_good<T, R, E>(
    items: Vec<Result<T, E>>,
    run: impl FnOnce(&[T]) -> Vec<R>,
) -> Vec<Result<R, E>> {
    let mut good = Vec::with_capacity(items.len());
    let places: Vec<Result<(), E>> = items.into_iter().map(|item| item.map(|item| good.push(item))).collect();
    let mut results = run(&good).into_iter();
    let mut next = || results.next().expect("a result for each good item");
    places.into_iter().map(|place| place.map(|()| next())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_texts_of_one_length_up_to_a_bound() {
        let lens = [3, 90, 40, 40, 0, 3, 40];
        assert_eq!(by_length(&lens, |&len| len, 80), [vec![1], vec![2, 3], vec![6], vec![0, 5], vec![4]]);
        assert_eq!(by_length(&[0usize; 0], |&len| len, 80), Vec::<Vec<usize>>::new());
        assert_eq!(by_length(&[5, 5], |&len| len, 0), [[0], [1]]);
    }

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..50).map(|n| n * 7 % 13).collect();
        let mut calls = 0;
        let results = in_batches(
            &items,
            |&len| len,
            30,
            |batch| {
                calls += 1;
                batch.iter().map(|&&item| item * 2).collect()
            },
        );
        assert_eq!(results, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        assert!((5..50).contains(&calls), "{calls}");
    }

    #[test]
    fn an_item_that_fails_leaves_its_error_in_its_place() {
        let items = vec![Ok(1), Err("no"), Ok(3)];
        let results = for_good(items, |good: &[i32]| good.iter().map(|item| item * 10).collect::<Vec<_>>());
        assert_eq!(results, [Ok(10), Err("no"), Ok(30)]);
    }
}
