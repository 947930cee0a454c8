"""Transfer: which way of training leaves features that serve classes which were not trained on?

Five arms: cross-entropy with a linear and with a fixed ETF head, which collapse classes to points; SupCon, which does
so by other means; Spread and a nearest-neighbor entropy term, which hold against it. What decides is a logistic probe
on the held-out classes; rates and knobs are chosen on the hold-out of the seen ones, and nothing is tuned by transfer.

A contrastive loss alone leaves the head untrained, so SupCon, Spread and the entropy term are added to cross-entropy:
every arm is a classifier, tuned as such, and its features have both gradients. Frozen features are read by probes,
neighbors and class centers; the backbone is also fine-tuned, whole, after a probe, and one layer of it.

By default scikit-learn's digits, 7 seen and 3 held out, 3 seeds, 2 draws of the frame: some two minutes on 2 CPU
cores. Your own images: --data imagefolder:PATH --set data.held_out_classes=N, or --transfer-data imagefolder:OTHER.
--set protocol.fine_tuning=None leaves out the fine-tuning. What we found: benchmarks/results/.
"""

from dataclasses import replace
from pathlib import Path

from nc_tools.data import DataConfig
from nc_tools.experiment import ModelConfig, Protocol, RunConfig, run_recipe
from nc_tools.heads import ETFHead, LinearHead
from nc_tools.losses import CrossEntropyLoss, FeatureEntropyLoss, SpreadLoss, SupConLoss, WeightedSumLoss, term
from nc_tools.spec import spec
from nc_tools.training import TrainConfig
from nc_tools.transfer import FineTuning

BASE = RunConfig(
    data=DataConfig("digits", held_out_classes=3),
    head=spec(LinearHead),
    loss=spec(CrossEntropyLoss),
    model=ModelConfig(name="conv", width=8),
    training=TrainConfig(epochs=20, batch_size=64),
)
CE = term(1.0, spec(CrossEntropyLoss))

ARMS = {
    "linear": BASE,  # the baseline: the others pair against it
    "etf": replace(BASE, head=spec(ETFHead)),
    "supcon": replace(BASE, loss=spec(WeightedSumLoss, terms=(CE, term(1.0, spec(SupConLoss))))),
    "spread": replace(BASE, loss=spec(WeightedSumLoss, terms=(CE, term(1.0, spec(SpreadLoss))))),
    "entropy": replace(BASE, loss=spec(WeightedSumLoss, terms=(CE, term(0.05, spec(FeatureEntropyLoss))))),  # control
}

PROTOCOL = Protocol(
    seeds=(0, 1, 2), draws=2, primary="transfer/probe/accuracy", fine_tuning=FineTuning(), rank_layers=True
)

if __name__ == "__main__":
    run_recipe(ARMS, name=Path(__file__).stem, question=__doc__, protocol=PROTOCOL)
