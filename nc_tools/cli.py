"""The command-line program nc-tools; slow imports wait until a subcommand needs them, so that --help is fast."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nc_tools import __version__
from nc_tools._support.disk_full import is_disk_full
from nc_tools._support.printable import printable

EXAMPLES = """examples:
  nc-tools choose photos --model timm:resnet18 --weights pretrained    which head and loss, and the model to take home
  nc-tools choose embeddings.npz                                       the same on features of your own
  nc-tools compare outputs/long_tail                           print the table, write outputs/long_tail/report
  nc-tools compare outputs/long_tail --baseline linear_la      the same, with another baseline
  nc-tools measure --model torchvision:resnet18 --weights model.safetensors --data imagefolder:birds
  nc-tools suspects birds.npz                                  list the labels that are likely wrong
  nc-tools predict outputs/long_tail/runs/etf-s0-d0-final-1a2b3c4d photos --out predictions.csv
  nc-tools export outputs/long_tail/runs/etf-s0-d0-final-1a2b3c4d --to onnx --out exports/etf
  nc-tools sync outputs/long_tail --tracking-uri http://127.0.0.1:5000

`nc-tools COMMAND --help` lists the options of a command.
"""
CHOOSE = """Choose the head and the loss for your images on a pretrained model that is not trained further.

Features are extracted once and cached. All arms are tuned and trained on them side by side; the arm that is best on the
hold-outs is confirmed on the test set, which is read once. The command ends with the arm to use, how sure that is, the
classes that gain and lose, and the model, in OUT/model. DATA is a folder of images with one folder for each class, a
file of embeddings (.npz, .safetensors, .parquet), or a data source as in the recipes, such as cifar10.
"""
COMPARE = """Compare the methods (arms) in an output folder: print a table and write a report to FOLDER/report.

Each arm is compared with the baseline in pairs of runs with the same seed. Damaged and failed runs are listed too.
"""
MEASURE = """Measure the neural collapse of a trained model: print a table and write a report.

The model can be one that nc_tools trained or any PyTorch classifier.
"""
SUSPECTS = """List the labels of a data set that are likely wrong, from features of a pretrained network.

FILE (.npz, .safetensors or .parquet) holds features (N, D) and labels (N,), and perhaps ids, split and classes. No
trained model, no true label and no tuning is needed. Writes suspects.csv (the most suspect label first, with the class
that is suggested), classes.csv (how many labels of each class may be wrong) and transition.csv.
"""
PREDICT = """Predict the classes of all images in a folder with the model of a finished run, and write a CSV file.

Probabilities are calibrated with the run's temperature. The column `unusual` is the share of the run's test images that
look more like the training images: close to 1 for an image of none of the classes. Unreadable files are listed.
"""
EXPORT = """Export the model of a finished run, with a model card, its preprocessing and its class names.

onnx and torch-export need no nc_tools to run. safetensors is for `nc-tools predict` and load_run. mlflow writes an
MLflow model without pickles: `mlflow models serve -m FOLDER/model --env-manager local`.
"""
SYNC = """Upload the runs of an output folder to MLflow, unless MLflow already has them.

