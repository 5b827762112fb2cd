//! Batches of equal length: without padding, a result does not depend on the rest of its batch.

/// Maximum tokens per batch, unless one text is longer. Larger batches are not faster on a CPU.
pub(crate) const BATCH_TOKENS: usize = 1 << 11;

/// What of items decides their batches: a batch is of one `kind`, and padded to its greatest length.
#[derive(Clone, Copy)]
pub(crate) struct Size<K> {
    pub(crate) kind: K,
    pub(crate) len: usize,
}

/// How much a batch holds, at least one item.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) rows: usize,
    /// With the padding.
    pub(crate) tokens: usize,
}

/// Indices of items in batches, the longest items of each kind first.
pub(crate) fn batches<K: Ord>(sizes: &[Size<K>], bounds: Bounds) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by(|&a, &b| (&sizes[b].kind, sizes[b].len).cmp(&(&sizes[a].kind, sizes[a].len)));
    let mut batches = Vec::new();
    for mut rest in order.chunk_by(|&a, &b| sizes[a].kind == sizes[b].kind) {
        while let Some(&longest) = rest.first() {
            let rows = bounds.rows.min(bounds.tokens / sizes[longest].len.max(1));
            let (batch, others) = rest.split_at(rows.clamp(1, rest.len()));
            batches.push(batch.to_vec());
            rest = others;
        }
    }
    batches
}

/// Runs `items` in batches; results are in the order of `items`.
///
/// # Panics
/// If `run` does not return one result per item.
pub(crate) fn in_similar_batches<T, K: Ord, R>(
    items: &[T],
    size: impl Fn(&T) -> Size<K>,
    bounds: Bounds,
    mut run: impl FnMut(&[&T]) -> Vec<R>,
) -> Vec<R> {
    let sizes: Vec<Size<K>> = items.iter().map(size).collect();
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    for batch in batches(&sizes, bounds) {
        let together: Vec<&T> = batch.iter().map(|&at| &items[at]).collect();
        let done = run(&together);
        assert_eq!(done.len(), batch.len(), "a result for each item");
        for (at, result) in batch.into_iter().zip(done) {
            results[at] = Some(result);
        }
    }
    results.into_iter().map(|result| result.expect("every item is in a batch")).collect()
}

/// Runs `items` in batches of equal length; results are in the order of `items`.
///
/// # Panics
/// If `run` does not return one result per item.
pub(crate) fn in_batches<T, R>(
    items: &[T],
    len: impl Fn(&T) -> usize,
    max_tokens: usize,
    run: impl FnMut(&[&T]) -> Vec<R>,
) -> Vec<R> {
    let size = |item: &T| Size { kind: len(item), len: len(item) };
    in_similar_batches(items, size, Bounds { rows: usize::MAX, tokens: max_tokens }, run)
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
        let by_length = |lens: &[usize], tokens| {
            let sizes: Vec<Size<usize>> = lens.iter().map(|&len| Size { kind: len, len }).collect();
            batches(&sizes, Bounds { rows: usize::MAX, tokens })
        };
        assert_eq!(
            by_length(&[3, 90, 40, 40, 0, 3, 40], 80),
            [vec![1], vec![2, 3], vec![6], vec![0, 5], vec![4]]
        );
        assert_eq!(by_length(&[], 80), Vec::<Vec<usize>>::new());
        assert_eq!(by_length(&[5, 5], 0), [[0], [1]]);
    }

    #[test]
    fn batches_of_a_kind_hold_similar_lengths_up_to_both_bounds() {
        let sizes = [(0, 3), (1, 5), (0, 9), (1, 2), (0, 4), (0, 1)].map(|(kind, len)| Size { kind, len });
        let of = |rows, tokens| batches(&sizes, Bounds { rows, tokens });
        assert_eq!(of(3, 100), [vec![1, 3], vec![2, 4, 0], vec![5]]);
        assert_eq!(of(3, 9), [vec![1], vec![3], vec![2], vec![4, 0], vec![5]]);
        assert_eq!(of(0, 0).len(), 6);
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
