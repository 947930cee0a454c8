"""Print pip constraints that hold every dependency at the lowest version that pyproject.toml allows.

``torch>=2.10`` becomes ``torch==2.10.*``. Used by ``make test-oldest``.
"""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def constraints(text: str) -> list[str]:
    dependencies = tomllib.loads(text)["project"]["dependencies"]
    return [re.sub(r">=([\d.]+)$", r"==\1.*", dependency) for dependency in dependencies]


if __name__ == "__main__":
    print("\n".join(constraints(PYPROJECT.read_text(encoding="utf-8"))))
