"""Wrong labels found from features alone, beside cleanlab on the same features: AUROC, precision, matrix, seconds.

    python benchmarks/suspects.py FEATURES.npz --given worse,aggre --peer PATH
    python benchmarks/suspects.py --size 50000x512x10 --peer PATH

FEATURES holds ``features``, ``clean`` (the true labels, used for measuring only) and one array of given labels for
each name in --given; --annotators names arrays of further labels. PATH is a folder with the package cleanlab; without
it only our figures are printed. cleanlab gets the predictions of its default model, scikit-learn's logistic regression,
from its default five folds, and in further lines our out-of-fold logits. --size draws normal features with 20 %
symmetric noise. Times are processor seconds with --threads 1, else seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nc_tools.metrics import confident_transition, counted_transition, precision_at, transition_error
from nc_tools.ood import separation
from nc_tools.suspects import find_suspects, out_of_fold_logits, standardized

CLOCK = time.perf_counter


def drawn(text: str) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return normal features (N, D), true labels (N,), and given labels of which 20 % are wrong.

    Args:
        text: The sizes, "NxDxK".
    """
    count, width, classes = map(int, text.split("x"))
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(count) % classes
    means = torch.randn(classes, width, generator=generator)
    features = means[true] + 4 * torch.randn(count, width, generator=generator)
    wrong = torch.rand(count, generator=generator) < 0.2
    other = (true + torch.randint(1, classes, (count,), generator=generator)) % classes
    return features, true, {"drawn": torch.where(wrong, other, true)}


def read(path: Path, names: list[str]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    with np.load(path, allow_pickle=False) as file:
        given = {name: torch.from_numpy(file[name]).long() for name in names}
        return torch.from_numpy(file["features"]).float(), torch.from_numpy(file["clean"]).long(), given


def auroc(suspicion: Tensor, wrong: Tensor) -> float:
    """Return the probability that a wrong label is more suspect than a right one."""
    return separation(suspicion[wrong].double(), suspicion[~wrong].double())["auroc"]


def line(name: str, suspicion: Tensor, wrong: Tensor, seconds: float) -> str:
    order = suspicion.argsort(descending=True, stable=True)
    found = precision_at(order, wrong) or 0.0
    return f"  {name:<44} AUROC {auroc(suspicion, wrong):.3f}  precision at n_wrong {found:.3f}  {seconds:7.1f} s"


def places(order: Tensor) -> Tensor:
    """Return minus the rank of each sample in an order, so that the first is the most suspect."""
    return -order.argsort().double()


def theirs(features: Tensor, given: Tensor) -> tuple[np.ndarray, float]:
    """Return the out-of-fold probabilities (N, K) of cleanlab's default model, and the seconds that they take."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    start = CLOCK()
    x = standardized(features).numpy()
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    probabilities = cross_val_predict(LogisticRegression(), x, given.numpy(), cv=folds, method="predict_proba")
    return probabilities, CLOCK() - start


def cleanlab_lines(name: str, probabilities: np.ndarray, given: Tensor, true: Tensor, seconds: float) -> None:
    from cleanlab.count import (
        compute_confident_joint,
        estimate_latent,
        estimate_py_noise_matrices_and_cv_pred_proba,  # noqa: F401 (fails if the installation is incomplete)
        num_label_issues,
    )
    from cleanlab.rank import get_label_quality_scores

    wrong, labels = given != true, given.numpy()
    for kind, adjusted in (("self_confidence", False), ("self_confidence", True), ("normalized_margin", False)):
        start = CLOCK()
        quality = get_label_quality_scores(labels, probabilities, method=kind, adjust_pred_probs=adjusted)
        spent = seconds + CLOCK() - start
        text = f"cleanlab {kind}{' adjusted' if adjusted else ''}, {name}"
        print(line(text, torch.from_numpy(-quality), wrong, spent), flush=True)
    noise = estimate_latent(compute_confident_joint(labels, probabilities), labels)[1]
    counted = counted_transition(true, given, probabilities.shape[1])
    error = transition_error(torch.from_numpy(np.asarray(noise).T), counted)
    share = num_label_issues(labels, probabilities) / len(labels)
    print(f"  {'cleanlab matrix, ' + name:<44} error {error:.3f}  share wrong {share:.3f}")


def one(features: Tensor, true: Tensor, name: str, given: Tensor, annotations: Tensor | None, *, peer: bool) -> None:
    wrong, classes = given != true, int(true.max()) + 1
    print(f"{name}: N {len(true):,}, D {features.shape[1]}, K {classes}, {float(wrong.double().mean()):.3f} wrong")
    start = CLOCK()
    found = find_suspects(features, given, classes)
    seconds = CLOCK() - start
    print(line("ours, two ranks", places(found.order), wrong, seconds), flush=True)
    print(line("ours, loss alone", found.suspects.loss, wrong, seconds))
    print(line("ours, distance alone", found.suspects.distance, wrong, seconds))
    if annotations is not None:
        three = find_suspects(features, given, classes, annotations=annotations)
        assert three.disagreement_rank is not None
        print(line("ours, three ranks", places(three.order), wrong, seconds))
        print(line("disagreement alone", -three.disagreement_rank, wrong, 0.0))
    counted = counted_transition(true, given, classes)
    logits, strength = out_of_fold_logits(standardized(features), given, classes)
    error = transition_error(confident_transition(logits, given), counted)
    share = int(found.wrong_by_class.sum()) / len(true)
    print(f"  {'ours, matrix':<44} error {error:.3f}  share wrong {share:.3f}  (C = {strength:g})")
    checked = found.likely_wrong
    right = float((found.suspects.suggested == true)[checked & wrong].double().mean())
    precision = float(wrong[checked].double().mean())
    recall = float(checked[wrong].double().mean())
    print(f"  {'ours, check = yes':<44} {int(checked.sum())} rows, precision {precision:.3f}, recall {recall:.3f}, "
          f"suggested right {right:.3f}")  # fmt: skip
    if peer:
        cleanlab_lines("our logits", logits.double().softmax(1).numpy(), given, true, seconds)
        probabilities, spent = theirs(features, given)
        cleanlab_lines("its own model", probabilities, given, true, spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, nargs="?", metavar="FEATURES")
    parser.add_argument("--given", default="worse", metavar="A,B")
    parser.add_argument("--annotators", metavar="A,B", help="arrays of further labels")
    parser.add_argument("--size", metavar="NxDxK", help="draw features instead")
    parser.add_argument("--peer", type=Path, metavar="PATH", help="folder that holds cleanlab")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if (args.features is None) == (args.size is None):
        parser.error("give either FEATURES or --size")
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.threads == 1:
        global CLOCK
        CLOCK = time.process_time
    if args.peer is not None:
        if not (args.peer / "cleanlab").is_dir():
            parser.error(f"--peer must be a folder that holds cleanlab, got {args.peer}: unpack the package there")
        sys.path.append(str(args.peer))
    names = args.given.split(",")
    features, true, labels = drawn(args.size) if args.size else read(args.features, names)
    people = None
    if args.annotators:
        others = read(args.features, args.annotators.split(","))[2]
        people = torch.stack(list(others.values()), dim=1)
    for name, given in labels.items():
        one(features, true, name, given, people, peer=args.peer is not None)


if __name__ == "__main__":
    main()
