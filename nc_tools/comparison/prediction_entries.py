"""The metrics of a model's predictions: accuracy, calibration, and how well it knows which predictions are wrong."""

from __future__ import annotations

from dataclasses import replace

from nc_tools.comparison.metric_entry import CLASS_GROUPS, MetricEntry, fraction, in_group

DEFAULT_PRIMARY = "test/gen/balanced_accuracy"
NLL = "test/cal/nll"
ECE = "test/cal/ece"
ECE_SCALED = "test/cal_ts/ece"

_SCORES = (
    ("balanced_accuracy", "balanced accuracy", "Mean of the accuracies of the classes: every class counts the same."),
    ("accuracy", "accuracy", "Share of right predictions."),
    ("macro_f1", "macro F1", "Mean over classes of the harmonic mean of precision and recall."),
    ("worst_class", "worst class", "Accuracy of the class that has the lowest."),
)
_GROUPS = (
    ("many", "many-shot accuracy", "Classes with more than 100 training images."),
    ("medium", "medium-shot accuracy", "Classes with 20 to 100 training images."),
    ("few", "few-shot accuracy", "Classes with fewer than 20 training images."),
    ("head", "head third", "Accuracy of the most frequent third of the classes."),
    ("middle", "middle third", "Accuracy of the middle third of the classes by frequency."),
    ("tail", "tail third", "Accuracy of the rarest third of the classes."),
)
_COLUMNS = {
    "balanced_accuracy": ("bal. acc.", "balanced accuracy on the test set", ""),
    "few": ("few", "few-shot accuracy", ""),
    "tail": ("tail", "tail third", "test/gen/few"),
}
_SCALINGS = (
    ("cal_ts", "after temperature"),
    ("cal_vs", "after vector scaling"),
    ("cal_ds", "after Dirichlet scaling"),
    ("cal_oracle", "after oracle temperature"),
)
_ERRORS = (
    MetricEntry("*/cal/nll", "NLL", "lower", "", 3, "NLL", "negative log-likelihood on the test set", forest=True,
                help="Mean of -log p of the true class: accuracy and calibration together."),
    MetricEntry("*/cal/brier", "Brier score", "lower", "", 3,
                help="Squared distance of the probabilities from the true class, summed over classes."),
    MetricEntry("*/cal/ece", "ECE", "lower", "points", 1, "ECE", "expected calibration error in points",
                then=ECE_SCALED, help="Mean distance of confidence and accuracy in 15 bins of equal width."),
    fraction("*/cal/ece_mass", "ECE (equal mass)", "lower", "The same in bins of equally many images."),
)  # fmt: skip
_FURTHER_ERRORS = (
    fraction("*/cal/ece_debiased", "ECE (debiased)", "lower",
           "Root of the squared calibration error without the upward bias of bins: 0 for a calibrated model."),
    fraction("*/cal/ece_classwise", "ECE (class-wise)", "lower",
           "Calibration error of each class's probability, averaged over classes. Small by itself for many classes."),
    fraction("*/cal/ece_top_label", "ECE (top label)", "lower",
           "Calibration error within each predicted class, so that classes cannot cancel each other."),
    MetricEntry("*/cal/brier_reliability", "Brier score, reliability", "lower", "", 4,
                help="The part of the Brier score that calibration can remove."),
    MetricEntry("*/cal/brier_resolution", "Brier score, resolution", "higher", "", 4,
                help="How far predictions differ from the class frequencies, in the right direction."),
    MetricEntry("*/cal/brier_uncertainty", "Brier score, uncertainty", "neither", "", 4,
                help="The part of the Brier score that depends on the labels alone."),
    fraction("*/cal/aurc", "AURC", "lower",
           "Mean error over all shares of images that are kept, the surest first: 0 if every error comes last."),
    fraction("*/cal/aurc_excess", "excess AURC", "lower", "AURC minus that of the same errors in the best order."),
)  # fmt: skip


_OF_GROUP = (
    "Of the images whose true class is in this group. Compare it between models, not with zero: the images were "
    "selected by their label."
)


