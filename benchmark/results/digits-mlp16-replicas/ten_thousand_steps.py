"""Train posteriors of deep standard MLPs for 10,000 steps, as long as Lim et al. 2024 (Table 2), on one core.

From the repository's root:

    python benchmark/results/digits-mlp16-replicas/ten_thousand_steps.py zoos/digits-mlp16-replicas
"""

import sys
from pathlib import Path

from benchmark.findings import write_findings
from benchmark.inference.variational import Settings
from benchmark.phenomena.bayesian import NETWORKS, Judge, train_posteriors
from zoo.opening import open_zoo
from zoo.recipes.recipe import Recipe

zoo = open_zoo(sys.argv[1])
judge = Judge(zoo, "standard", Recipe.of(zoo).load_data(), list(range(NETWORKS)))
finding = train_posteriors(judge, "low_rank", Settings(steps=10_000), tell=print)
print(finding.headline())
write_findings(Path(__file__).with_suffix(".json"), "bayesian", [finding])