Recipes and `nc_tools.tracking.track` upload runs by themselves. Use this command if they could not reach the server.
"""


def parser() -> argparse.ArgumentParser:
    """Return the command-line parser of nc-tools."""
    p = argparse.ArgumentParser(
        prog="nc-tools",
        description="Compare and measure classifiers trained with neural-collapse methods.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--version", action="version", version=f"nc_tools {__version__}")
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")

    _add_choose_options(_command(commands, "choose", "choose a head and a loss on a pretrained model", CHOOSE))

    compare = _command(commands, "compare", "compare the methods (arms) in an output folder; write a report", COMPARE)
    _add_output_folder(compare)
    compare.add_argument(
        "--baseline", metavar="ARM", help="arm that the other arms are compared with (default: the experiment's own)"
    )

    _add_measure_options(_command(commands, "measure", "measure the collapse of a trained model", MEASURE))

    _add_suspects_options(_command(commands, "suspects", "list the labels that are likely wrong", SUSPECTS))
    _add_predict_options(_command(commands, "predict", "predict the classes of a folder of images", PREDICT))
    _add_export_options(_command(commands, "export", "export a trained model with its model card", EXPORT))

    _add_output_folder(_command(commands, "sync", "upload to MLflow the runs that it does not have yet", SYNC))
    return p


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str, description: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=summary, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def _add_output_folder(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "folder", type=Path, metavar="FOLDER", help="output folder of a recipe or of your own training loop"
    )
    command.add_argument(
        "--tracking-uri",
        metavar="ADDRESS",
        help="MLflow server or database (default: MLFLOW_TRACKING_URI, or else mlflow.db in FOLDER)",
    )


def _add_choose_options(choose: argparse.ArgumentParser) -> None:
    choose.add_argument("data", metavar="DATA", help="folder of images, embedding file, or data source")
    add = choose.add_argument_group("model").add_argument
    add("--model", metavar="MODEL", help="timm:NAME, torchvision:NAME, hf:ID_OR_FOLDER, or package.module:function")
    add("--weights", metavar="WEIGHTS", help="'pretrained', or a file of weights")
    add("--image-size", type=int, metavar="PIXELS", help="width and height of the network's images (default: its own)")
    add = choose.add_argument_group("data").add_argument
    add("--labels", metavar="FILE:COLUMN", help="read the training labels from this column of a CSV file")
    add("--noisy", action="store_true", help="some labels are wrong: compare losses for that too (implied by --labels)")
    add("--imbalance", type=float, metavar="RATIO", help="cut the training set to a long tail: the largest class has "
        "RATIO times the images of the smallest (default: use all images)")  # fmt: skip
    add("--ood-near", metavar="DATA", help="images of other classes that are close to these, for detection scores")
    add("--ood-far", metavar="DATA", help="images that are far from the classes, for detection scores")
    add("--skip-unreadable", action="store_true", help="leave out image files that cannot be read, instead of stopping")
    add = choose.add_argument_group("comparison").add_argument
    add("--decide", choices=("balanced_accuracy", "accuracy"), default="balanced_accuracy", help="metric that decides "
        "(default: %(default)s)")  # fmt: skip
    add("--arms", metavar="A,B,...", help="arms to compare, or 'all' (default: those that suit the data)")
    add("--seeds", default="0-9", help="seeds, such as 0-19 or 0,2,5 (default: %(default)s)")
    add("--epochs", type=int, metavar="N", help="epochs of each head (default: 30, or more for at least 600 steps)")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="set any field of the arms or the protocol, "
        "such as protocol.max_extensions=0; may be given several times")  # fmt: skip
    add = choose.add_argument_group("how it runs").add_argument
    add("--out", type=Path, default=Path("outputs/choose"), metavar="FOLDER", help="folder for runs, report and model "
        "(default: %(default)s)")  # fmt: skip
    add("--cache", type=Path, metavar="FOLDER", help="folder of the feature cache (default: OUT/cache)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ..., or auto: a GPU if there is one (default: auto)")
    add("--workers", type=int, metavar="N", help="seeds made in parallel (default: one for each CPU core; 1 on a GPU)")
    add("--tracking-uri", metavar="ADDRESS", help="MLflow server or database (default: a store in the output folder)")


def _add_measure_options(measure: argparse.ArgumentParser) -> None:
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


def _add_suspects_options(suspects: argparse.ArgumentParser) -> None:
    add = suspects.add_argument
    add("embeddings", type=Path, metavar="FILE", help="file with the features and labels")
    add(
        "--labels",
        metavar="FILE:COLUMN[,COLUMN...]",
        help="CSV file with a column 'path' (the ids) and the training labels to check; further columns are labels of "
        "other annotators, whose disagreement counts too",
    )
    add("--part", choices=("train", "test"), default="train", help="which labels to check (default: train)")
    add("--folds", type=int, default=5, metavar="N", help="folds of the model that judges the labels (default: 5)")
    add("--seed", type=int, default=0, metavar="N", help="draws the folds (default: 0)")
    add("--rows", type=int, metavar="N", help="largest number of rows in suspects.csv (default: all)")
    add("--out", type=Path, metavar="FOLDER", help="folder of the files (default: outputs/suspects/NAME)")


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, metavar="RUN", help="folder of a final run, in OUTPUT_FOLDER/runs/")
    command.add_argument(
        "--modules",
        metavar="A,B",
        help="modules of your own heads and networks, if the run was made with some; they are imported",
    )


def _add_predict_options(predict: argparse.ArgumentParser) -> None:
    _add_run(predict)
    add = predict.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder of images, with its subfolders, or one image")
    add("--out", type=Path, default=Path("predictions.csv"), metavar="FILE", help="CSV file (default: %(default)s)")
    add("--top", type=int, default=3, metavar="K", help="number of classes to list for each image (default: 3)")
    add("--device", metavar="DEVICE", help="cpu, cuda or cuda:N (default: a GPU if there is one)")


def _add_export_options(export: argparse.ArgumentParser) -> None:
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


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program nc-tools; exit with status 1 if an upload failed, with 2 after wrong input or on a full disk."""
    args = parser().parse_args(argv)
    try:
        if args.command == "choose":
            _choose(args)
        elif args.command == "compare":
            _compare(args.folder, args.baseline, args.tracking_uri)
        elif args.command == "measure":
            _measure(args)
        elif args.command == "suspects":
            _suspects(args)
        elif args.command in ("predict", "export"):
            from nc_tools.deployment import commands

            (commands.predict if args.command == "predict" else commands.export)(args)
        else:
            _sync(args.folder, args.tracking_uri)
    except (ValueError, TypeError, OSError) as error:
        full = f"cannot write to disk: {error}. Free disk space and rerun the same command."
        message = full if is_disk_full(error) else " ".join(str(error).split())
        print(f"error: {printable(message)}", file=sys.stderr)
        sys.exit(2)


