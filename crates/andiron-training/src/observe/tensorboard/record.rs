//! The frame of a record in an event file: its length and two checksums.
//!
//! `length: u64 · checksum of the length: u32 · bytes · checksum of the bytes: u32`, little-endian. A checksum is a masked CRC-32C,
//! so that one of bytes that contain checksums stays meaningful.
//!
//! Source: TensorFlow, "TFRecord and tf.train.Example", <https://www.tensorflow.org/tutorials/load_data/tfrecord>;
//! RFC 3720, appendix B.4, for CRC-32C.

/// Appends `bytes` with its frame to `out`.
pub(super) fn write(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = (bytes.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked_crc(&length).to_le_bytes());
    out.extend(bytes);
    out.extend(masked_crc(bytes).to_le_bytes());
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), a byte at a time: a record has about a hundred of them.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0, |crc, &byte| (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)])
}

/// For each byte, its remainder by the reversed polynomial.
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    // From `tensorboard` 2.21.0, `compat.tensorflow_stub.pywrap_tensorflow`. The first is also the check value of RFC 3720.
    #[test]
    fn checksums_are_those_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked_crc(b""), 0xa282_ead8);
    }
}
