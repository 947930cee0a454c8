"""The command nc-tools. Heavy imports wait until a command needs them, so that --help answers at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nc_tools import __version__
from nc_tools._support.disk_full import is_disk_full

EXAMPLES = """examples:
  nc-tools compare outputs/long_tail                    table on the terminal, report in outputs/long_tail/report
  nc-tools compare outputs/long_tail --baseline linear_la
  nc-tools sync outputs/long_tail --tracking-uri http://127.0.0.1:5000
  nc-tools measure --model torchvision:resnet18 --weights model.safetensors --data imagefolder:birds
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    p = argparse.ArgumentParser(
        prog="nc-tools",
        description="Compare training interventions that use neural collapse, fairly.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--version", action="version", version=f"nc_tools {__version__}")
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")

    compare = commands.add_parser("compare", help="pair the arms of an output folder by seed; write table and report")
    compare.add_argument("folder", type=Path, help="output folder of a recipe or of your own loop (it holds runs/)")
    compare.add_argument("--baseline", help="arm that the others are paired against (default: the experiment's own)")
    compare.add_argument("--tracking-uri", help="MLflow store or server (default: a store in the output folder)")

    _add_measure(commands)

    sync = commands.add_parser("sync", help="send to MLflow what it does not have yet")
    sync.add_argument("folder", type=Path, help="output folder of a recipe or of your own loop (it holds runs/)")
    sync.add_argument("--tracking-uri", help="MLflow store or server (default: a store in the output folder)")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; ends the process with 0, 1 when runs could not be sent, or 2 on wrong input."""
    args = parser().parse_args(argv)
    try:
        if args.command == "compare":
            _compare(args.folder, args.baseline, args.tracking_uri)
        elif args.command == "measure":
            _measure(args)
        else:
            _sync(args.folder, args.tracking_uri)
    except (ValueError, TypeError, OSError) as error:
        told = f"{error}: make room and give the same command again" if is_disk_full(error) else error
        print(f"error: {told}", file=sys.stderr)
        sys.exit(2)


def _compare(folder: Path, baseline: str | None, tracking_uri: str | None) -> None:
    from rich.console import Console

    from nc_tools.experiment.closing_report import print_links, report_comparison
    from nc_tools.tracking import MlflowSync

    console, sync = Console(), MlflowSync(folder, tracking_uri)
    report_comparison(folder, console, sync, baseline=baseline)
    _tell(sync.push().advice(folder))
    print_links(folder, console, tracking_uri)


def _add_measure(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    measure = commands.add_parser("measure", help="measure the collapse of an existing model; write table and report")
    measure.add_argument(
        "--model", required=True, help="a run's folder, torchvision:NAME, timm:NAME or package.module:function"
    )
    measure.add_argument("--data", help="imagefolder:PATH, digits or cifar10[:ROOT] (default: those of the run)")
    measure.add_argument("--weights", metavar="FILE", help="the model's state as safetensors, or random")
    measure.add_argument("--labels", metavar="FILE:COLUMN", help="CSV of noisy training labels; the folder's are true")
    measure.add_argument("--layers", metavar="A,B", help="layers to look into (default: the model's stages), or none")
    measure.add_argument("--head", metavar="NAME", help="dotted path of the head, where it cannot be told")
    measure.add_argument("--only", choices=("train", "test"), help="measure one set alone")
    measure.add_argument("--per-class", type=int, metavar="N", help="at most N images of each class and set")
    measure.add_argument("--image-size", type=int, metavar="PIXELS", help="default: the model's own, else the data's")
    measure.add_argument("--mean", type=_numbers, metavar="R,G,B", help="of the channels in 0..1, as in training")
    measure.add_argument("--std", type=_numbers, metavar="R,G,B", help="of the channels in 0..1, as in training")
    measure.add_argument("--batch-size", type=int, default=256, metavar="N", help="images in a batch (default: 256)")
    measure.add_argument("--device", help="cpu, cuda, cuda:N (default: a GPU where there is one)")
    measure.add_argument("--skip-unreadable", action="store_true", help="leave out images that cannot be read")
    measure.add_argument("--out", type=Path, help="folder of the report (default: outputs/measure/MODEL)")


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _measure(args: argparse.Namespace) -> None:
    from rich.console import Console

    from nc_tools.measuring.measure_cli import MeasureArguments, run_measure

    run_measure(
        MeasureArguments(**{name: value for name, value in vars(args).items() if name != "command"}),
        Console(highlight=False),
    )


def _sync(folder: Path, tracking_uri: str | None) -> None:
    from nc_tools.tracking import MlflowSync, direct_links

    if not (folder / "runs").is_dir():
        raise FileNotFoundError(f"an output folder holds runs/, but {folder} does not: give the --out of a recipe")
    told = MlflowSync(folder, tracking_uri).push()
    print(f"{told.sent} runs sent, {told.pending} pending")
    if _tell(told.advice(folder)):
        sys.exit(1)
    print("\n".join(direct_links(folder, tracking_uri)))


def _tell(advice: str | None) -> bool:
    """Say what went wrong, if anything did."""
    if advice is not None:
        print(f"nc_tools: {advice}", file=sys.stderr)
    return advice is not None


if __name__ == "__main__":
    main()
