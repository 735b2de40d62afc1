#!/usr/bin/env bash
# datasets 5.2.0: of two local folders of one name with the same card, the second gives the data of the first.
#
# Expected: `load_dataset("b/data")` gives what is in b/data, whatever was loaded from a/data before; without a card it
# does so, for the cache knows the files by their paths and times of change.
# Behaviour: with a README.md whose head names the files (`configs`), the key of the cache is made of the folder's last
# name and that head, not of the files. Two exports of the same form, say of two seeds, in folders of the same name have
# both in common: the second `load_dataset` silently returns the rows of the first. A head that differs, for instance by
# a digest of the content in a `description`, keeps them apart.
# Output seen: at the end of this script, which fails if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "datasets==5.2.0" "pyarrow==26.0.1"
cd "$folder"
cat > run.py <<'PY'
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_dataset

CARD = """---
configs:
- config_name: default
{description}  data_files:
  - {{split: train, path: train.parquet}}
---
"""


def numbers(case, place, first, card):
    data = Path(case, place, "data")
    data.mkdir(parents=True)
    pq.write_table(pa.table({"x": pa.array(range(first, first + 3), pa.int64())}), data / "train.parquet")
    if card is not None:
        (data / "README.md").write_text(CARD.format(description=card))
    return load_dataset(str(data), split="train", cache_dir=f"cache-{case}")["x"][:]


for case, cards in {
    "no card": (None, None),
    "the same card": ("", ""),
    "cards that differ": ("  description: first\n", "  description: second\n"),
}.items():
    print(f"{case}:", numbers(case, "a", 0, cards[0]), numbers(case, "b", 100, cards[1]))
PY
HF_HOME="$folder/home" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 \
    "$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat seen.txt
diff seen.txt - <<'SEEN'
no card: [0, 1, 2] [100, 101, 102]
the same card: [0, 1, 2] [0, 1, 2]
cards that differ: [0, 1, 2] [100, 101, 102]
SEEN
