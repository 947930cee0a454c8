"""The command-line program nc-tools; slow imports wait until a subcommand needs them, so that --help is fast."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nc_tools import __version__
from nc_tools._support.disk_full import is_disk_full
from nc_tools._support.printable import printable
from nc_tools.cli_options import (
    add_choose_options,
    add_compare_options,
    add_data_options,
    add_export_options,
    add_gain_options,
    add_measure_options,
    add_predict_options,
    add_suspects_options,
)
from nc_tools.cli_texts import (
    CHOOSE_TEXT,
    COMPARE_TEXT,
    DATA_TEXT,
    EXAMPLES_TEXT,
    EXPORT_TEXT,
    GAIN_TEXT,
    MEASURE_TEXT,
    PREDICT_TEXT,
    SUSPECTS_TEXT,
    SYNC_TEXT,
    UI_TEXT,
)


def parser() -> argparse.ArgumentParser:
    """Return the command-line parser of nc-tools."""
    p = argparse.ArgumentParser(
        prog="nc-tools",
        description="Compare and measure classifiers trained with neural-collapse methods.",
        epilog=EXAMPLES_TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--version", action="version", version=f"nc_tools {__version__}")
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")

    add_choose_options(_command(commands, "choose", "choose a head and a loss on a pretrained model", CHOOSE_TEXT))

    add_compare_options(_command(commands, "compare", "compare arms; write a report", COMPARE_TEXT))

    add_data_options(_command(commands, "data", "say what a folder or table of images is taken for", DATA_TEXT))
    add_measure_options(_command(commands, "measure", "measure the collapse of a trained model", MEASURE_TEXT))

    add_suspects_options(_command(commands, "suspects", "list the labels that are likely wrong", SUSPECTS_TEXT))
    add_gain_options(_command(commands, "gain", "measure what correcting labels gains", GAIN_TEXT))
    add_predict_options(_command(commands, "predict", "predict the classes of a folder of images", PREDICT_TEXT))
    add_export_options(_command(commands, "export", "export a trained model with its model card", EXPORT_TEXT))

    sync = _command(commands, "sync", "upload to MLflow the runs that it does not have yet", SYNC_TEXT)
    _add_output_folder(sync)
    sync.add_argument(
        "--log-models", action="store_true", help="also log the model of each final run, as nc-tools export --to "
        "mlflow makes it; each takes as much room as its weights"
    )  # fmt: skip
    ui = _command(commands, "ui", "show the runs of an output folder in MLflow", UI_TEXT)
    _add_output_folder(ui)
    ui.add_argument("--port", type=_port, metavar="N", help="port of MLflow's server (default: 5000, or any free one)")
    ui.add_argument("--no-browser", action="store_true", help="print the addresses only")
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


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program nc-tools; exit with 1 if an upload failed, 2 on wrong input or a full disk, 130 after Ctrl-C."""
    args = parser().parse_args(argv)
    try:
        if args.command in ("choose", "gain"):
            _compare_heads(args)
        elif args.command == "compare":
            _compare(args)
        elif args.command == "data":
            _data(args)
        elif args.command == "measure":
            _measure(args)
        elif args.command == "suspects":
            _suspects(args)
        elif args.command in ("predict", "export"):
            from nc_tools.deployment import commands

            (commands.predict if args.command == "predict" else commands.export)(args)
        elif args.command == "ui":
            from nc_tools.tracking.show_store import show_store

            show_store(args.folder, args.tracking_uri, port=args.port, browser=not args.no_browser, say=_say)
        else:
            _sync(args.folder, args.tracking_uri, log_models=args.log_models)
    except (ValueError, TypeError, OSError) as error:
        full = f"cannot write to disk: {error}. Free disk space and rerun the same command."
        message = full if is_disk_full(error) else " ".join(str(error).split())
        print(f"error: {printable(message)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # files are written whole or not at all, and cached features are kept
        print("\nStopped.", file=sys.stderr)
        sys.exit(130)


def _compare_heads(args: argparse.Namespace) -> None:
    from rich.console import Console

    from nc_tools._support.signals import Killed
    from nc_tools.choosing.choose import ChooseOptions, run_choose
    from nc_tools.suspects.gain import GainOptions, run_gain

    given = {name: value for name, value in vars(args).items() if name not in ("command", "set")}
    try:
        if args.command == "choose":
            run_choose(ChooseOptions(**given, settings=args.set), Console(highlight=False))
        else:
            run_gain(GainOptions(**given, settings=args.set), Console(highlight=False))
    except (Killed, KeyboardInterrupt):
        print(f"\nStopped. What is finished is kept in {args.out}. To continue, give the same command again.")
        sys.exit(130)


def _compare(args: argparse.Namespace) -> None:
    from rich.console import Console

    from nc_tools.comparison.compare_command import CompareOptions, run_compare

    run_compare(CompareOptions(**{name: value for name, value in vars(args).items() if name != "command"}), Console())


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


def _suspects(args: argparse.Namespace) -> None:
    from nc_tools.suspects import SuspectsJob, run_suspects

    run_suspects(SuspectsJob(**{name: value for name, value in vars(args).items() if name != "command"}), print)


def _sync(folder: Path, tracking_uri: str | None, *, log_models: bool) -> None:
    from rich.console import Console

    from nc_tools.comparison.closing_report import print_links
    from nc_tools.tracking import MlflowSync

    if not (folder / "runs").is_dir():
        raise FileNotFoundError(f"{folder} has no folder runs/: give the folder that was a recipe's --out")
    sync = MlflowSync(folder, tracking_uri)
    report = sync.push()
    print(f"{report.sent} runs uploaded, {report.pending} not yet uploaded")
    advice = sync.advice()
    _print_advice(advice)
    if advice is not None:
        sys.exit(1)
    if log_models:
        from nc_tools.deployment.log_models import log_models as log_all

        log_all(folder, tracking_uri, _say)
    print_links(folder, Console(), sync)


def _say(line: str) -> None:
    print(printable(line), flush=True)


def _port(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 65535, got {text!r}")
    return int(text)


def _print_advice(advice: str | None) -> None:
    if advice is not None:
        print(f"nc_tools: {printable(advice)}", file=sys.stderr)


if __name__ == "__main__":
    main()
