"""Every code block of README.md and docs/ runs, in order, as a reader would paste it."""

import functools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from support.faulty_servers import answers, free_port
from support.recipe_commands import run_script
from support.runs_here import runs_here, sync_here

from nc_tools.cli import main
from nc_tools.tracking.track import close

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# The blocks of these pages run with their commands: the README's below, the tutorial's in test_tutorial.py.
WITH_COMMANDS = ("README.md", "tutorial.md")
CLASSES = {"cat": 24, "dog": 8, "owl": 6}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, in a process group of one."""
    monkeypatch.chdir(tmp_path)
    # The graph is the same, without the minute that a C++ compiler takes.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    torch.manual_seed(0)
    yield tmp_path
    dist.destroy_process_group()


# Of transformers, peft and Lightning, about names that they will change, and about their own loaders and loggers.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:lightning", "ignore::UserWarning:peft")
@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page, "python") and page.name not in WITH_COMMANDS],
    ids=lambda page: page.name,
)
def test_python_blocks_run(page: Path, alone: Path, tmp_path_factory) -> None:
    from support.mlflow_store import migrated_store

    names: dict[str, object] = {}
    with sync_here(migrated_store(tmp_path_factory)):
        for block in blocks(page, "python"):
            exec(compile(block, page.name, "exec"), names)
        close()  # as when the program ends


def test_blocks_name_their_language() -> None:
    """A block without a language, or with one that no test runs, is not run."""
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(fences[::2]) <= {"python", "bash", "text", "{toctree}", "{include} ../CHANGELOG.md"}, page.name
        assert set(fences[1::2]) <= {""}, page.name


def photos(folder: Path) -> None:
    """Make the image folder and the weights that the README speaks of."""
    for part in ("train", "test"):
        for shade, (name, count) in enumerate(CLASSES.items()):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (32, 32), (80 * shade, 9 * i, 40)).save(folder / part / name / f"{i}.png")


def run(words: list[str], folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_commands_of_the_readme_run(alone, tmp_path_factory, capsys) -> None:
    """As functions of this process: each as a program would take five seconds to import torch."""
    import torchvision
    from safetensors.torch import save_file
    from support.mlflow_store import migrated_store

    names: dict[str, object] = {}
    with sync_here(migrated_store(tmp_path_factory)):
        for block in blocks(ROOT / "README.md", "python"):  # they write the runs that a later command compares
            exec(compile(block, "README.md", "exec"), names)
        close()  # as when the program ends
    photos(alone / "photos")
    save_file(torchvision.models.resnet18(num_classes=len(CLASSES)).state_dict(), alone / "weights.safetensors")
    lines = [line for block in blocks(ROOT / "README.md", "bash") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines]
    assert len(commands) >= 7
    for program, *words in commands:
        if program == "make":  # .ci/run makes the two set-up commands; here only their names are checked
            run(["make", "--dry-run", *words], ROOT)
        elif program == "python" and "--help" not in words:
            quick = ["--smoke", "--device", "cpu", "--arms", "linear,etf", "--tracking-uri", "none"]
            with runs_here():
                run_script(ROOT / words[0], *words[1:], *quick)
        elif program == "python":
            with pytest.raises(SystemExit) as end:
                run_script(ROOT / words[0], *words[1:])
            assert end.value.code == 0
            assert "--data" in capsys.readouterr().out
        elif program == "nc-tools":
            quick = ["--seeds", "0-1", "--epochs", "3", "--image-size", "32", "--tracking-uri", "none"]
            with runs_here(), sync_here():
                main(words + quick * (words[0] == "choose"))
        else:
            assert [program, *words] == ["pip", "install", "."]


@pytest.mark.slow
def test_the_commands_of_the_tracking_page_run(tmp_path, tmp_path_factory, monkeypatch, capsys) -> None:
    """In order, in one folder; MLflow's servers run until the next ones have been used, and end with Ctrl-C."""
    from support.mlflow_store import migrated_store

    page, port, store = ROOT / "docs" / "tracking.md", str(free_port()), migrated_store(tmp_path_factory)
    monkeypatch.chdir(tmp_path)
    Path("password.txt").write_text("hunter2")
    shutil.copy(store, "mlflow.db")  # of the server
    settings = {"PYTHONPATH": str(ROOT), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

    def start(words: list[str], address: str) -> subprocess.Popen[bytes]:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([sys.executable, *words], start_new_session=True, **quiet)
        while not answers(address):
            assert process.poll() is None, shlex.join(words)
            time.sleep(0.2)
        return process

    server = None
    with mock.patch.dict(os.environ, settings), sync_here(store):
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        exec(compile("".join(blocks(page, "python")), "loop.py", "exec"), {})
        close()  # as when the program ends
        try:
            for line in "".join(blocks(page, "bash")).splitlines():
                program, *words = shlex.split(line.replace("5000", port))
                if program == "export":
                    os.environ.update([words[0].replace("$(cat password.txt)", "hunter2").split("=", 1)])
                elif program == "mlflow":
                    server = start(["-m", "mlflow", *words, "--workers", "1"], f"http://127.0.0.1:{port}")
                elif words == ["ui", "out"]:
                    local = str(free_port())
                    words += ["--port", local, "--no-browser"]
                    process = start(["-m", "nc_tools.cli", *words], f"http://127.0.0.1:{local}")
                    process.send_signal(signal.SIGINT)
                    assert process.wait(timeout=60) == 0
                else:
                    main(words)
            report = f"MLflow, report: http://127.0.0.1:{port}/#/experiments/1/runs/"
            assert report in capsys.readouterr().out
        finally:
            if server is not None:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


@pytest.mark.slow
def test_the_install_line_installs_the_package(tmp_path: Path) -> None:
    """`pip install .`, without the download of dependencies and of the build tool."""
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("needs setuptools 77 or later in this environment, because nothing is downloaded here")
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(tmp_path / "site")]
    copy = tmp_path / "copy"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in tracked or [str(p.relative_to(ROOT)) for p in (ROOT / "nc_tools").rglob("*.*")]:
        source = ROOT / name
        if name.startswith(("nc_tools/", "pyproject", "README", "LICENSE")) and source.is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(source.read_bytes())
    run([sys.executable, "-m", "pip", "install", *flags, "."], copy)
    assert (tmp_path / "site" / "nc_tools" / "__init__.pyi").exists()
    code = "import nc_tools; print(nc_tools.__file__, nc_tools.swap_head.__name__)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(tmp_path / "site" / "nc_tools" / "__init__.py"), "swap_head"]
