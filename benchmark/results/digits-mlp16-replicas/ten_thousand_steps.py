"""Train posteriors of deep standard MLPs for 10,000 steps, as long as Lim et al. 2024 (Table 2), on one core.

From the repository's root:

    python benchmark/results/digits-mlp16-replicas/ten_thousand_steps.py zoos/digits-mlp16-replicas
"""

import sys
from pathlib import Path

from benchmark.findings import write_findings
from benchmark.inference.evaluator import Evaluator
from benchmark.inference.variational import Settings
from benchmark.phenomena.bayesian import NETWORKS, train_posteriors
from zoo.opening import open_zoo
from zoo.recipes.recipe import Recipe

zoo = open_zoo(sys.argv[1])
evaluator = Evaluator(zoo["standard"][:NETWORKS], Recipe.of(zoo).load_data())
finding = train_posteriors(evaluator, "low_rank", Settings(steps=10_000), log=print)
print(finding.headline())
write_findings(Path(__file__).with_suffix(".json"), "bayesian", [finding])
