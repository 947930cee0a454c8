"""The options of the commands of nc-tools."""

from __future__ import annotations

import argparse
from pathlib import Path

from nc_tools._support.reading_flags import add_reading_flags


def _add_model(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("model").add_argument
    add("--model", metavar="MODEL", help="timm:NAME, torchvision:NAME, hf:ID_OR_FOLDER, or package.module:function")
    add("--weights", metavar="WEIGHTS", help="'pretrained', or a file of weights")
    add("--image-size", type=int, metavar="PIXELS", help="width and height of the network's images (default: its own)")


def _add_labels(command: argparse.ArgumentParser, *, corrections: str) -> argparse._ArgumentGroup:
    group = command.add_argument_group("data")
    add = group.add_argument
    add("--labels", metavar="FILE:COLUMN", help="take the training labels from this column of a table")
    add("--clean", metavar="FILE:COLUMN", help="the true training labels, for measures only; 'data' for those of DATA")
    add("--corrections", metavar="FILE", help=corrections)
    return group


def _add_views(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--views",
        type=int,
        default=1,
        metavar="N",
        help="views of each training image: itself and N - 1 random crops and flips, of which each epoch takes one; "
        "features take N times as long (default: 1)",
    )


def _add_runs(command: argparse.ArgumentParser, out: str) -> None:
    add = command.add_argument_group("how it runs").add_argument
    add(
        "--out",
        type=Path,
        default=Path(out),
        metavar="FOLDER",
        help="folder for runs and report (default: %(default)s)",
    )
    add("--cache", type=Path, metavar="FOLDER", help="folder of the feature cache (default: OUT/cache)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ..., or auto: a GPU if there is one (default: auto)")
    add("--workers", type=int, metavar="N", help="seeds made in parallel (default: one for each CPU core; 1 on a GPU)")
    add("--tracking-uri", metavar="ADDRESS", help="MLflow server or database, or none to leave the runs on disk "
        "(default: a store in the output folder)")  # fmt: skip


def _add_comparison(command: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = command.add_argument_group("comparison")
    add = group.add_argument
    add("--decide", choices=("balanced_accuracy", "accuracy"), default="balanced_accuracy", help="metric that decides "
        "(default: %(default)s)")  # fmt: skip
    add("--seeds", default="0-9", help="seeds, such as 0-19 or 0,2,5 (default: %(default)s)")
    add("--epochs", type=int, metavar="N", help="epochs of each head (default: 30, or more for at least 600 steps)")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="set any field of the arms or the protocol, "
        "such as protocol.max_extensions=0; may be given several times")  # fmt: skip
    return group


def add_choose_options(choose: argparse.ArgumentParser) -> None:
    """Add the options of `nc-tools choose`."""
    choose.add_argument("data", metavar="DATA", help="folder of images, embedding file, or data source")
    _add_model(choose)
    decisions = "a table of decisions about some labels: keep, relabel or exclude"
    data = _add_labels(choose, corrections=decisions)
    _add_views(data)
    add = data.add_argument
    add("--noisy", action="store_true", help="some labels are wrong: compare losses for that too (implied by --labels)")
    add("--imbalance", type=float, metavar="RATIO", help="cut the training set to a long tail: the largest class has "
        "RATIO times the images of the smallest (default: use all images)")  # fmt: skip
    add("--ood-near", metavar="DATA", help="images of other classes that are close to these, for detection scores")
    add("--ood-far", metavar="DATA", help="images that are far from the classes, for detection scores")
    add_reading_flags(choose)
    add = _add_comparison(choose).add_argument
    add("--arms", metavar="A,B,...", help="arms to compare, or 'all' (default: those that suit the data)")
    _add_runs(choose, "outputs/choose")


def add_compare_options(compare: argparse.ArgumentParser) -> None:
    """Add the options of `nc-tools compare`."""
    add = compare.add_argument
    add("sources", nargs="+", metavar="SOURCE", help="output folder of a recipe or of your own training loop, folder "
        "of one run, mlflow:EXPERIMENT, or mlflow:RUN_ID")  # fmt: skip
    add("--baseline", metavar="ARM", help="arm that the other arms are compared with (default: the experiment's own); "
        "its report stands beside the other one, in report/against-ARM")  # fmt: skip
    add("--details", action="store_true", help="print tests, detectable differences and variances too, which the "
        "report holds in any case")  # fmt: skip
    add("--watch", action="store_true", help="print the table again whenever a run has ended, until Ctrl-C")
    add("--out", type=Path, metavar="FOLDER", help="write the report to FOLDER/report (default: to the output folder, "
        "or outputs/compare for several sources)")  # fmt: skip
    add("--filter", dest="filter_string", metavar="TEXT", help="which runs of mlflow:EXPERIMENT are meant, in MLflow's "
        "search syntax, such as \"tags.`nc.arm` = 'etf'\"")  # fmt: skip
    add("--tracking-uri", metavar="ADDRESS", help="MLflow server or database (default: MLFLOW_TRACKING_URI, or else "
        "mlflow.db in the output folder), or none")  # fmt: skip


def add_gain_options(gain: argparse.ArgumentParser) -> None:
    """Add the options of `nc-tools gain`."""
    gain.add_argument("data", metavar="DATA", help="folder of images, embedding file with ids, or data source")
    _add_model(gain)
    decisions = "your decisions about some labels (decisions.csv of the review page): keep, relabel or exclude"
    _add_views(_add_labels(gain, corrections=decisions))
    add_reading_flags(gain)
    method = "method to train, one of the arms of nc-tools choose (default: a linear head)"
    _add_comparison(gain).add_argument("--arm", metavar="ARM", help=method)
    _add_runs(gain, "outputs/gain")


def add_data_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `nc-tools data`."""
    add = command.add_argument
    add("source", metavar="SOURCE", help="a folder, a table, or a source as for --data of a recipe, such as table:FILE")
    add("--read", action="store_true", help="open every image, which finds damaged files and copies")
    add(
        "--write",
        type=Path,
        metavar="FOLDER",
        help="copy the images to FOLDER/train and FOLDER/test, one folder for each class, with a table of all of them",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="overrule what was found, such as data.table.group_column=patient or data.class_folder=last",
    )
    add_reading_flags(command)


def add_measure_options(measure: argparse.ArgumentParser) -> None:
    """Add the options of `nc-tools measure`."""
    add = measure.add_argument
    add(
        "--model",
        required=True,
        metavar="MODEL",
        help="the folder of a run, torchvision:NAME, timm:NAME, or package.module:function that returns a model",
    )
    add(
        "--data",
        metavar="DATA",
        help="imagefolder:PATH, digits or cifar10[:FOLDER] (default: the data that the run was trained on)",
    )
    add(
        "--weights",
        metavar="FILE",
        help="safetensors file with the model's weights, or 'random' for an untrained model",
    )
    add(
        "--modules",
        metavar="A,B",
        help="modules of your own heads and losses, if the run was made with some; they are imported",
    )
    add(
        "--labels",
        metavar="FILE:COLUMN",
        help="CSV file and column with the noisy training labels; the labels of --data count as the true ones",
    )
    add("--layers", metavar="A,B", help="layers to measure, or 'none' (default: the model's stages)")
    add("--head", metavar="LAYER", help="dotted name of the classifier layer (default: found automatically)")
    add("--only", choices=("train", "test"), help="measure only the training or only the test images")
    add("--per-class", type=int, metavar="N", help="use at most N images of each class in each set")
    add(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help="width and height of the images (default: the model's, or else the data's)",
    )
    add("--mean", type=_channel_values, metavar="R,G,B", help="mean of each image channel in training, from 0 to 1")
    add(
        "--std",
        type=_channel_values,
        metavar="R,G,B",
        help="standard deviation of each image channel in training, from 0 to 1",
    )
    add("--batch-size", type=int, default=256, metavar="N", help="images in a batch (default: 256)")
    add("--device", metavar="DEVICE", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    add("--skip-unreadable", action="store_true", help="leave out images that cannot be read instead of stopping")
    add("--out", type=Path, metavar="FOLDER", help="folder of the report (default: outputs/measure/MODEL)")


def add_suspects_options(suspects: argparse.ArgumentParser) -> None:
    """Add the options of `nc-tools suspects`."""
    add = suspects.add_argument
    add("data", metavar="DATA", help="file of embeddings, folder of images, or data source")
    _add_model(suspects)
    add_reading_flags(suspects)
    add(
        "--labels",
        metavar="FILE:COLUMN[,COLUMN...]",
        help="table with a column of paths (the ids) and the labels to check; further columns are labels of other "
        "annotators, whose disagreement counts too",
    )
    add("--part", choices=("train", "test", "all"), default="train", help="which labels to check (default: train)")
    add("--folds", type=int, default=5, metavar="N", help="folds of the model that judges the labels (default: 5)")
    add("--seed", type=int, default=0, metavar="N", help="draws the folds (default: 0)")
    add("--rows", type=int, metavar="N", help="largest number of rows in suspects.csv (default: all)")
    add(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="folder of the images that the ids of an embedding file name: also writes review.html, a page to decide "
        "about the labels (written without it if DATA are images)",
    )
    add("--review", type=int, metavar="N", help="suspect labels on that page (default: 400)")
    add("--out", type=Path, metavar="FOLDER", help="folder of the files (default: outputs/suspects/NAME)")
    add("--cache", type=Path, metavar="FOLDER", help="folder of the feature cache of images (default: OUT/cache)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ..., or auto: a GPU if there is one (default: auto)")


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, metavar="RUN", help="folder of a final run, in OUTPUT_FOLDER/runs/")
    command.add_argument(
        "--modules",
        metavar="A,B",
        help="modules of your own heads and networks, if the run was made with some; they are imported",
    )


def add_predict_options(predict: argparse.ArgumentParser) -> None:
    """Add the options of `nc-tools predict`."""
    _add_run(predict)
    add = predict.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder of images, with its subfolders, or one image")
    add("--out", type=Path, default=Path("predictions.csv"), metavar="FILE", help="CSV file (default: %(default)s)")
    add("--top", type=int, default=3, metavar="K", help="number of classes to list for each image (default: 3)")
    add("--device", metavar="DEVICE", help="cpu, cuda or cuda:N (default: a GPU if there is one)")


def add_export_options(export: argparse.ArgumentParser) -> None:
    """Add the options of `nc-tools export`."""
    _add_run(export)
    add = export.add_argument
    add("--to", required=True, choices=("onnx", "torch-export", "safetensors", "mlflow"), help="format")
    add("--out", type=Path, metavar="FOLDER", help="new folder (default: exports/RUN-FORMAT)")
    add("--data-licence", metavar="TEXT", help="licence of the training images, for the model card")
    add("--intended-use", metavar="TEXT", help="what the model is for, for the model card")
    add("--register", metavar="NAME", help="with --to mlflow: register the model under this name")
    add("--tracking-uri", metavar="ADDRESS", help="MLflow server or database to register the model in (default: "
        "MLFLOW_TRACKING_URI, or else mlflow.db in the folder)")  # fmt: skip


def _channel_values(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers such as 0.5,0.4,0.4, got {text!r}") from None
