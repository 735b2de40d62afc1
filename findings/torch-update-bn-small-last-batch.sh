#!/usr/bin/env bash
# torch 2.13.0: torch.optim.swa_utils.update_bn lets two examples count as much as two thousand.
#
# Expected: the documentation says that one pass over the data in the loader estimates the activation statistics. A
# DataLoader cuts 2,050 standard normal examples into batches of 2,048, so the running mean and variance of the first
# BatchNorm1d are those of 2,048 examples or more: the mean within .05 standard deviations of the data's, the variance
# within 5 %.
# Behaviour: every batch has the same weight, whatever its size. The last batch, of two examples (`drop_last` is False by
# default), makes up half of the statistics: the mean is off by up to .94 standard deviations, the variance by a factor
# of .5 to 4.7, both change with the batch size, and nothing warns. Batches of nearly equal size give the data's
# statistics.
# Output seen: at the end of this script, which fails if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "numpy==2.4.6"
cd "$folder"
cat > run.py <<'PY'
import torch
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

data = torch.randn(2050, 64, generator=torch.Generator().manual_seed(0))
for size in (2048, 1025):
    norm = nn.BatchNorm1d(64)
    batches = DataLoader(TensorDataset(data), batch_size=size)
    update_bn(batches, norm)
    off = ((norm.running_mean - data.mean(0)) / data.std(0)).abs().max()
    ratio = norm.running_var / data.var(0)
    print([len(x) for (x,) in batches], f"mean off by {off:.2f}, variance times {ratio.min():.2f} to {ratio.max():.2f}")
PY
"$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat seen.txt
diff seen.txt - <<'SEEN'
[2048, 2] mean off by 0.94, variance times 0.50 to 4.70
[1025, 1025] mean off by 0.00, variance times 1.00 to 1.00
SEEN
