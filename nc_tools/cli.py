"""The command nc-tools. Heavy imports wait until a command needs them, so that --help answers at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nc_tools import __version__

EXAMPLES = """examples:
  nc-tools compare outputs/long_tail                    table on the terminal, report in outputs/long_tail/report
  nc-tools compare outputs/long_tail --baseline linear_la
  nc-tools sync outputs/long_tail --tracking-uri http://127.0.0.1:5000
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
        else:
            _sync(args.folder, args.tracking_uri)
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _compare(folder: Path, baseline: str | None, tracking_uri: str | None) -> None:
    from rich.console import Console

    from nc_tools.experiment.finish import report, say_where
    from nc_tools.tracking import MlflowSync

    console, sync = Console(), MlflowSync(folder, tracking_uri)
    report(folder, console, sync, baseline=baseline)
    _tell(sync.push().advice(folder))
    say_where(folder, console, tracking_uri)


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
