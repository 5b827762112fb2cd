//! A reader of event files, by the rules of TensorBoard's Python loaders.

use std::fs;
use std::path::Path;

use crate::files;

/// The value of a field of a message.
#[derive(Clone, Copy)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                fields.push((key >> 3, Field::Number(varint(&mut bytes))));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            kind => panic!("a field of kind {kind}"),
        };
        let (value, rest) = bytes.split_at(length);
        fields.push((key >> 3, Field::Bytes(value)));
        bytes = rest;
    }
    fields
}

fn bytes<'a>(fields: &[(u64, Field<'a>)], number: u64) -> Option<&'a [u8]> {
    fields.iter().find_map(|field| match field {
        (found, Field::Bytes(bytes)) if *found == number => Some(*bytes),
        _ => None,
    })
}

/// The steps and values of a tag: records in the order of the files' names, where a START drops its step and all later ones.
pub(crate) fn read(directory: &Path, tag: &str) -> Vec<(u64, f32)> {
    let mut curve = Vec::new();
    for name in files::list(directory).unwrap() {
        let file = fs::read(directory.join(name)).unwrap();
        let mut rest = &file[..];
        while rest.len() >= 16 {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let Some(event) = rest.get(12..12 + length) else { break };
            rest = rest.get(16 + length..).unwrap_or_default();
            let event = fields(event);
            let step = event.iter().find_map(|field| match field {
                (2, Field::Number(step)) => Some(*step),
                _ => None,
            });
            let step = step.unwrap_or(0);
            if bytes(&event, 7).is_some() {
                curve.retain(|&(earlier, _)| earlier < step);
            }
            for (_, value) in fields(bytes(&event, 5).unwrap_or_default()) {
                let Field::Bytes(value) = value else { panic!("a summary of numbers") };
                let value = fields(value);
                if bytes(&value, 1) == Some(tag.as_bytes()) {
                    let number = bytes(&value, 2).unwrap().try_into().unwrap();
                    curve.push((step, f32::from_le_bytes(number)));
                }
            }
        }
    }
    curve
}
