#!/usr/bin/env bash
# datasets 5.2.0, pyarrow 26.0.1: one Parquet split without rows makes a whole configuration unreadable.
#
# Expected: three Parquet files as the splits of one configuration, two of them without rows, load as a DatasetDict
# whose empty splits have num_rows 0; the schema is in the files.
# Behaviour: it depends on how the empty file was written. `write_table` of an empty table leaves one row group of 0
# rows: then no split loads, not even `split="train"` of a file that has rows, and a streamed empty split fails, too
# (ArrowInvalid: the size of the first row group becomes the size of a batch). A writer that is closed without a table
# leaves no row group: then `split="train"` loads, but the configuration as a whole and the empty splits do not
# (ValueError), while a streamed empty split is an empty iterator. Whoever writes splits by a random draw has to leave
# out the file of a split that comes out empty.
# Output seen: at the end of this script, which fails if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "datasets==5.2.0" "pyarrow==26.0.1"
cd "$folder"
mkdir data
cat > data/README.md <<'CARD'
---
configs:
- config_name: default
  data_files:
  - {split: train, path: train.parquet}
  - {split: validation, path: validation.parquet}
  - {split: test, path: test.parquet}
---
CARD
cat > run.py <<'PY'
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_dataset

SCHEMA = pa.schema({"x": pa.int64()})


def write(split, rows, group):
    with pq.ParquetWriter(f"data/{split}.parquet", SCHEMA) as writer:
        if rows or group:
            writer.write_table(pa.table({"x": pa.array(range(rows), pa.int64())}))


def attempt(what, load):
    try:
        print(" ", what, load())
    except Exception as error:
        first = error
        while first.__cause__ is not None:
            first = first.__cause__
        print(" ", what, type(error).__name__, "from", type(first).__name__, str(first).splitlines()[0])


for how, group in (("one row group of 0 rows", True), ("no row group", False)):
    for split, rows in (("train", 2), ("validation", 0), ("test", 0)):
        write(split, rows, group)
    print(how)
    cache = {"cache_dir": f"cache-{group}"}
    attempt("all:", lambda: {name: part.num_rows for name, part in load_dataset("data", **cache).items()})
    attempt("train:", lambda: load_dataset("data", split="train", **cache).num_rows)
    attempt("validation:", lambda: load_dataset("data", split="validation", **cache).num_rows)
    attempt("validation, streamed:", lambda: len(list(load_dataset("data", split="validation", streaming=True))))
PY
HF_HOME="$folder/home" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 \
    "$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat seen.txt
diff seen.txt - <<'SEEN'
one row group of 0 rows
  all: DatasetGenerationError from ArrowInvalid BatchSize must be greater than 0, got 0
  train: DatasetGenerationError from ArrowInvalid BatchSize must be greater than 0, got 0
  validation: DatasetGenerationError from ArrowInvalid BatchSize must be greater than 0, got 0
  validation, streamed: ArrowInvalid from ArrowInvalid BatchSize must be greater than 0, got 0
no row group
  all: ValueError from ValueError Instruction "validation" corresponds to no data!
  train: 2
  validation: ValueError from ValueError Instruction "validation" corresponds to no data!
  validation, streamed: 0
SEEN
