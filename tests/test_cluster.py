"""Comparisons on a real Ray cluster of two nodes on this machine: one is lost, one lacks the data, one is stopped."""

import contextlib
import gc
import importlib.util
import io
import json
import re
import shlex
import shutil
import signal
import socket
import sys
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import psutil
import pytest
from rich.console import Console
from safetensors.torch import load_file
from support.experiment_runs import config_of, job_of
from support.faulty_servers import free_port
from support.image_folders import make_tree
from support.recipe_commands import run_script
from support.runs_here import runs_here

from nc_tools._support.signals import StopSignal
from nc_tools.data import DataConfig
from nc_tools.experiment import Protocol
from nc_tools.experiment.cluster import ray_connection
from nc_tools.experiment.cluster.cluster_workers import ClusterWorkers
from nc_tools.experiment.cluster.node_task import Origin
from nc_tools.experiment.cluster.ray_connection import Cluster, connected, room
from nc_tools.experiment.plan import Plan, RunOptions
from nc_tools.experiment.recipe_cli import run_recipe
from nc_tools.experiment.run_job import open_job, run_job
from nc_tools.experiment.run_pack import PackJob
from nc_tools.experiment.run_plan import run_plan
from nc_tools.run_records import read_run

ROOT = Path(__file__).parents[1]
TIMED = {"perf/seconds", "perf/images_per_s", "perf/evaluation_seconds"}
# The nodes are on the loopback address, as Ray's own setting for systems with firewall questions has it.
# Ray's tasks are nice; beside another test process on the same cores they would hardly go on.
RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0"}
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}


def plan():
    protocol = Protocol(seeds=(0, 1), rates=(0.1,), max_extensions=0, curve_points=2)
    arms = {arm: config_of(arm) for arm in ("linear", "etf")}
    return Plan(name="test", question="Why?", arms=arms, protocol=protocol)


def options(out, cluster=None):
    return RunOptions(out=out, device="cpu", workers=2, threads=1, pack=2, cluster=cluster)


