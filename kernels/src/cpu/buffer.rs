//! Buffers of zeros that cost nothing until they are written.
//!
//! `vec![F::ZERO; n]` writes every element; here the pages come zeroed from the operating system, as huge pages where it has them to give:
//! a column pass then misses the translation cache hundreds of times less often, and a fresh buffer is mapped with as many fewer faults.
#![allow(unsafe_code)]

use zkinfer_circuits::field::F;

/// Smaller buffers are not worth a system call.
const MIN_HUGE_BYTES: usize = 8 << 20;

/// `length` zeros.
pub(crate) fn zeros(length: usize) -> Vec<F> {
    let mut words = std::mem::ManuallyDrop::new(vec![0u64; length]);
    if length * size_of::<u64>() >= MIN_HUGE_BYTES {
        ask_for_huge_pages(&mut words);
    }
    // SAFETY: the pointer, length and capacity are those of a vector that is not dropped, and F is a transparent wrapper of u64: the
    // layout of the allocation is the same, and every word is an element.
    unsafe { Vec::from_raw_parts(words.as_mut_ptr().cast::<F>(), words.len(), words.capacity()) }
}

/// Advice only: whether it is taken changes no value.
#[cfg(target_os = "linux")]
fn ask_for_huge_pages(words: &mut [u64]) {
    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
    }
    const MADV_HUGEPAGE: c_int = 14;
    const PAGE: usize = 1 << 12;
    let bytes = size_of_val(words);
    let to_page = words.as_ptr().cast::<u8>().align_offset(PAGE);
    if to_page < bytes {
        let first = words.as_mut_ptr().cast::<u8>().wrapping_add(to_page);
        // SAFETY: the range begins at a page and ends within the slice, which is borrowed exclusively; this advice changes no content. An
        // error, such as a kernel without huge pages, has no effect, so the result is not looked at.
        unsafe { madvise(first.cast(), bytes - to_page, MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_huge_pages(_words: &mut [u64]) {}

#[cfg(test)]
mod tests {
    use plonky2::field::types::Field;

    use super::*;

    #[test]
    fn buffers_of_any_length_are_zero_and_grow_like_other_vectors() {
        for length in [0, 1, 1000, MIN_HUGE_BYTES / 8, MIN_HUGE_BYTES / 8 + 3] {
            let mut buffer = zeros(length);
            assert_eq!(buffer.len(), length);
            assert!(buffer.iter().all(Field::is_zero));
            buffer.push(F::ONE);
            assert_eq!(buffer.pop(), Some(F::ONE));
        }
    }
}
