//! Memory for outputs.

/// `len` elements for a kernel to overwrite, of unspecified values: zeroing them would cost as much as many kernels.
pub fn unspecified(len: usize) -> Vec<f32> {
    let mut elements = Vec::<f32>::with_capacity(len);
    let start = elements.as_mut_ptr();
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    // SAFETY: the capacity is `len`.
    unsafe {
        start.write_bytes(0, len);
    }
    #[cfg(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64")))]
    // SAFETY: no instruction is executed. The compiler must assume that the block wrote the memory behind `start`, so that
    // every element is an initialised f32 of unspecified value.
    unsafe {
        std::arch::asm!("/* {0} */", in(reg) start, options(nostack, preserves_flags));
    }
    // SAFETY: the capacity is `len`, and the elements are written.
    unsafe {
        elements.set_len(len);
    }
    elements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_has_the_length_asked_for_and_is_writable() {
        for len in [0, 1, 1000] {
            let mut elements = unspecified(len);
            elements.fill(1.0);
            assert_eq!(elements, vec![1.0; len]);
        }
    }
}
