"""Make docs/report.png and docs/choose.png again: ``python docs/screenshots.py``.

They are the first screens of the reports on committed records.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from nc_tools import compare

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results"
PICTURES = {  # name: records, width and height of the window
    "report.png": ("2026-11-27_long_tail_digits_cpu.tar.xz", "1000,1180"),
    "choose.png": ("2026-11-27_choose_cifar10_if100_lite0_cpu.tar.xz", "1000,1080"),
}


def main() -> None:
    """Unpack the records, compare them, and take a picture of each report."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("the pictures are made by Chromium, which is not installed: apt-get install chromium")
    for name, (records, size) in PICTURES.items():
        with tempfile.TemporaryDirectory() as folder:
            with tarfile.open(RESULTS / records) as archive:
                archive.extractall(folder, filter="data")
            compare(folder, out=Path(folder) / "report", formats="html")
            page = (Path(folder) / "report" / "comparison.html").as_uri()
            flags = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={folder}/browser"]
            picture = f"--screenshot={HERE / name}"
            subprocess.run([chromium, *flags, f"--window-size={size}", picture, page], check=True, capture_output=True)
            print(HERE / name)


if __name__ == "__main__":
    main()