@pytest.fixture(scope="module")
def ray_settings():
    """Ray's settings, which it reads once, when it is imported."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs Ray: pip install 'ray[client]'")
    assert "ray" not in sys.modules, "Ray must be imported only where a cluster is used"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in RAY.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


@pytest.fixture(scope="module")
def nodes(ray_settings):
    """A cluster with a head and a second node, each with one processor for runs."""
    from ray.cluster_utils import Cluster as LocalCluster

    handler = signal.getsignal(signal.SIGTERM)
    port = free_port()
    started = LocalCluster(initialize_head=True, head_node_args=NODE | {"ray_client_server_port": port})
    second = started.add_node(**{name: value for name, value in NODE.items() if name != "include_dashboard"})
    signal.signal(signal.SIGTERM, handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", started.address)  # other clusters may run on this machine
        yield started, second, f"127.0.0.1:{port}"
    started.shutdown()
    del started, second
    with warnings.catch_warnings():  # Ray has not waited for the processes that it has ended
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@contextlib.contextmanager
def lost_in_mid_task(started, node, begun):
    """Kill a node as soon as something has begun and a task runs there."""
    (raylet,) = (info.process.pid for info in node.all_processes["raylet"])
    ended, killed = threading.Event(), []

    def running():
        names = []
        for child in psutil.Process(raylet).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                names.append(" ".join(child.cmdline()))
        return any("make_on_node" in name for name in names)

    def watch():
        while not ended.is_set():
            if begun() and running():
                killed.append(time.monotonic())
                started.remove_node(node, allow_graceful=False)
                return
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def record_of(run):
    """What must not differ by where a run was made."""
    stored = read_run(run)
    steps = [step for step, _ in stored.curves()["train/loss"]]
    assert steps == sorted(set(steps))
    final = {key: value for key, value in stored.final.items() if key not in TIMED}
    return stored.status, stored.identity.arm, stored.identity.seed, final, stored.curves()


def weights_of(run):
    path = run / "weights.safetensors"
    return {name: value.tolist() for name, value in load_file(path).items()} if path.exists() else {}


@pytest.mark.parametrize(
    ("address", "more", "message"),
    [
        ("here", {}, "--cluster must be auto or ray://HOST:PORT, got 'here'"),
        ("auto", {"gpus": 0.0}, "--gpus-per-task is the share of a GPU, above 0 and at most 1, got 0"),
        ("auto", {"gpus": 2.0}, "above 0 and at most 1, got 2"),
    ],
)
def test_an_address_or_a_share_that_makes_no_sense_is_refused(address, more, message):
    with pytest.raises(ValueError, match=re.escape(message)), connected(address, **more):
        pass


def test_without_ray_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(ray_connection.importlib.util, "find_spec", lambda _: None)
    message = r"--cluster needs Ray, which is not installed: pip install 'ray\[client\]'"
    with pytest.raises(ValueError, match=message), connected("auto"):
        pass


def test_a_cluster_that_does_not_answer_is_named_at_once(monkeypatch, tmp_path):
    place = f"127.0.0.1:{free_port()}"
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs Ray: pip install 'ray[client]'")
    started = time.monotonic()
    message = (
        f"cannot connect to the Ray cluster at ray://{place}: check that it runs, and that the port is that of Ray's"
    )
    with pytest.raises(ConnectionError, match=message), connected(f"ray://{place}"):
        pass
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(place)  # of one that has crashed
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConnectionError, match="no Ray cluster runs on this machine: start one"), connected("auto"):
        pass
    monkeypatch.setenv("RAY_ADDRESS", place)
    with pytest.raises(ConnectionError, match=f"at {place}, which RAY_ADDRESS names: check"), connected("auto"):
        pass
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("nodes", "device", "gpus", "message"),
    [
        ([{"CPU": 8.0, "GPU": 1.0}], "cuda:1", None, "must be auto, cpu or cuda: Ray chooses the GPU, got 'cuda:1'"),
        ([{"CPU": 8.0}], "cuda", None, "no node with a GPU and a processor: use --device cpu"),
        ([{"CPU": 8.0}], "auto", 0.5, "--gpus-per-task 0.5 is for GPUs, and these runs train on CPUs: leave it out"),
        ([{"CPU": 8.0, "GPU": 1.0}], "cpu", 0.5, "--gpus-per-task 0.5 is for GPUs"),
        ([{"memory": 8.0}], "auto", None, "no node with a processor for runs: add one"),
        ([], "cpu", None, "no node with a processor for runs: add one"),
    ],
)
def test_a_cluster_without_room_is_refused(nodes, device, gpus, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        room(nodes, device=device, gpus=gpus)


def test_room_is_counted_by_node():
    mixed = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 3.0, "GPU": 1.0}, {"CPU": 64.0}, {"GPU": 8.0}]
    assert room(mixed, device="auto", gpus=1 / 3) == Cluster(nodes=2, tasks=9, device="cuda", cpus=1, gpus=1 / 3)
    assert room(mixed[:1], device="cuda", gpus=None) == Cluster(nodes=1, tasks=2, device="cuda", cpus=4, gpus=1.0)
    assert room(mixed, device="cpu", gpus=None) == Cluster(nodes=3, tasks=75, device="cpu", cpus=1, gpus=0.0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cluster", "auto", "--workers", "2"], "--workers 2 is for runs on this machine, and --cluster auto makes"),
        (["--gpus-per-task", "0.5"], "--gpus-per-task 0.5 is for runs on a cluster: add --cluster, or leave it out"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as ended:
        run_recipe(plan().arms, name="test", question="Why?", argv=[*flags, "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_task_of_a_notebook_leaves_no_file_of_the_main_module(monkeypatch):
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", sys.argv)
    notebook = Origin.here()
    assert notebook.script is None
    main.__file__ = "/worker.py"
    notebook.take()
    assert not hasattr(main, "__file__")
    replace(notebook, script="recipes/quickstart.py").take()
    assert main.__file__ == "recipes/quickstart.py"


@pytest.mark.slow
def test_without_a_cluster_on_this_machine_the_message_says_how_to_start_one(ray_settings, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    if any(process.info["name"] == "gcs_server" for process in psutil.process_iter(["name"])):
        pytest.skip("a Ray cluster runs on this machine")
    message = "no Ray cluster runs on this machine: start one with ray start --head"
    with pytest.raises(ConnectionError, match=message), connected("auto"):
        pass


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:ray", "ignore::ResourceWarning")
def test_the_commands_of_the_page_run(nodes, tmp_path, capsys):
    from ray.scripts.scripts import start

    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    lines = "".join(re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)).splitlines()
    kinds = []
    for number, line in enumerate(lines):
        program, *words = shlex.split(line.replace("FIRST:10001", nodes[2]))
        kinds.append(program)
        if program == "python":
            more = ["--smoke", "--arms", "linear,etf", "--seeds", "0", "--tracking-uri", "none"]
            with runs_here():
                run_script(ROOT / words[0], *words[1:], *more, "--out", tmp_path / str(number))
            shown = capsys.readouterr().out
            assert ("image steps, about" if "--plan" in words else "linear") in shown
            assert (tmp_path / str(number) / "report" / "comparison.html").exists() is ("--plan" not in words)
            assert ("2 nodes, 2 tasks at once on cpu" in shown) is ({"--plan", "--cluster"} <= set(words))
        elif program == "ray":
            assert words[0] == "start"
            start.make_context("ray start", words[1:])  # reads the options, and starts nothing
        elif program != "torchrun":  # which tests/test_torchrun.py runs
            assert line in ("pip install '.[ray]'", "export RAY_USAGE_STATS_ENABLED=0")
    assert kinds == ["python", "python", "torchrun", "pip", "export", "ray", "ray", "python", "python", "python"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:ray", "ignore::ResourceWarning")
def test_a_connection_that_rays_server_ends_is_made_again(nodes, monkeypatch):
    """As it does when the process for the connection did not start, which cannot be brought about here."""
    import ray

    init, addresses = ray.init, []

    def ended_once(address, **more):
        addresses.append(address)
        if len(addresses) == 1:
            raise ConnectionAbortedError("Initialization failure from server")
        return init(address, **more)

    monkeypatch.setattr(ray, "init", ended_once)
    with connected(f"ray://{nodes[2]}") as found:
        assert found.tasks == 2
    assert addresses == [f"ray://{nodes[2]}"] * 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:ray", "ignore::ResourceWarning")
def test_a_comparison_that_loses_a_node_is_that_of_a_run_at_home(nodes, tmp_path):
    started, second, _ = nodes
    home, out = tmp_path / "home", tmp_path / "cluster"
    with runs_here():
        run_plan(plan(), options(home), Console(file=io.StringIO()))
    shown = Console(file=io.StringIO(), width=200)
    with connected("auto") as found:
        assert found == Cluster(nodes=2, tasks=2, device="cpu", cpus=1, gpus=0.0)
        with lost_in_mid_task(started, second, (out / "tuning.json").exists) as killed:
            run_plan(plan(), options(out, found), shown)
    assert killed
    assert "made again, because a node or its process was lost" in shown.file.getvalue()
    expected = sorted(path.name for path in (home / "runs").iterdir())
    assert sorted(path.name for path in (out / "runs").iterdir()) == expected
    for name in expected:
        assert record_of(out / "runs" / name) == record_of(home / "runs" / name)
        assert weights_of(out / "runs" / name) == weights_of(home / "runs" / name)
        assert {p.name for p in (out / "runs" / name).rglob("*")} == {p.name for p in (home / "runs" / name).rglob("*")}
    assert (out / "tuning.json").read_text() == (home / "tuning.json").read_text()
    planned = [json.loads((folder / "experiment.json").read_text())["runs"] for folder in (home, out)]
    assert planned[0] == planned[1]
    assert len(planned[1]) == 4
    assert {row["status"] for row in planned[1]} == {"FINISHED"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:ray", "ignore::ResourceWarning")
@pytest.mark.usefixtures("one_thread")
def test_a_stopped_run_goes_on_from_its_checkpoint_and_a_node_without_the_data_is_named(nodes, tmp_path):
    config = config_of("linear")
    config = replace(config, training=replace(config.training, epochs=150))
    job = job_of(tmp_path / "cluster", "tuning", config=config)
    stop, ended = StopSignal(signals=()), []

    def end(_):
        stop.requested = True

    def make(job, stop, on_progress=lambda _: None):
        packs = [PackJob((job,)), PackJob((replace(job, seed=7),))]
        return workers.run(packs, stop=stop, on_progress=on_progress, on_result=lambda *r: ended.append(r))

    with connected("auto") as found, ClusterWorkers(found) as workers:
        stopped, _ = make(job, stop, end)
        (run,) = stopped.of_runs
        assert run.status == read_run(run.run).status == "KILLED"
        assert (run.run / "checkpoint.pt").exists()
    with connected("auto") as found, ClusterWorkers(found) as workers:
        resumed, other = make(replace(job, resume=True), StopSignal(signals=()))
        assert [resumed.of_runs[0].status, other.of_runs[0].status] == ["FINISHED", "FINISHED"]
        again = make(job, StopSignal(signals=()))
        assert all(pack.of_runs[0].earlier for pack in again)
        make_tree(tmp_path / "tree")
        images = replace(config, data=DataConfig(source=f"imagefolder:{tmp_path / 'tree'}", skip_unreadable=True))
        lost = replace(job, config=images)
        open_job(lost)  # this process has read the images; those of the nodes have not
        shutil.rmtree(tmp_path / "tree")
        message = f"the node {socket.gethostname()} cannot read what arm linear needs: .*tree"
        with pytest.raises(ValueError, match=message):
            make(lost, StopSignal(signals=()))
    alone = run_job(replace(job, root=tmp_path / "home"), lambda _: None, StopSignal())
    assert record_of(resumed.of_runs[0].run) == record_of(alone.run)