def _choose(args: argparse.Namespace) -> None:
    from rich.console import Console

    from nc_tools._support.signals import Killed
    from nc_tools.choosing.choose import ChooseOptions, run_choose

    given = {name: value for name, value in vars(args).items() if name not in ("command", "set")}
    try:
        run_choose(ChooseOptions(**given, settings=args.set), Console(highlight=False))
    except (Killed, KeyboardInterrupt):
        print(f"\nStopped. What is finished is kept in {args.out}. To continue, give the same command again.")
        sys.exit(130)


def _compare(folder: Path, baseline: str | None, tracking_uri: str | None) -> None:
    from rich.console import Console

    from nc_tools.experiment.closing_report import print_links, report_comparison
    from nc_tools.tracking import MlflowSync

    console, sync = Console(), MlflowSync(folder, tracking_uri)
    report_comparison(folder, console, baseline=baseline)
    sync.push()
    _print_advice(sync.advice())
    print_links(folder, console, tracking_uri)


def _measure(args: argparse.Namespace) -> None:
    from rich.console import Console

    from nc_tools.measuring.measure_arguments import MeasureArguments
    from nc_tools.measuring.measure_cli import run_measure

    run_measure(
        MeasureArguments(**{name: value for name, value in vars(args).items() if name != "command"}),
        Console(highlight=False),
    )


def _suspects(args: argparse.Namespace) -> None:
    from nc_tools.suspects import SuspectsJob, run_suspects

    run_suspects(SuspectsJob(**{name: value for name, value in vars(args).items() if name != "command"}), print)


def _sync(folder: Path, tracking_uri: str | None) -> None:
    from nc_tools.tracking import MlflowSync, direct_links

    if not (folder / "runs").is_dir():
        raise FileNotFoundError(f"{folder} has no folder runs/: give the folder that was a recipe's --out")
    sync = MlflowSync(folder, tracking_uri)
    report = sync.push()
    print(f"{report.sent} runs uploaded, {report.pending} not yet uploaded")
    advice = sync.advice()
    _print_advice(advice)
    if advice is not None:
        sys.exit(1)
    print("\n".join(map(printable, direct_links(folder, tracking_uri))))


def _print_advice(advice: str | None) -> None:
    if advice is not None:
        print(f"nc_tools: {printable(advice)}", file=sys.stderr)


if __name__ == "__main__":
    main()
