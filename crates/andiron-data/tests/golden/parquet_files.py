#!/usr/bin/env python3
"""Writes the Parquet files that the tests of `rows::parquet` read.

    python parquet_files.py DIR

Made with pyarrow 26.0.1, pandas 3.1.1, polars and datasets (the versions are printed). The same rows come from each program:
text, a category of few values, numbers with gaps, times, and a chat of nested messages.
"""

import datetime
import decimal
import sys
from pathlib import Path

import datasets
import pandas
import polars
import pyarrow
import pyarrow.parquet

TEXTS = ["To be, or not to be", "죽느냐 사느냐", "", "a\nb\t\"c\"", "last"]
LANGUAGES = ["en", "ko", "en", "en", "ko"]
SCORES = [0.1, None, -2.5, float("nan"), 3.0]
CHATS = [
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": f"Answer {n}"}] if n else []
    for n in range(5)
]
TIME = datetime.datetime(2024, 1, 2, 3, 4, 5, 678000)


def columns() -> dict:
    return {"id": list(range(5)), "text": TEXTS, "lang": LANGUAGES, "score": SCORES, "messages": CHATS}


def main() -> None:
    out = Path(sys.argv[1])
    frame = pandas.DataFrame(columns())
    frame["lang"] = frame["lang"].astype("category")
    frame["when"] = pandas.Timestamp(TIME)
    print("pandas", pandas.__version__, frame.dtypes.to_dict())
    frame.to_parquet(out / "pandas.parquet")

    polars.DataFrame(columns(), strict=False).write_parquet(out / "polars.parquet")
    datasets.Dataset.from_dict(columns()).to_parquet(out / "datasets.parquet")

    table = pyarrow.table(
        {
            "text": pyarrow.array(TEXTS, pyarrow.large_string()),
            "lang": pyarrow.array(LANGUAGES).dictionary_encode(),
            "f32": pyarrow.array([0.1, 1.5, None, 2.0, 1e30], pyarrow.float32()),
            "f16": pyarrow.array([1.5] * 5, pyarrow.float16()),
            "u64": pyarrow.array([2**64 - 1, 0, 1, 2, 3], pyarrow.uint64()),
            "price": pyarrow.array([decimal.Decimal("-1.25")] * 5, pyarrow.decimal128(10, 2)),
            "day": pyarrow.array([datetime.date(1969, 12, 31)] * 5),
            "hour": pyarrow.array([datetime.time(3, 4, 5)] * 5, pyarrow.time64("us")),
            "at": pyarrow.array([TIME] * 5, pyarrow.timestamp("ms")),
            "raw": pyarrow.array([b"\xff", b"ok", None, b"", b"x"], pyarrow.binary()),
            "tags": pyarrow.array([["a", None], [], None, ["b"], ["c", "d"]], pyarrow.list_(pyarrow.string())),
            "pairs": pyarrow.array([[("k", 1)]] * 5, pyarrow.map_(pyarrow.string(), pyarrow.int8())),
            "nested": pyarrow.array([{"a": {"b": [True, None]}}] * 5),
        }
    )
    for compression in ("none", "snappy", "gzip", "zstd"):
        # Two row groups, and pages of version 2 for one of them.
        pyarrow.parquet.write_table(
            table if compression == "zstd" else table.select(["text", "lang", "tags"]),
            out / f"pyarrow-{compression}.parquet",
            compression=compression,
            row_group_size=3,
            data_page_version="2.0" if compression == "zstd" else "1.0",
        )
    for compression in ("brotli", "lz4"):
        pyarrow.parquet.write_table(table.select(["text"]), out / f"pyarrow-{compression}.parquet", compression=compression)
    pyarrow.parquet.write_table(
        table.select(["text", "tags"]),
        out / "pyarrow-delta.parquet",
        compression="none",
        use_dictionary=False,
        column_encoding={"text": "DELTA_BYTE_ARRAY", "tags.list.element": "DELTA_LENGTH_BYTE_ARRAY"},
    )
    print("pyarrow", pyarrow.__version__, "polars", polars.__version__, "datasets", datasets.__version__)
    for path in sorted(out.glob("*.parquet")):
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
