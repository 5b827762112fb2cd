//! Python's `random.Random`: the draws that lm-evaluation-harness makes with a seed.

/// Words of the state.
const WORDS: usize = 624;
const MIDDLE: usize = 397;

/// The generator of Python's module `random` for a whole number as the seed.
///
/// Source: Matsumoto and Nishimura 1998, "Mersenne Twister", <https://doi.org/10.1145/272991.272995>; the methods are those of
/// CPython 3.11.
#[derive(Clone, Debug)]
pub struct PythonRandom {
    state: Box<[u32; WORDS]>,
    at: usize,
}

impl PythonRandom {
    /// `random.Random(seed)`.
    pub fn new(seed: u64) -> Self {
        let key: Vec<u32> = match seed >> 32 {
            0 => vec![seed as u32],
            high => vec![seed as u32, high as u32],
        };
        let mut state = Box::new([0u32; WORDS]);
        state[0] = 19_650_218;
        for i in 1..WORDS {
            state[i] = mixed(state[i - 1]).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        let (mut i, mut j) = (1, 0);
        for _ in 0..WORDS.max(key.len()) {
            let mix = mixed(state[i - 1]).wrapping_mul(1_664_525);
            state[i] = (state[i] ^ mix).wrapping_add(key[j]).wrapping_add(j as u32);
            (i, j) = (i + 1, (j + 1) % key.len());
            if i == WORDS {
                state[0] = state[WORDS - 1];
                i = 1;
            }
        }
        for _ in 1..WORDS {
            let mix = mixed(state[i - 1]).wrapping_mul(1_566_083_941);
            state[i] = (state[i] ^ mix).wrapping_sub(i as u32);
            i += 1;
            if i == WORDS {
                state[0] = state[WORDS - 1];
                i = 1;
            }
        }
        state[0] = 0x8000_0000;
        Self { state, at: WORDS }
    }

    fn word(&mut self) -> u32 {
        if self.at == WORDS {
            for i in 0..WORDS {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % WORDS] & 0x7fff_ffff);
                let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + MIDDLE) % WORDS] ^ (y >> 1) ^ twist;
            }
            self.at = 0;
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// `random()`: at least 0 and below 1.
    pub fn unit(&mut self) -> f64 {
        let (high, low) = (self.word() >> 5, self.word() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// A whole number below `n`.
    ///
    /// # Panics
    /// If `n` is 0 or 2^32 and more.
    fn below(&mut self, n: usize) -> usize {
        let n = u32::try_from(n).ok().filter(|&n| n > 0).expect("1 to 2^32 - 1 rows");
        loop {
            let drawn = self.word() >> n.leading_zeros();
            if drawn < n {
                return drawn as usize;
            }
        }
    }

    /// `sample(range(n), k)`: `k` different numbers below `n`.
    ///
    /// # Panics
    /// If `k` is more than `n`.
    pub fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        assert!(k <= n, "{k} of {n}");
        let mut least = 21.0;
        if k > 5 {
            least += 4f64.powf(((k as f64 * 3.0).ln() / 4f64.ln()).ceil());
        }
        let mut drawn = Vec::with_capacity(k);
        if n as f64 <= least {
            let mut pool: Vec<usize> = (0..n).collect();
            for i in 0..k {
                let at = self.below(n - i);
                drawn.push(pool[at]);
                pool[at] = pool[n - i - 1];
            }
        } else {
            while drawn.len() < k {
                let number = self.below(n);
                if !drawn.contains(&number) {
                    drawn.push(number);
                }
            }
        }
        drawn
    }

    /// `choices(range(n), k=n)`, written over `drawn`, whose length is `n`.
    pub fn choices(&mut self, drawn: &mut [u32]) {
        let n = drawn.len() as f64;
        for number in drawn {
            *number = (self.unit() * n) as u32;
        }
    }
}

fn mixed(word: u32) -> u32 {
    word ^ (word >> 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CPython 3.11.7.
    #[test]
    fn draws_are_those_of_python() {
        let mut random = PythonRandom::new(1234);
        assert_eq!(random.unit(), 0.966_453_535_692_138_8);
        assert_eq!(PythonRandom::new(0).unit(), 0.844_421_851_525_048_1);
        assert_eq!(PythonRandom::new(1 << 40).unit(), 0.103_639_456_281_237_5);
        let mut random = PythonRandom::new(1234);
        assert_eq!(random.sample(12, 3), [7, 1, 0]);
        assert_eq!(random.sample(500, 7), [46, 466, 482, 480, 413, 298, 17]);
        assert_eq!(random.sample(5, 5), [0, 4, 1, 3, 2]);
        let mut drawn = [0; 8];
        PythonRandom::new(3).choices(&mut drawn);
        assert_eq!(drawn, [1, 4, 2, 4, 5, 0, 0, 6]);
    }
}
