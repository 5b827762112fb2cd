#!/usr/bin/env python3
"""Makes the GGUF fixtures with the `gguf` package: a file with a tensor of each type, and the values it means.

    python3 gguf.py

Needs `gguf` 0.19, numpy and safetensors. `gguf/types.gguf` holds one tensor `[3, 512]` of each element type and some
metadata of each type; `gguf/types.safetensors` holds the tensors as f32, as the package dequantises them. What the
package cannot quantise is made of random bytes with scales of a usual size.
"""
import pathlib
import sys

# Beside this file lie folders, and the file itself is called like the package.
HERE = pathlib.Path(__file__).resolve().parent
sys.path = [path for path in sys.path if path and pathlib.Path(path).resolve() != HERE]

import gguf
import numpy
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save_file

SHAPE = (3, 512)
# Where a block's f16 scales begin, for types that the package does not write.
SCALES = {
    Type.Q2_K: (80, 82),
    Type.Q3_K: (108,),
    Type.Q4_K: (0, 2),
    Type.Q5_K: (0, 2),
    Type.Q6_K: (208,),
}
WRITTEN = [Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0]


def random_blocks(rng, kind):
    block_len, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    rows = SHAPE[0] * SHAPE[1] // block_len
    blocks = rng.integers(0, 256, (rows, block_bytes), dtype=numpy.uint8)
    for at in SCALES[kind]:
        scales = rng.normal(0, 0.01, (rows, 1)).astype(numpy.float16)
        blocks[:, at : at + 2] = scales.view(numpy.uint8)
    return blocks.reshape(SHAPE[0], -1)


def types():
    rng = numpy.random.default_rng(7)
    folder = HERE / "gguf"
    folder.mkdir(exist_ok=True)
    writer = gguf.GGUFWriter(folder / "types.gguf", "test")
    for width in (8, 16, 32, 64):
        getattr(writer, f"add_uint{width}")(f"test.u{width}", 2**width - 1)
        getattr(writer, f"add_int{width}")(f"test.i{width}", -(2 ** (width - 1)))
    writer.add_float32("test.f32", 1e-5)
    writer.add_float64("test.f64", -0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "grüße")
    writer.add_array("test.strings", ["a", "", "ß"])
    writer.add_array("test.integers", [3, -1, 7])
    writer.add_array("test.floats", [0.5, -2.0])
    writer.add_array("test.nested", [[1, 2], [3]])
    expected = {}
    for kind in WRITTEN + list(SCALES):
        name = f"tensor.{kind.name.lower()}"
        values = rng.normal(0, 1, SHAPE).astype(numpy.float32)
        values[1, 32:64] = 0.0  # A block without any scale.
        data = gguf.quants.quantize(values, kind) if kind in WRITTEN else random_blocks(rng, kind)
        expected[name] = numpy.ascontiguousarray(gguf.quants.dequantize(data, kind)).reshape(SHAPE)
        assert numpy.isfinite(expected[name]).all(), name
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, folder / "types.safetensors")


if __name__ == "__main__":
    types()
    print(f"made {HERE / 'gguf'}")
