//! nDCG, reciprocal rank, recall, precision and average precision of rankings, by the rules of trec_eval.
//!
//! Values are those of pytrec_eval 0.5.11, which MTEB and BEIR use: scores are compared as 32-bit floats, and of equal
//! scores the document with the greater id, by bytes, stands first. A relevance is a gain; one below 0 is as good as 0. A
//! query without a relevant document scores 0. scikit-learn's `ndcg_score` differs in ties: it takes the mean over their
//! orders.

/// Sorts documents as trec_eval does: by descending score in 32 bits, then by descending id.
///
/// # Example
/// ```
/// use andiron_eval::metric::ranking::rank;
/// // The third score is not above the second one in 32 bits.
/// let mut documents = [("a", 0.5), ("d10", 0.2), ("d2", 0.2 + 1e-12), ("e", 0.9)];
/// rank(&mut documents);
/// assert_eq!(documents.map(|(id, _)| id), ["e", "a", "d2", "d10"]);
/// ```
pub fn rank<I: AsRef<[u8]>>(documents: &mut [(I, f64)]) {
    // The sum makes -0 a 0, which is equal to it.
    let score = |score: f64| score as f32 + 0.0;
    documents.sort_by(|(a, score_a), (b, score_b)| {
        let by_score = score(*score_b).total_cmp(&score(*score_a));
        by_score.then_with(|| b.as_ref().cmp(a.as_ref()))
    });
}

/// A query's documents in the order of a ranking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranking {
    /// Relevance of each ranked document, best first; 0 for one that was not judged.
    pub ranked: Vec<i64>,
    /// Relevance of every document that was judged, ranked or not, in any order.
    pub judged: Vec<i64>,
}

impl Ranking {
    /// Normalized discounted cumulative gain of the first `k` documents, or of all, from 0 to 1.
    ///
    /// Source: Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques",
    /// <https://doi.org/10.1145/582415.582418>, with the discount `log2(rank + 1)`.
    pub fn ndcg(&self, k: Option<usize>) -> f64 {
        let mut best = self.judged.clone();
        best.sort_unstable_by(|a, b| b.cmp(a));
        let ideal = gain(&best, k);
        if ideal > 0.0 { gain(&self.ranked, k) / ideal } else { 0.0 }
    }

    /// 1 over the rank of the first relevant document; 0 if there is none among the first `k`, or among all.
    pub fn reciprocal_rank(&self, k: Option<usize>) -> f64 {
        let first = first(&self.ranked, k).iter().position(|&relevance| relevance > 0);
        first.map_or(0.0, |at| 1.0 / (at + 1) as f64)
    }

    /// Part of the relevant documents that is among the first `k`.
    pub fn recall(&self, k: usize) -> f64 {
        match self.n_relevant() {
            0 => 0.0,
            relevant => hits(first(&self.ranked, Some(k))) as f64 / relevant as f64,
        }
    }

    /// Part of the first `k` that is relevant; a shorter ranking is as if extended by other documents.
    pub fn precision(&self, k: usize) -> f64 {
        hits(first(&self.ranked, Some(k))) as f64 / k as f64
    }

    /// Average precision: the sum of the precisions at the ranks of relevant documents, over the number of relevant documents.
    pub fn average_precision(&self, k: Option<usize>) -> f64 {
        let relevant = self.n_relevant();
        if relevant == 0 {
            return 0.0;
        }
        let mut found = 0;
        let mut sum = 0.0;
        for (rank, _) in (1..).zip(first(&self.ranked, k)).filter(|&(_, &relevance)| relevance > 0) {
            found += 1;
            sum += f64::from(found) / f64::from(rank);
        }
        sum / relevant as f64
    }

    fn n_relevant(&self) -> usize {
        hits(&self.judged)
    }
}

fn first(ranked: &[i64], k: Option<usize>) -> &[i64] {
    &ranked[..k.unwrap_or(ranked.len()).min(ranked.len())]
}

fn hits(ranked: &[i64]) -> usize {
    ranked.iter().filter(|&&relevance| relevance > 0).count()
}

fn gain(ranked: &[i64], k: Option<usize>) -> f64 {
    let gains = (2..)
        .zip(first(ranked, k))
        .map(|(position, &relevance)| relevance.max(0) as f64 / f64::from(position).log2());
    gains.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_without_a_relevant_document_scores_nothing() {
        for judged in [vec![], vec![0, -1]] {
            let ranking = Ranking { ranked: vec![0, 0], judged };
            assert_eq!(
                (ranking.ndcg(None), ranking.recall(1), ranking.average_precision(None)),
                (0.0, 0.0, 0.0)
            );
            assert_eq!((ranking.reciprocal_rank(None), ranking.precision(3)), (0.0, 0.0));
        }
    }

    #[test]
    fn the_first_k_are_looked_at() {
        let ranking = Ranking { ranked: vec![0, 1, 0, 2], judged: vec![1, 2, 3] };
        assert_eq!((ranking.reciprocal_rank(Some(1)), ranking.reciprocal_rank(Some(2))), (0.0, 0.5));
        assert_eq!((ranking.precision(8), ranking.recall(4)), (0.25, 2.0 / 3.0));
        assert_eq!(
            (ranking.average_precision(Some(2)), ranking.average_precision(None)),
            (0.5 / 3.0, 1.0 / 3.0)
        );
    }
}
