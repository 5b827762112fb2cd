//! Tells which shapes the rows of files have, and reads all of them in the first.
//!
//! `cargo run --release -p andiron-data --example rows -- FILE…`

use andiron_data::rows::{
    Examples, LabelCollector, RowError, RowOptions, RowReader, RowShape, Shape, detect,
};
use andiron_data::source::OnError;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for path in std::env::args_os().skip(1).map(PathBuf::from) {
        let Some(first) = RowReader::open(&path, &RowOptions::default())?.next() else {
            println!("{}: no rows", path.display());
            continue;
        };
        let shapes = detect(&first?);
        let Some(shape) = shapes.first() else {
            println!("{}: no known shape", path.display());
            continue;
        };
        println!("{}: {shape}", path.display());
        let mut labels = LabelCollector::default();
        match shape.clone() {
            RowShape::Text(shape) => read(path, shape, |_| Ok(()))?,
            RowShape::Classify(shape) => read(path, shape, |row| {
                let classes = match row.label {
                    andiron_data::rows::Label::Class(class) => vec![class],
                    andiron_data::rows::Label::Classes(classes) => classes,
                    andiron_data::rows::Label::Numbers(_) => vec![],
                };
                classes.iter().try_for_each(|class| labels.add(class))
            })?,
            RowShape::Tags(shape) => read(path, shape, |_| Ok(()))?,
            RowShape::Chat(shape) => read(path, shape, |_| Ok(()))?,
            RowShape::Instruction(shape) => read(path, shape, |_| Ok(()))?,
            RowShape::Completion(shape) => read(path, shape, |_| Ok(()))?,
            RowShape::Preference(shape) => read(path, shape, |_| Ok(()))?,
            RowShape::Seq2seq(shape) => read(path, shape, |_| Ok(()))?,
            RowShape::Question(shape) => read(path, shape, |_| Ok(()))?,
            RowShape::Contrast(shape) => read(path, shape, |_| Ok(()))?,
        }
        let labels = labels.vocabulary();
        if !labels.names().is_empty() {
            println!("  {} classes: {:?}", labels.names().len(), labels.names());
        }
    }
    Ok(())
}

/// Reads the rows of a file and counts them.
fn read<S: Shape>(
    path: PathBuf,
    shape: S,
    mut each: impl FnMut(S::Example) -> Result<(), andiron_data::rows::RowFault>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut examples = Examples::new(vec![path], shape, RowOptions::default(), OnError::Skip);
    let mut n = 0;
    while let Some(found) = examples.next() {
        let (example, origin) = found?;
        match each(example) {
            Ok(()) => n += 1,
            Err(fault) => examples.refuse(RowError { origin, fault })?,
        }
    }
    println!("  {n} rows, skipped: {:?}", examples.skipped());
    Ok(())
}
