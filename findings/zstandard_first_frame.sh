#!/usr/bin/env bash
# Package: zstandard==0.25.0
# Guessed: a file of several frames, which the format allows, is read to its end, as gzip's several members are.
# Seen: decompress, decompressobj and read_to_iter give the first frame, without an error; copy_stream and, asked to,
#   stream_reader read all of it.
# Andiron: reads all frames, and skips those that are to be skipped.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet zstandard==0.25.0

"$place/venv/bin/python" - <<'PYTHON'
import io

import zstandard

data = zstandard.compress(b"one ") + zstandard.compress(b"two")
reader = zstandard.ZstdDecompressor
copied = io.BytesIO()
reader().copy_stream(io.BytesIO(data), copied)
first = {
    "decompress": reader().decompress(data),
    "decompressobj": reader().decompressobj().decompress(data),
    "read_to_iter": b"".join(reader().read_to_iter(io.BytesIO(data))),
}
print("copy_stream", copied.getvalue())
assert copied.getvalue() == b"one two"
for name, read in first.items():
    print(name, read)
    assert read == b"one "
across = reader().stream_reader(io.BytesIO(data), read_across_frames=True).read()
print("stream_reader over frames", across)
assert across == b"one two"
PYTHON
