//! The pages of a column, whose own numbers are checked before the library allocates by them.
//!
//! The crate `parquet` 60.1.0 makes room for as many values as a dictionary page, or the header of a delta encoding, says that it
//! has, whatever the length of the page.

use parquet::basic::{Encoding, Type};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::RowGroupReader;
use parquet::record::reader::RowIter;
use parquet::schema::types::{ColumnDescPtr, Type as SchemaType};

/// A row group with checked pages.
pub(super) struct CheckedGroup<'a>(pub(super) Box<dyn RowGroupReader + 'a>);

impl RowGroupReader for CheckedGroup<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.0.metadata()
    }

    fn num_columns(&self) -> usize {
        self.0.num_columns()
    }

    fn get_column_page_reader(&self, index: usize) -> Result<Box<dyn PageReader>> {
        let pages = self.0.get_column_page_reader(index)?;
        Ok(Box::new(CheckedPages { pages, column: self.metadata().schema_descr().column(index) }))
    }

    fn get_column_bloom_filter(&self, index: usize) -> Option<&Sbbf> {
        self.0.get_column_bloom_filter(index)
    }

    fn get_row_iter(&self, projection: Option<SchemaType>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

struct CheckedPages {
    pages: Box<dyn PageReader>,
    column: ColumnDescPtr,
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        checked(self.pages.get_next_page()?, &self.column)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn supports_deferred_dictionary(&self) -> bool {
        self.pages.supports_deferred_dictionary()
    }

    fn take_deferred_dictionary(&mut self) -> Result<Option<Page>> {
        checked(self.pages.take_deferred_dictionary()?, &self.column)
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}

fn checked(page: Option<Page>, column: &ColumnDescPtr) -> Result<Option<Page>> {
    let what = match &page {
        Some(Page::DictionaryPage { buf, num_values, .. })
            if !fits(*num_values, buf.len(), column.physical_type(), column.type_length()) =>
        {
            "dictionary"
        }
        Some(page) if !delta_fits(page, column) => "page",
        _ => return Ok(page),
    };
    Err(ParquetError::General(format!("a {what} has fewer values than it says")))
}

/// Whether so many values without an encoding have room in so many bytes.
fn fits(values: u32, bytes: usize, kind: Type, length: i32) -> bool {
    let bits = match kind {
        Type::BOOLEAN => 1,
        // Those of bytes have their length before them.
        Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 32,
        Type::INT64 | Type::DOUBLE => 64,
        Type::INT96 => 96,
        Type::FIXED_LEN_BYTE_ARRAY => 8 * u64::try_from(length).unwrap_or(0).max(1),
    };
    u64::from(values).saturating_mul(bits) <= 8 * bytes as u64
}

/// Whether the lengths in a page with a delta encoding are as many as its values at most.
fn delta_fits(page: &Page, column: &ColumnDescPtr) -> bool {
    let (values, encoding) = (page.num_values(), page.encoding());
    if !matches!(encoding, Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY) {
        return true;
    }
    // What cannot be told is an error to the library as well, before it allocates.
    let Some(lengths) = data_of(page, column).and_then(Lengths::of) else { return true };
    let is_fine = |lengths: &Lengths<'_>| lengths.count <= u64::from(values);
    match encoding {
        Encoding::DELTA_BYTE_ARRAY if is_fine(&lengths) => {
            lengths.rest().and_then(Lengths::of).is_none_or(|suffixes| is_fine(&suffixes))
        }
        _ => is_fine(&lengths),
    }
}

/// The values of a page of data, without the levels before them.
fn data_of<'p>(page: &'p Page, column: &ColumnDescPtr) -> Option<&'p [u8]> {
    match page {
        Page::DataPage { buf, num_values, def_level_encoding, rep_level_encoding, .. } => {
            let mut rest: &[u8] = buf;
            for (most, encoding) in
                [(column.max_rep_level(), rep_level_encoding), (column.max_def_level(), def_level_encoding)]
            {
                if most > 0 {
                    let bytes = match encoding {
                        Encoding::RLE => {
                            let (length, after) = rest.split_first_chunk()?;
                            rest = after;
                            u32::from_le_bytes(*length) as usize
                        }
                        // Bits of the largest level for each.
                        _ => {
                            let bits = u64::from(16 - most.leading_zeros());
                            usize::try_from((u64::from(*num_values) * bits).div_ceil(8)).ok()?
                        }
                    };
                    rest = rest.get(bytes..)?;
                }
            }
            Some(rest)
        }
        Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, .. } => {
            buf.get((*def_levels_byte_len as usize).checked_add(*rep_levels_byte_len as usize)?..)
        }
        Page::DictionaryPage { .. } => None,
    }
}

