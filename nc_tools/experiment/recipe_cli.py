"""The command line of a recipe (a script that compares methods): its flags, and what happens when it runs."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console

from nc_tools._support.check_writable import check_writable
from nc_tools._support.disk_full import is_disk_full
from nc_tools._support.printable import printable
from nc_tools._support.signals import Killed
from nc_tools.comparison.closing_report import print_links, report_comparison
from nc_tools.experiment.check_model import check_model
from nc_tools.experiment.cluster.cluster_flags import add_cluster_flags, chosen_cluster
from nc_tools.experiment.cluster.ray_connection import Cluster
from nc_tools.experiment.config_file import config_text, read_config
from nc_tools.experiment.data_flags import add_data_flags
from nc_tools.experiment.follow_first import follow
from nc_tools.experiment.packing import CPU_PACK
from nc_tools.experiment.plan import RunOptions
from nc_tools.experiment.plan_cost import print_plan
from nc_tools.experiment.recipe_plan import make_plan
from nc_tools.experiment.run_config import Protocol, RunConfig
from nc_tools.experiment.run_plan import run_plan
from nc_tools.experiment.torchrun import device_here, first_of_torchrun, is_follower, threads_here
from nc_tools.experiment.worker_count import worker_count
from nc_tools.tracking.no_mlflow import sync_unless_off
from nc_tools.training.processes import Processes


def recipe_parser(
    name: str, question: str, arms: Sequence[str], default_arms: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """Return the command-line parser of a recipe; every recipe has the same flags."""
    parser = argparse.ArgumentParser(
        prog=f"recipes/{name}.py",
        description=question,
        epilog=textwrap.fill(f"arms (compared methods) of this recipe: {', '.join(arms)}", width=100),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data_flags(parser)
    add = parser.add_argument_group("what is compared").add_argument
    default = ", ".join(default_arms) if default_arms else "all"
    add("--arms", metavar="A,B,...", help=f"arms to compare, the baseline first, or 'all' (default: {default})")
    add("--model", metavar="NAME", help="backbone: conv, resnet20, resnet32, timm:NAME, torchvision:NAME, "
        "hf:ID_OR_FOLDER, or package.module:function")  # fmt: skip
    add("--weights", metavar="WEIGHTS", help="'pretrained' for the library's own download, or a .safetensors file or "
        "state dict; AdamW and rates for fine-tuning then replace SGD's")  # fmt: skip
    add("--train", metavar="PART", help="part of a pretrained network that is trained: all, head (only the head), "
        "last:N (the last N blocks) or lora:R (rank R) (default: all)")  # fmt: skip
    add("--epochs", type=int, metavar="N", help="epochs of each run")
    add("--seeds", help="seeds of the final runs, such as 0-4 or 0,2,5")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="set any field that --print-config shows, "
        "such as optim.weight_decay=1e-4; may be given several times")  # fmt: skip
    add = parser.add_argument_group("how it runs").add_argument
    add("--out", type=Path, default=Path("outputs") / name, metavar="FOLDER", help="folder for the runs and the report "
        "(default: %(default)s)")  # fmt: skip
    add("--name", metavar="NAME", help="name of the comparison in the report and in MLflow; give two data sets two "
        f"names (default: {name})")  # fmt: skip
    add("--device", default="auto", help="cpu, cuda, cuda:1, ..., or auto: a GPU if there is one (default: auto)")
    add("--workers", type=int, metavar="N", help="runs made in parallel (default: one for each CPU core; 1 on a GPU)")
    add("--pack", default="auto", metavar="N", help="runs that train side by side in each process: a number, or auto: "
        f"up to {CPU_PACK} for small networks on a CPU, else 1 (default: auto)")  # fmt: skip
    add_cluster_flags(add)
    add("--resume", action="store_true", help="continue unfinished runs from their checkpoints")
    add("--tracking-uri", metavar="URI", help="MLflow store or server, or none to leave the runs on disk (default: "
        "a store in the output folder)")  # fmt: skip
    add("--smoke", action="store_true", help="run everything for a few seconds to check that it works; the numbers "
        "mean nothing")  # fmt: skip
    add("--plan", action="store_true", help="print how many runs there are and how long they take here, measured on "
        "a few steps, and exit")  # fmt: skip
    add("--print-config", action="store_true", help="print the whole configuration as JSON and exit")
    add("--config", type=Path, metavar="FILE", help="take arms and protocol from a file that --print-config has "
        "printed; other flags are applied to them")  # fmt: skip
    return parser


def run_recipe(
    arms: Mapping[str, RunConfig],
    *,
    name: str,
    question: str,
    protocol: Protocol | None = None,
    default_arms: Sequence[str] = (),
    argv: Sequence[str] | None = None,
) -> None:
    """Run a recipe with its command line; the process exits with status 2 after an error, 130 after Ctrl-C.

    Args:
        arms: Arms by name; the first is the baseline.
        name: Name of the recipe.
        question: What the recipe asks: its docstring.
        protocol: The rules that all arms share.
        default_arms: Arms that run without ``--arms``, the baseline first; empty for all.
        argv: Command-line arguments; None for those of the process.
    """
    parser = recipe_parser(name, question, list(arms), default_arms)
    if is_follower():
        follow(parser, argv)
        return
    args = parser.parse_args(argv)
    console = Console(stderr=False)
    try:
        if args.config is not None:
            arms, protocol = read_config(args.config)
        else:
            args.arms = args.arms or ",".join(default_arms) or None
        plan = make_plan(arms, name=args.name or name, question=question, protocol=protocol or Protocol(), args=args)
        for config in plan.arms.values():
            check_model(config.model)
        if args.print_config:
            print(json.dumps(config_text(plan.arms, plan.protocol), indent=2))
            return
        with first_of_torchrun(args) as processes, chosen_cluster(args) as cluster:
            options = make_options(args, cluster, processes)
            if args.plan:
                print_plan(plan, options, console)
                return
            with sync_unless_off(options.out, options.tracking_uri) as sync:
                run_plan(plan, options, console)
                if sync is not None:
                    sync.push_soon()  # the runs, while the report is written
                comparison = report_comparison(options.out, console)
        print_links(options.out, console, sync, comparison=comparison)
    except (Killed, KeyboardInterrupt):
        text = f"Stopped. Finished runs are kept in {args.out}. To continue, give the same command with --resume."
        console.print(f"\n{printable(text)}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(130)
    except (ValueError, TypeError, OSError) as error:
        _print_error(_disk_full_error(args.out, error) if is_disk_full(error) else error)
        sys.exit(2)


def make_options(
    args: argparse.Namespace, cluster: Cluster | None = None, processes: Processes | None = None
) -> RunOptions:
    """Return the options that the flags of the command line set, such as output folder and device.

    Args:
        args: The flags.
        cluster: The cluster that makes the runs, which decides how many are made at once, and where.
        processes: The processes of torchrun that train each run together.

    Raises:
        ValueError: If there is no such device, or the number of workers is not positive.
        OSError: If the output folder cannot be written to.
    """
    device = torch_device(args.device) if cluster is None else cluster.device
    if processes is not None:
        device, workers, threads = device_here(device), 1, threads_here()
    else:
        workers, threads = worker_count(args.workers, device)
    if cluster is not None:
        workers, threads = cluster.tasks, cluster.cpus
    check_writable(args.out)
    return RunOptions(
        out=args.out,
        device=device,
        workers=workers,
        threads=threads,
        cluster=cluster,
        pack=parse_pack(args.pack) if processes is None else 1,
        resume=args.resume,
        tracking_uri=args.tracking_uri,
        processes=processes,
    )


def parse_pack(text: str) -> int | None:
    """Return the number of runs that ``--pack`` asks for; None for "auto".

    Raises:
        ValueError: If the text is neither "auto" nor a number of at least 1.

    Example:
        >>> parse_pack("8"), parse_pack("auto")
        (8, None)
    """
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--pack must be auto or a number of runs of at least 1, got {text!r}")
    return int(text)


def torch_device(name: str) -> str:
    """Return the PyTorch device that ``--device`` names; "auto" is a GPU if there is one.

    Raises:
        ValueError: If the name is no device, or there is no such GPU.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device must be auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"cannot use --device {name}: PyTorch finds no GPU here; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(
            f"cannot use --device {name}: PyTorch finds {count} GPU{'s' * (count != 1)}, counted from 0; use --device "
            f"cuda:{count - 1}"
        )
    return name


def _disk_full_error(out: Path, error: BaseException) -> OSError:
    """Return an error for a full disk that names the output folder, which the original error does not."""
    reason = getattr(error, "strerror", None) or error
    return OSError(
        f"cannot write to {out}: {reason}. Free disk space and give the same command again; finished runs are not "
        f"repeated."
    )


def _print_error(error: BaseException) -> None:
    """Print an error in one line, with the line breaks of its message removed."""
    text = printable(" ".join(str(error).split()))
    Console(stderr=True).print(f"error: {text}", style="red", markup=False, highlight=False, soft_wrap=True)
