//! Memory for results.

/// `len` numbers for a kernel to write. Until then they are whatever lay there: zeros would cost as much as many a kernel.
pub fn unspecified(len: usize) -> Vec<f32> {
    let mut numbers = Vec::<f32>::with_capacity(len);
    let start = numbers.as_mut_ptr();
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    // SAFETY: the capacity is `len`.
    unsafe {
        start.write_bytes(0, len);
    }
    #[cfg(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64")))]
    // SAFETY: no instruction is executed. The compiler must take it that the block wrote the memory it was given, so
    // from here on every element is some f32, which one is not specified.
    unsafe {
        std::arch::asm!("/* {0} */", in(reg) start, options(nostack, preserves_flags));
    }
    // SAFETY: the capacity is `len`, and the elements are written.
    unsafe {
        numbers.set_len(len);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_long_as_asked_for_and_can_be_written() {
        for len in [0, 1, 1000] {
            let mut numbers = unspecified(len);
            numbers.fill(1.0);
            assert_eq!(numbers, vec![1.0; len]);
        }
    }
}