/// Numbers in the encoding `DELTA_BINARY_PACKED`.
struct Lengths<'p> {
    count: u64,
    per_block: u64,
    minis: u64,
    /// After the first number.
    blocks: &'p [u8],
}

impl<'p> Lengths<'p> {
    fn of(mut data: &'p [u8]) -> Option<Self> {
        let per_block = number(&mut data)?;
        let minis = number(&mut data)?;
        let count = number(&mut data)?;
        number(&mut data)?;
        Some(Self { count, per_block, minis, blocks: data })
    }

    /// What follows them.
    fn rest(&self) -> Option<&'p [u8]> {
        let Self { count, per_block, minis, mut blocks } = *self;
        let per_mini = per_block.checked_div(minis).filter(|&numbers| numbers > 0)?;
        let mut left = count.saturating_sub(1);
        while left > 0 {
            // The least difference, and the bits of each miniblock.
            number(&mut blocks)?;
            let (widths, mut rest) = blocks.split_at_checked(usize::try_from(minis).ok()?)?;
            for &width in widths {
                if left > 0 {
                    let bytes = per_mini.checked_mul(u64::from(width))? / 8;
                    rest = rest.get(usize::try_from(bytes).ok()?..)?;
                    left = left.saturating_sub(per_mini);
                }
            }
            blocks = rest;
        }
        Some(blocks)
    }
}

/// A number of seven bits a byte, the lowest first.
fn number(data: &mut &[u8]) -> Option<u64> {
    let mut found = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = data.split_first()?;
        *data = rest;
        found |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_has_room_for_its_values() {
        for (values, bytes, kind, length, expected) in [
            (2, 8, Type::BYTE_ARRAY, 0, true),
            (3, 8, Type::BYTE_ARRAY, 0, false),
            (u32::MAX, 1 << 20, Type::INT64, 0, false),
            (4, 12, Type::FIXED_LEN_BYTE_ARRAY, 3, true),
            (5, 12, Type::FIXED_LEN_BYTE_ARRAY, 3, false),
            (13, 12, Type::FIXED_LEN_BYTE_ARRAY, 0, false),
            (16, 2, Type::BOOLEAN, 0, true),
            (1, 0, Type::INT96, 0, false),
        ] {
            assert_eq!(fits(values, bytes, kind, length), expected, "{values} {bytes} {kind}");
        }
    }

    #[test]
    fn lengths_are_counted_and_passed_over() {
        // 3 numbers in a block of 128 with 4 miniblocks of 32, of which the first has 2 bits a number; then 9 numbers that are not
        // there.
        let first = [128, 1, 4, 3, 10, 1, 2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let second = [128, 1, 4, 9, 0];
        let data = [&first[..], &second].concat();
        let lengths = Lengths::of(&data).unwrap();
        assert_eq!(lengths.count, 3);
        assert_eq!(lengths.rest().unwrap(), second);
        let suffixes = Lengths::of(lengths.rest().unwrap()).unwrap();
        assert_eq!((suffixes.count, suffixes.rest()), (9, None));
        assert!(Lengths::of(&[0x80; 20]).is_none() && Lengths::of(&[1, 1]).is_none());
    }
}
