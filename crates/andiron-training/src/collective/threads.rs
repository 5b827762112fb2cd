//! Processes of tests: threads of one process.

use std::sync::{Arc, Barrier, Mutex};

use super::Collective;

/// One thread of several.
#[derive(Debug)]
pub(crate) struct Thread {
    rank: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    all_here: Barrier,
    /// What each thread gives, while all of them read.
    given: Mutex<Vec<Vec<f64>>>,
}

/// Runs `work` once for each of `size` ranks; returns their results in order.
pub(crate) fn on_threads<T: Send>(size: usize, work: impl Fn(&Thread) -> T + Sync) -> Vec<T> {
    let given = Mutex::new(vec![Vec::new(); size]);
    let shared = Arc::new(Shared { all_here: Barrier::new(size), given });
    std::thread::scope(|scope| {
        let start = |rank| {
            let (thread, work) = (Thread { rank, shared: Arc::clone(&shared) }, &work);
            scope.spawn(move || work(&thread))
        };
        let running: Vec<_> = (0..size).map(start).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

impl Thread {
    /// The same rank, to be owned.
    pub(crate) fn handle(&self) -> Self {
        Self { rank: self.rank, shared: Arc::clone(&self.shared) }
    }

    /// What all threads give, in the order of ranks.
    fn exchange(&self, own: Vec<f64>) -> Vec<Vec<f64>> {
        self.shared.given.lock().unwrap()[self.rank] = own;
        self.shared.all_here.wait();
        let all = self.shared.given.lock().unwrap().clone();
        self.shared.all_here.wait();
        all
    }
}

fn wide(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().map(|&number| f64::from(number)).collect()
}

impl Collective for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.shared.given.lock().unwrap().len()
    }

    fn sum(&self, numbers: &mut [f64]) {
        let all = self.exchange(numbers.to_vec());
        for (at, number) in numbers.iter_mut().enumerate() {
            *number = all.iter().map(|given| given[at]).sum();
        }
    }

    fn sum_gradients(&self, numbers: &mut [f32]) {
        let all = self.exchange(wide(numbers));
        for (at, number) in numbers.iter_mut().enumerate() {
            // In f32, as the processes of a real run add.
            *number = all.iter().map(|given| given[at] as f32).sum();
        }
    }

    fn broadcast(&self, numbers: &mut [f32], from: usize) {
        let all = self.exchange(wide(numbers));
        numbers.iter_mut().zip(&all[from]).for_each(|(number, &given)| *number = given as f32);
    }

    fn all_gather(&self, numbers: &mut [f32], lengths: &[usize]) {
        assert_eq!(lengths.iter().sum::<usize>(), numbers.len(), "parts of all processes");
        let all = self.exchange(wide(numbers));
        let mut start = 0;
        for (given, length) in all.iter().zip(lengths) {
            for at in start..start + length {
                numbers[at] = given[at] as f32;
            }
            start += length;
        }
    }

    fn wait_for_all(&self) {
        self.shared.all_here.wait();
    }
}
