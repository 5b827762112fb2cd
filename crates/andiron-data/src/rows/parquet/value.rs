//! Values of Parquet as values of JSON.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta};
use parquet::data_type::Decimal;
use parquet::record::{Field, Row};
use serde_json::{Map, Number, Value};

/// The fields of a row; `None` if it is longer than `limit` bytes.
pub(super) fn fields(row: Row, limit: u64) -> Result<Option<Map<String, Value>>, String> {
    let mut left = Left(limit);
    let mut fields = Map::new();
    for (name, field) in row.into_columns() {
        let Some(value) = left.value(field) else { return Ok(None) };
        if fields.contains_key(&name) {
            return Err(format!("two columns are named {name:?}"));
        }
        fields.insert(name, value);
    }
    Ok(Some(fields))
}

/// The bytes that a row may still have.
struct Left(u64);

impl Left {
    fn take(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.checked_sub(bytes as u64)?;
        Some(())
    }

    fn value(&mut self, field: Field) -> Option<Value> {
        // Empty values take memory too.
        self.take(8)?;
        Some(match field {
            Field::Null => Value::Null,
            Field::Bool(value) => value.into(),
            Field::Byte(value) => value.into(),
            Field::Short(value) => value.into(),
            Field::Int(value) => value.into(),
            Field::Long(value) => value.into(),
            Field::UByte(value) => value.into(),
            Field::UShort(value) => value.into(),
            Field::UInt(value) => value.into(),
            Field::ULong(value) => value.into(),
            Field::Float16(value) => shortest(value.to_f32()),
            Field::Float(value) => shortest(value),
            Field::Double(value) => Number::from_f64(value).into(),
            Field::Decimal(value) => decimal(&value),
            Field::Str(text) => {
                self.take(text.len())?;
                text.into()
            }
            // Some programs write text without saying that it is text.
            Field::Bytes(bytes) => {
                self.take(bytes.len())?;
                std::str::from_utf8(bytes.data()).ok().into()
            }
            Field::Date(days) => date(days).into(),
            Field::TimeMillis(ms) => time(i64::from(ms).checked_mul(1000)).into(),
            Field::TimeMicros(us) => time(Some(us)).into(),
            Field::TimestampMillis(ms) => timestamp(ms.checked_mul(1000)).into(),
            Field::TimestampMicros(us) => timestamp(Some(us)).into(),
            Field::Group(row) => {
                let mut object = Map::new();
                for (name, field) in row.into_columns() {
                    self.take(name.len())?;
                    object.insert(name, self.value(field)?);
                }
                object.into()
            }
            Field::ListInternal(list) => {
                let items: Option<Vec<Value>> =
                    list.elements().iter().map(|item| self.value(item.clone())).collect();
                items?.into()
            }
            Field::MapInternal(map) => {
                let mut object = Map::new();
                for (key, field) in map.entries() {
                    let key = match self.value(key.clone())? {
                        Value::String(key) => key,
                        key => key.to_string(),
                    };
                    object.insert(key, self.value(field.clone())?);
                }
                object.into()
            }
        })
    }
}

/// A number by its shortest decimal form: 0.1, not 0.10000000149011612.
fn shortest(value: f32) -> Value {
    value.to_string().parse().ok().and_then(Number::from_f64).into()
}

fn decimal(value: &Decimal) -> Value {
    let bytes = value.data();
    let negative = bytes.first().is_some_and(|&first| first >= 0x80);
    let start = if negative { -1.0 } else { 0.0 };
    let unscaled = bytes.iter().fold(start, |sum: f64, &byte| sum * 256.0 + f64::from(byte));
    Number::from_f64(unscaled / 10f64.powi(value.scale())).into()
}

fn date(days: i32) -> Option<String> {
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
    let distance = Days::new(days.unsigned_abs().into());
    let date = if days < 0 { epoch.checked_sub_days(distance) } else { epoch.checked_add_days(distance) };
    Some(date?.to_string())
}

fn time(microseconds: Option<i64>) -> Option<String> {
    let (time, days) = NaiveTime::MIN.overflowing_add_signed(TimeDelta::microseconds(microseconds?));
    (days == 0).then(|| time.to_string())
}

fn timestamp(microseconds: Option<i64>) -> Option<String> {
    Some(
        DateTime::from_timestamp_micros(microseconds?)?
            .naive_utc()
            .format("%Y-%m-%dT%H:%M:%S%.f")
            .to_string(),
    )
}
