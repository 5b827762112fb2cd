#!/usr/bin/env bash
# Package: onnxruntime==1.32.0
# Guessed: dynamic quantization scales each row of activations by itself, so that rows do not know of each other.
# Seen: one scale serves the whole batch: a row whose values are near 1 comes out as 0 beside a row with a value of 1000.
# Andiron: a scale belongs to 32 activations of one row, so that what another row holds changes nothing.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6

cd "$place"
venv/bin/python - 2> messages <<'PYTHON' || { cat messages >&2; exit 1; }
import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType, quantize_dynamic

x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4]) for name in "xy")
identity = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], numpy.eye(4, dtype=numpy.float32).ravel())
graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "identity", [x], [y], [identity])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "f32.onnx")
quantize_dynamic("f32.onnx", "int8.onnx", weight_type=QuantType.QInt8)
session = onnxruntime.InferenceSession("int8.onnx", providers=["CPUExecutionProvider"])
row = numpy.array([[1, -1, 0.5, 0.25]], numpy.float32)
large = numpy.array([[1000, 0, 0, 0]], numpy.float32)
alone = session.run(None, {"x": row})[0][0]
beside = session.run(None, {"x": numpy.vstack([row, large])})[0][0]
print("alone", alone, "beside another", beside)
assert numpy.allclose(alone, row[0], atol=0.01) and not beside.any()
PYTHON
