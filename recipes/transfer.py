"""Transfer: which training method gives features that work for classes that were not trained on?

Five arms: cross-entropy with a linear head and with a fixed ETF head, which collapse each class to a point; SupCon,
which does so by another loss; Spread and a nearest-neighbor entropy term, which work against collapse. The primary
metric is the accuracy of a logistic probe on the held-out classes. Learning rates and tuned parameters are chosen on
the hold-out of the trained classes; nothing is tuned by transfer.

A contrastive loss alone does not train the head, so SupCon, Spread and the entropy term are added to cross-entropy:
every arm is a classifier, tuned as such, and both losses train its features. Frozen features are classified by probes,
nearest neighbors and class centers. The backbone is also fine-tuned: all of it, all of it after a probe, and one layer
of it.

The default data are scikit-learn's digits, 7 classes to train on and 3 held out, with 5 seeds, each with a fixed frame
of its own: about two minutes on 2 CPU cores. For your own images give --data imagefolder:PATH --set
data.held_out_classes=N, or --transfer-data imagefolder:OTHER. --set protocol.fine_tuning=None leaves out the
fine-tuning. Results are in benchmarks/results/.
"""

from dataclasses import replace
from pathlib import Path

from nc_tools.data import DataConfig
from nc_tools.experiment import ModelConfig, Protocol, RunConfig, run_recipe
from nc_tools.heads import ETFHead, LinearHead
from nc_tools.losses import CrossEntropyLoss, FeatureEntropyLoss, SpreadLoss, SupConLoss, WeightedSumLoss, term
from nc_tools.specs import spec
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
    "linear": BASE,  # the baseline, against which the others are compared
    "etf": replace(BASE, head=spec(ETFHead)),
    "supcon": replace(BASE, loss=spec(WeightedSumLoss, terms=(CE, term(1.0, spec(SupConLoss))))),
    "spread": replace(BASE, loss=spec(WeightedSumLoss, terms=(CE, term(1.0, spec(SpreadLoss))))),
    "entropy": replace(BASE, loss=spec(WeightedSumLoss, terms=(CE, term(0.05, spec(FeatureEntropyLoss))))),  # control
}

PROTOCOL = Protocol(primary="transfer/probe/accuracy", fine_tuning=FineTuning(), rank_layers=True)

if __name__ == "__main__":
    run_recipe(ARMS, name=Path(__file__).stem, question=__doc__, protocol=PROTOCOL)