def _scores() -> tuple[MetricEntry, ...]:
    entries = []
    for name, label, text in (*_SCORES, *_GROUPS):
        column, meaning, instead_of = _COLUMNS.get(name, ("", "", ""))
        entry = fraction(f"*/gen/{name}", label, "higher", text)
        entries.append(replace(entry, column=column, meaning=meaning, instead_of=instead_of))
    text = "Share of images that one threshold for all classes decides rightly: the true class above it, no other."
    entries.append(fraction("*/gen/uniform_accuracy", "uniform accuracy", "higher", text))
    entries += [
        fraction(f"*/gen_vs/{name}", f"{label} after vector scaling", "higher",
               "Vector scaling, fitted on the hold-out, may change the predicted class.")
        for name, label, _ in (*_SCORES, *_GROUPS)
    ]  # fmt: skip
    return tuple(entries)


def _scaled() -> tuple[MetricEntry, ...]:
    """Return the entries of the calibration errors after each kind of scaling."""
    entries = []
    for group, words in _SCALINGS:
        for entry in _ERRORS:
            name = entry.pattern.rpartition("/")[2]
            plain = replace(entry, column="", meaning="", then="", forest=group == "cal_ts" and name == "ece")
            entries.append(replace(plain, pattern=f"*/{group}/{name}", label=f"{entry.label} {words}"))
    return tuple(entries)


def _by_group() -> tuple[MetricEntry, ...]:
    """Return the entries of the calibration errors in each group of frequent or rare classes."""
    return tuple(
        replace(entry, pattern=f"*/cal_groups/*/{entry.pattern.rpartition('/')[2]}", label=f"{entry.label}, {{1}}",
                column="", meaning="", then="", forest=False, help=_OF_GROUP)
        for entry in _ERRORS
    )  # fmt: skip


_SETS = (
    ("coverage", "coverage", "Share of the sets that hold the true class; they were built to hold 90 %."),
    ("coverage_balanced", "coverage, mean of classes", "Every class counts the same."),
    ("coverage_worst", "coverage of the worst class", "Of the class that is covered least."),
)


def _sets() -> tuple[MetricEntry, ...]:
    """Return the entries of prediction sets and of the surest predictions, also by group of classes."""
    entries = [fraction(f"*/conformal/*/{name}", f"{{1}}, {label}", "higher", text) for name, label, text in _SETS]
    entries.append(fraction("*/conformal/*/classes_low", "{1}, classes covered below 80 %", "lower", "Of all classes."))
    entries.append(MetricEntry("*/conformal/*/size", "{1}, size", "lower", decimals=2, help="Mean number of classes."))
    entries.append(fraction("*/selective/accuracy", "surest 80 %, accuracy", "higher",
                            "Accuracy of the 80 % of the predictions with the largest probability."))  # fmt: skip
    for group, words in CLASS_GROUPS.items():
        entries += [
            fraction(f"*/conformal/*/coverage_{group}", f"{{1}}, coverage, {words}", "higher", ""),
            MetricEntry(f"*/conformal/*/size_{group}", f"{{1}}, size, {words}", "lower", decimals=2),
            fraction(f"*/selective/accuracy_{group}", f"surest 80 %, accuracy, {words}", "higher", ""),
            fraction(f"*/selective/kept_{group}", f"surest 80 %, share kept, {words}", "neither",
                     "How many predictions of the group are among the surest 80 %."),
        ]  # fmt: skip
    return tuple(entries)


PREDICTION_ENTRIES: tuple[MetricEntry, ...] = (
    *in_group("Accuracy", _scores()),
    *in_group("Training", (
        MetricEntry("*/loss", "loss", "lower", help="Mean over the epoch, with augmentation."),
        fraction("*/accuracy", "accuracy while training", "higher", "Mean over the epoch, with augmentation."),
        MetricEntry("*/lr", "learning rate"),
    )),
    *in_group("Calibration", (*_ERRORS, *_scaled(), *_FURTHER_ERRORS, *_by_group())),
    *in_group("Calibration", (
        MetricEntry("cal/temperature", "temperature",
                    help="Fitted on the hold-out; above 1 the model was overconfident there."),
        MetricEntry("cal/temperature_oracle", "oracle temperature",
                    help="Fitted on images outside the training subset, which a user would not have."),
    )),
    *in_group("Prediction sets and surest predictions", _sets()),
    *in_group("Accuracy under true labels", (
        fraction(f"*/gen_clean/{name}", f"{label} under true labels", "higher", text) for name, label, text in _SCORES
    )),
)  # fmt: skip
