//! The messages in an event file, as protocol buffers: as much of them as Andiron writes.
//!
//! ```text
//! Event      { double wall_time = 1; int64 step = 2; oneof { string file_version = 3; Summary summary = 5; SessionLog session_log = 7; } }
//! Summary    { repeated Value value = 1; }       Value { string tag = 1; float simple_value = 2; }
//! SessionLog { SessionStatus status = 1; }       START = 1
//! ```
//!
//! Source: `event.proto` and `summary.proto` of TensorFlow; the encoding: <https://protobuf.dev/programming-guides/encoding/>.

/// What an event says.
#[derive(Clone, Copy, Debug)]
pub(super) enum What<'a> {
    /// The first event of a file.
    FileVersion,
    /// A process begins with the step: older events of this step and of later ones are void.
    SessionStart,
    /// Values of the step, by tag.
    Scalars(&'a [(&'a str, f32)]),
}

const FILE_VERSION: &str = "brain.Event:2";

const START: u64 = 1;

/// Appends an event to `out`.
pub(super) fn write(out: &mut Vec<u8>, wall_time_s: f64, step: u64, what: What<'_>) {
    key(out, 1, FIXED_64);
    out.extend(wall_time_s.to_le_bytes());
    if step > 0 {
        key(out, 2, VARINT);
        varint(out, step);
    }
    match what {
        What::FileVersion => text(out, 3, FILE_VERSION),
        What::SessionStart => {
            message(out, 7, 2);
            key(out, 1, VARINT);
            varint(out, START);
        }
        What::Scalars(scalars) => {
            let value_length = |tag: &str| 1 + varint_length(tag.len()) + tag.len() + 5;
            let field_length = |length: usize| 1 + varint_length(length) + length;
            message(out, 5, scalars.iter().map(|(tag, _)| field_length(value_length(tag))).sum());
            for &(tag, value) in scalars {
                message(out, 1, value_length(tag));
                text(out, 1, tag);
                key(out, 2, FIXED_32);
                out.extend(value.to_le_bytes());
            }
        }
    }
}

/// Kinds of a field.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const BYTES: u8 = 2;
const FIXED_32: u8 = 5;

/// The key of a field whose number is less than 16.
fn key(out: &mut Vec<u8>, field: u8, kind: u8) {
    out.push(field << 3 | kind);
}

/// Seven bits a byte, the lowest first; all but the last have their top bit set.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_length(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// The beginning of a message of `length` bytes.
fn message(out: &mut Vec<u8>, field: u8, length: usize) {
    key(out, field, BYTES);
    varint(out, length as u64);
}

fn text(out: &mut Vec<u8>, field: u8, text: &str) {
    message(out, field, text.len());
    out.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_record(wall_time_s: f64, step: u64, what: What<'_>, expected: &str) {
        let (mut event, mut record) = (Vec::new(), Vec::new());
        write(&mut event, wall_time_s, step, what);
        super::super::record::write(&mut record, &event);
        let hex: String = record.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }

    // The bytes that `tensorboard` 2.21.0 writes for the same events (`RecordWriter`, `Event.SerializeToString`).
    #[test]
    fn events_have_the_bytes_that_tensorboard_writes() {
        check_record(
            1.5,
            0,
            What::FileVersion,
            "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c",
        );
        check_record(
            2.0,
            7,
            What::SessionStart,
            "0f000000000000006d532b0909000000000000004010073a020801d1715dcb",
        );
        check_record(
            1_700_000_000.25,
            300,
            What::Scalars(&[("train/loss", 2.5), ("valid/loss", f32::NAN)]),
            "34000000000000005e33175c0900001040fc54d94110ac022a260a110a0a747261696e2f6c6f737315000020400a110a0a76616c\
             69642f6c6f7373150000c07f23660bc7",
        );
        check_record(
            3.0,
            0,
            What::Scalars(&[("x", 0.0)]),
            "1500000000000000d6ab6b2b0900000000000008402a0a0a080a01781500000000cee3ec7b",
        );
    }

    #[test]
    fn lengths_of_more_than_seven_bits_take_two_bytes() {
        let mut event = Vec::new();
        write(&mut event, 0.0, 1, What::Scalars(&[(&"t".repeat(130), 1.0)]));
        // As `tensorboard` 2.21.0 writes it, after the nine bytes of the time, which it leaves out when it is 0.
        assert_eq!(event[9..20], [0x10, 1, 0x2a, 0x8d, 1, 0x0a, 0x8a, 1, 0x0a, 0x82, 1]);
        assert_eq!(event.len(), 9 + 2 + 3 + 0x8d);
        for value in [0, 1, 127, 128, 16383, 16384, usize::MAX] {
            let mut bytes = Vec::new();
            varint(&mut bytes, value as u64);
            assert_eq!(varint_length(value), bytes.len(), "{value}");
        }
    }
}
