"""Commit the table of a comparison: Markdown, CSV, and the records of its final runs without weights.

    python benchmarks/table.py outputs/long_tail benchmarks/results/2026-11-27_long_tail_digits_cpu.md

Whoever has the records can make the comparison again: ``tar xf NAME.tar.xz -C FOLDER; nc-tools compare FOLDER``. In the
Markdown file the part below the marker is written anew each time; what a person wrote above it is kept. Where a run has
many test logits, the archive holds the predicted classes and their probabilities instead.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

import nc_tools
from nc_tools._support.atomic_write import atomic_write
from nc_tools.comparison import Comparison
from nc_tools.comparison.check_predictions import check_predictions
from nc_tools.comparison.export import comparison_csv
from nc_tools.comparison.image_predictions import confidences
from nc_tools.comparison.markdown import markdown_text

MARKER = "<!-- Below this line the file is made by benchmarks/table.py from the records beside it. -->"
RUN_FILES = ("run.json", "status.json", "final.json", "per_class.json", "predictions.safetensors")
MOST_LOGITS = 30_000  # N x K of a run; more would make archives of tens of megabytes
MACHINE_FIELDS = ("host", "pid", "pid_started")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=Path, help="output folder of a recipe")
    parser.add_argument("page", type=Path, help="Markdown file to write; .csv and .tar.xz are written beside it")
    args = parser.parse_args()
    try:
        size = write_table(args.out, args.page)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{args.page}, {size / 1e3:,.0f} kB of records")


def write_table(out: Path, page: Path) -> int:
    """Write the page of a comparison with the files beside it, and return the bytes of the archive.

    Raises:
        ValueError: If a record of the compared runs is damaged or incomplete; then no file is changed.
        OSError: If there are no runs, or a file cannot be written.
    """
    comparison = nc_tools.compare(out)
    written = page.read_text().partition(MARKER)[0] if page.exists() else f"# {page.stem}\n\n"
    text = f"{written}{MARKER}\n\n{page_text(comparison)}"
    archive = page.with_suffix(".tar.xz")
    with atomic_write(archive) as part:
        pack(out, comparison, part)
    page.write_text(text)
    page.with_suffix(".csv").write_text(comparison_csv(comparison))
    return archive.stat().st_size


def page_text(comparison: Comparison) -> str:
    """Return the part of the page that is made from the records: how the runs were made, and the comparison."""
    return f"{facts(comparison)}\n\n{markdown_text(comparison).partition(chr(10))[2].lstrip()}"


def facts(comparison: Comparison) -> str:
    """Return command, data, budget, time and versions of the runs as a Markdown list."""
    finals = [run for of_arm in comparison.cells.values() for run in of_arm.values()]
    baseline = next(iter(comparison.cells[comparison.baseline].values()))
    name, counts = baseline.data.get("name", "not named"), baseline.data.get("class_counts")
    sizes = ""
    if counts:
        most, fewest = max(counts), min(counts)
        each = f"{most:,} to {fewest:,}" if most > fewest else f"{most:,}"
        sizes = f" {len(counts)} classes, {sum(counts):,} training images ({each} a class),"
    tested = sum(baseline.per_class.test_counts) if baseline.per_class else 0
    trials = Counter(str(trial["arm"]) for trial in comparison.experiment.trials)
    seconds = sum(run.final.get("perf/seconds", 0.0) for run in finals)
    versions = ", ".join(f"{name} {version}" for name, version in baseline.versions.items())
    return "\n".join(
        [
            f"- **Data**: {name},{sizes} {tested:,} test images.",
            f"- **Budget**: {max(trials.values(), default=0)} tuning trials an arm; {len(finals)} final runs, whose "
            f"training took {seconds:,.0f} s in all.",
            f"- **Machine**: {baseline.hardware}.",
            f"- **Versions**: {versions}; commit {baseline.git_commit[:12] or 'unknown'}.",
        ]
    )


def pack(out: Path, comparison: Comparison, archive: Path) -> None:
    """Write the records of the compared runs into an archive whose bytes do not depend on when and where it is made."""
    used = sorted(run.run_id for of_arm in comparison.cells.values() for run in of_arm.values())
    files = [out / "experiment.json", out / "tuning.json"]
    files += [out / "runs" / run / name for run in used for name in RUN_FILES]
    with tarfile.open(archive, "w:xz", preset=9) as tar:
        for file in files:
            if file.exists():
                content = packed(file)
                info = tarfile.TarInfo(str(file.relative_to(out)))
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def packed(file: Path) -> bytes:
    """Return a record as the archive holds it: without the machine's name, and with at most MOST_LOGITS logits."""
    if file.name in ("status.json", "run.json"):
        return _without_machine(file)
    if file.suffix == ".safetensors":
        check_predictions(file)
        tensors = load_file(file)
        if "test_logits" in tensors and tensors["test_logits"].size > MOST_LOGITS:
            return save(without_logits(tensors))
    return file.read_bytes()


def without_logits(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return predicted classes and their probabilities, rounded to float16, in place of the logits (N, K)."""
    logits = tensors["test_logits"]
    short = {name: tensor for name, tensor in tensors.items() if name != "test_logits"}
    short["test_labels"] = tensors["test_labels"].astype(np.int16)
    short["test_guesses"] = logits.argmax(axis=1).astype(np.int16)
    short["num_classes"] = np.array([logits.shape[1]], dtype=np.int32)
    short["test_confidences"] = confidences(logits).astype(np.float16)
    if "temperature" in tensors:
        scaled = confidences(logits, float(tensors["temperature"][0]))
        short["test_scaled_confidences"] = scaled.astype(np.float16)
    return short


def _without_machine(file: Path) -> bytes:
    """Return a record without the machine's name, and without the folders of paths in the recorded command."""
    content = {k: v for k, v in json.loads(file.read_text()).items() if k not in MACHINE_FIELDS}
    if isinstance(content.get("command"), list):
        content["command"] = [Path(word).name if word.startswith("/") else word for word in content["command"]]
    return json.dumps(content, indent=1).encode()


if __name__ == "__main__":
    main()
