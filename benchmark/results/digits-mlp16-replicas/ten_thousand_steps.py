"""Train posteriors of deep standard MLPs for 10,000 steps, as long as Lim et al. 2024 (Table 2), on one core.

From the repository's root:

    python benchmark/results/digits-mlp16-replicas/ten_thousand_steps.py zoos/digits-mlp16-replicas
"""

import json
import sys
from pathlib import Path

from benchmark.evidence import evidence
from benchmark.findings import to_json
from benchmark.inference.variational import Settings
from benchmark.phenomena.bayesian import NETWORKS, Judge, train_posteriors
from zoo.manifest import write_whole
from zoo.store import open_zoo

zoo = open_zoo(sys.argv[1])
judge = Judge(zoo, "standard", zoo.recipe.load_data(), list(range(NETWORKS)))
finding = train_posteriors(judge, "low_rank", Settings(steps=10_000), tell=print)
print(finding.headline())
found = {"made": evidence(), "bayesian": to_json([finding])}
write_whole(Path(__file__).with_suffix(".json"), json.dumps(found, separators=(",", ":")).encode())
