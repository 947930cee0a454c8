"""The command-line program nc-tools; slow imports wait until a subcommand needs them, so that --help is fast."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nc_tools import __version__
from nc_tools._support.disk_full import is_disk_full
from nc_tools._support.reading_flags import add_reading_flags

EXAMPLES = """examples:
  nc-tools compare outputs/long_tail                           print the table, write outputs/long_tail/report
  nc-tools compare outputs/long_tail --baseline linear_la      the same, with another baseline
  nc-tools data photos                                         say which classes and which split a folder has
  nc-tools measure --model torchvision:resnet18 --weights model.safetensors --data imagefolder:birds
  nc-tools sync outputs/long_tail --tracking-uri http://127.0.0.1:5000

`nc-tools COMMAND --help` lists the options of a command.
"""
COMPARE = """Compare the methods (arms) in an output folder: print a table and write a report to FOLDER/report.

Each arm is compared with the baseline in pairs of runs with the same seed. Damaged and failed runs are listed too.
"""
MEASURE = """Measure the neural collapse of a trained model: print a table and write a report.

The model can be one that nc_tools trained or any PyTorch classifier.
"""
DATA = """Say what a folder, a table or another source of images is taken for: classes, split, groups, what is left out.

Nothing is trained. A recipe reads the same source in the same way with --data SOURCE.
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

    compare = _command(commands, "compare", "compare the methods (arms) in an output folder; write a report", COMPARE)
    _add_output_folder(compare)
    compare.add_argument(
        "--baseline", metavar="ARM", help="arm that the other arms are compared with (default: the experiment's own)"
    )

    _add_data_options(_command(commands, "data", "say what a folder or table of images is taken for", DATA))

    _add_measure_options(_command(commands, "measure", "measure the collapse of a trained model", MEASURE))

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


def _add_data_options(command: argparse.ArgumentParser) -> None:
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


def _channel_values(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers such as 0.5,0.4,0.4, got {text!r}") from None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program nc-tools; exit with status 1 if an upload failed, with 2 after wrong input or on a full disk."""
    args = parser().parse_args(argv)
    try:
        if args.command == "compare":
            _compare(args.folder, args.baseline, args.tracking_uri)
        elif args.command == "data":
            _data(args)
        elif args.command == "measure":
            _measure(args)
        else:
            _sync(args.folder, args.tracking_uri)
    except (ValueError, TypeError, OSError) as error:
        full = f"cannot write to disk: {error}. Free disk space and rerun the same command."
        print(f"error: {full if is_disk_full(error) else error}", file=sys.stderr)
        sys.exit(2)


def _compare(folder: Path, baseline: str | None, tracking_uri: str | None) -> None:
    from rich.console import Console

    from nc_tools.experiment.closing_report import print_links, report_comparison
    from nc_tools.tracking import MlflowSync

    console, sync = Console(), MlflowSync(folder, tracking_uri)
    report_comparison(folder, console, baseline=baseline)
    sync.push()
    _print_advice(sync.advice())
    print_links(folder, console, tracking_uri)


def _data(args: argparse.Namespace) -> None:
    from nc_tools.experiment.data_command import run_data

    run_data(args, print)


def _measure(args: argparse.Namespace) -> None:
    from rich.console import Console

    from nc_tools.measuring.measure_arguments import MeasureArguments
    from nc_tools.measuring.measure_cli import run_measure

    run_measure(
        MeasureArguments(**{name: value for name, value in vars(args).items() if name != "command"}),
        Console(highlight=False),
    )


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
    print("\n".join(direct_links(folder, tracking_uri)))


def _print_advice(advice: str | None) -> None:
    if advice is not None:
        print(f"nc_tools: {advice}", file=sys.stderr)


if __name__ == "__main__":
    main()
