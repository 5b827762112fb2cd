//! Rows looked up in tables, dense and quantized.

use andiron_core::ops;
use andiron_core::quant::{Format, QuantMatrix};
use burn::tensor::{Int, Tensor};

use crate::{assert_close, check, devices, floats, random, reference_device};

const IDS: [[i32; 3]; 2] = [[1, 3, 3], [0, 1, 1]];

#[test]
fn embedding_adds_up_repeated_ids() {
    check(
        "embedding",
        [[6, 5]],
        |[table]| {
            let ids_bt = Tensor::<2, Int>::from_ints(IDS, &table.device());
            ops::embedding(table, ids_bt)
        },
        |[table]| {
            let ids_n = Tensor::<1, Int>::from_ints(IDS.concat().as_slice(), &table.device());
            table.select(0, ids_n).reshape([2, 3, 5])
        },
    );
}

#[test]
fn a_quantized_table_gives_what_it_dequantizes_to() {
    let values = floats(random([6, 64], "table", &reference_device()));
    for format in [Format::Q8_0, Format::Q4_1, Format::F16] {
        let table = QuantMatrix::quantize(format, &values, 64);
        let rows: Vec<f32> = IDS.concat().iter().flat_map(|&id| table.gather(&[id as u32])).collect();
        let expected = Tensor::<1>::from_floats(rows.as_slice(), &reference_device()).reshape([2, 3, 64]);
        for device in devices() {
            let y = ops::embedding_quantized(&table, Tensor::from_ints(IDS, &device));
            assert_close(&format!("{format:?}"), y, expected.clone());
        }
    }
}

/// GPU backends do not look at ids before they are used.
#[test]
#[should_panic(expected = "id 6 is outside a table of 6 entries")]
fn an_id_outside_the_table_panics_on_a_cpu() {
    let device = reference_device();
    let _ = ops::embedding(random([6, 5], "table", &device), Tensor::from_ints([[6]], &device));
}
