"""Progress of a comparison: bars on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from nc_tools._support.printable import printable
from nc_tools.experiment.job import JobResult, Note, RunProgress
from nc_tools.experiment.workers import WorkerJob


class ProgressDisplay:
    """Shows the progress of a comparison's stages and runs; used as a context manager.

    Args:
        console: Where to print.
        every: Seconds between two lines, where the console is no terminal.
    """

    def __init__(self, console: Console, every: float = 5.0) -> None:
        self.console = console
        self._every = every
        self._started = self._last_line = time.monotonic()
        self._stage = ""
        self._done = self._total = 0
        self._notes: set[Note] = set()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[doing]}", style="dim", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar: TaskID | None = None

    def __enter__(self) -> ProgressDisplay:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def stage(self, name: str, total: int) -> None:
        """Start to count a new stage, in which ``total`` runs are made."""
        self._stage, self._done, self._total = name, 0, total
        self._bar = self._bars.add_task(f"{name:<22}", total=total, doing="")
        self._line(f"{name} 0/{total}")

    def reading(self, done: int, total: int) -> None:
        """Show how many image files have been read, before the first stage."""
        if self._bar is None:
            self._bar = self._bars.add_task(f"{'reading images':<22}", total=total, doing="")
        self._bars.update(self._bar, completed=done)
        if time.monotonic() - self._last_line > self._every:
            self._line(f"reading images: {done:,} of {total:,}")

    def extracting(self, name: str) -> None:
        """Start to count the images of a set that go through the backbone."""
        self._stage = f"features of the {name} images"
        self._bar = None

    def extracted(self, done: int, total: int) -> None:
        """Show how many images have gone through the backbone."""
        if self._bar is None:
            self._bar = self._bars.add_task(f"{self._stage:<22}", total=total, doing="")
        self._bars.update(self._bar, completed=done)
        if done == total or time.monotonic() - self._last_line > self._every:
            self._line(f"{self._stage}: {done:,} of {total:,}")

    def progress(self, progress: RunProgress | Note) -> None:
        """Show how many epochs of a run, or runs of a group, are done; or print a note that was not printed yet."""
        if isinstance(progress, Note):
            if progress not in self._notes:
                self._notes.add(progress)
                self.note(progress.text)
            return
        doing = f"{progress.label}: {progress.unit} {progress.done}/{progress.total}"
        if self._bar is not None:
            self._bars.update(self._bar, doing=printable(doing))
        if time.monotonic() - self._last_line > self._every:
            self._line(f"{self._stage} {self._done}/{self._total}, {doing}")

    def result(self, job: WorkerJob, result: JobResult) -> None:
        """Count a run that ended; if it failed, print the reason."""
        self._done += 1
        if self._bar is not None:
            self._bars.update(self._bar, advance=1, doing=printable(f"{job.label}: {result.status.lower()}"))
        if result.unexpected:
            self.note(f"{job.label} ({job.kind}) {result.status.lower()}: {result.error}")
        elif self._done == self._total or time.monotonic() - self._last_line > self._every:
            self._line(f"{self._stage} {self._done}/{self._total}")

    def note(self, text: str) -> None:
        """Print a line that stays visible above the progress bars."""
        self.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        if not self.console.is_terminal:
            self.note(f"[{self._last_line - self._started:6.1f} s] {text}")
