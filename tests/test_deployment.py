"""Predicting with a run's model and exporting it: the numbers are those of the run, and what travels with them."""

import csv
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.experiment_runs import config_of, job_of, make
from torch import Tensor

from nc_tools._support.damaged_file import DamagedFileError
from nc_tools.cli import main
from nc_tools.deployment import EXPORT_FORMATS, Predictor, export_run, predict_folder
from nc_tools.deployment.commands import summary_lines
from nc_tools.deployment.model_card import CardTexts
from nc_tools.experiment import ModelConfig, load_run
from nc_tools.experiment.run_data import open_data

pytestmark = pytest.mark.slow

timm = pytest.importorskip("timm")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.manual_seed(3)
    weights = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(timm.create_model("resnet10t").state_dict(), weights)
    network = ModelConfig(name="timm:resnet10t", weights=str(weights), image_size=24, train="last:1")
    return replace(config_of("etf_la"), model=network)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, config: Any) -> Path:
    root = tmp_path_factory.mktemp("runs")
    holdout, _ = make(job_of(root, "holdout", config=config))
    final, _ = make(job_of(root, "final", config=config, holdout_run=holdout.run))
    assert final.run is not None
    return final.run  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    result, _ = make(job_of(tmp_path_factory.mktemp("scratch"), "final"))
    assert result.run is not None
    return result.run  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def pixels(config: Any) -> Tensor:
    data = open_data(config, seed=0, device=torch.device("cpu"), cache=Path("unused"))
    return data.sources.test.take(torch.arange(len(data.sources.test)))


def recorded(run: Path) -> tuple[Tensor, Tensor]:
    """Logits of the test images and calibrated probabilities, from the files of the run."""
    stored = load_file(run / "predictions.safetensors")
    scaled = stored["test_logits"].double() / float(stored["temperature"][0])
    exponentials = (scaled - scaled.max(1, keepdim=True).values).exp()
    return stored["test_logits"], exponentials / exponentials.sum(1, keepdim=True)


def test_predictions_are_those_of_the_run(run: Path, pixels: Tensor) -> None:
    predictor = Predictor.load(run)
    logits, probabilities = recorded(run)
    predictions = predictor(pixels)
    assert predictor.is_calibrated
    assert torch.allclose(predictions.probabilities.double(), probabilities, atol=1e-5)
    assert torch.equal(predictions.labels, probabilities.argmax(1))
    energies = [float(np.log(np.exp(row.numpy().astype(np.float64)).sum())) for row in logits]
    assert np.allclose(predictions.energy.numpy(), energies, atol=1e-4)
    # Of n test images, the one with rank r has n - r - 1 images above it.
    assert predictions.unusual is not None
    ranks = np.argsort(np.argsort(energies))
    expected = (len(ranks) - ranks - 1) / len(ranks)
    assert np.abs(predictions.unusual.numpy() - expected).max() <= 2 / len(ranks)  # images of nearly equal energy


def test_a_run_without_a_holdout_run_is_not_calibrated(scratch: Path) -> None:
    predictor = Predictor.load(scratch)
    assert (predictor.temperature, predictor.is_calibrated) == (1.0, False)
    (scratch / "predictions.safetensors").rename(scratch / "gone")
    try:
        bare = Predictor.load(scratch)
        assert bare(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).unusual is None
    finally:
        (scratch / "gone").rename(scratch / "predictions.safetensors")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"temperature": torch.ones(0)}, "must hold one positive number as temperature, got []"),
        ({"temperature": torch.zeros(1)}, "must hold one positive number as temperature, got [0.0]"),
        ({"temperature": torch.tensor([float("nan")])}, "must hold one positive number as temperature, got [nan]"),
        ({"test_logits": torch.ones(3, 4, dtype=torch.int64)}, "must hold floating-point test_logits (N, "),
        ({"test_logits": torch.ones(3, 99)}, "it belongs to another run"),
    ],
)
def test_damaged_predictions_are_one_sentence(
    tensors: dict[str, Tensor], message: str, scratch: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(scratch, tmp_path / "run"))
    save_file(tensors, copy / "predictions.safetensors")
    with pytest.raises(DamagedFileError, match=re.escape(message)) as raised:
        Predictor.load(copy)
    assert str(copy / "predictions.safetensors") in str(raised.value)


def test_predictions_that_are_a_pipe_are_not_waited_for(scratch: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(scratch, tmp_path / "run"))
    (copy / "predictions.safetensors").unlink()
    os.mkfifo(copy / "predictions.safetensors")
    with pytest.raises(DamagedFileError, match=r"predictions\.safetensors"):
        Predictor.load(copy)


@pytest.fixture
def folder(tmp_path: Path, pixels: Tensor) -> Path:
    """Ten test images as files in subfolders, a broken one, and a file that is no image."""
    for place, image in enumerate(pixels[:10]):
        path = tmp_path / "photos" / f"part{place % 2}" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(path)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "photos" / "notes.txt").write_text("hello")
    return tmp_path / "photos"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_predicted_into_a_table(run: Path, folder: Path, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    predictor = Predictor.load(run)
    summary = predict_folder(
        predictor, folder, tmp_path / "p.csv", top=2, progress=lambda *numbers: done.append(numbers)
    )
    rows = rows_of(tmp_path / "p.csv")
    assert list(rows[0]) == [
        "path", "class_1", "probability_1", "class_2", "probability_2", "energy", "unusual", "error",
    ]  # fmt: skip
    assert [row["path"] for row in rows] == [
        "broken.jpg", *(f"part{p}/{i}.png" for p in (0, 1) for i in range(p, 10, 2)),
    ]  # fmt: skip
    assert rows[0]["error"] == "no image"
    assert rows[0]["class_1"] == ""
    _, probabilities = recorded(run)
    for row in rows[1:]:
        place = int(Path(row["path"]).stem)
        best = probabilities[place].topk(2)
        assert [row["class_1"], row["class_2"]] == [predictor.classes[label] for label in best.indices.tolist()]
        assert [float(row["probability_1"]), float(row["probability_2"])] == pytest.approx(
            best.values.tolist(), abs=2e-6
        )
        assert 0 <= float(row["unusual"]) <= 1
    assert (summary.images, summary.unreadable) == (10, {"broken.jpg": "no image"})
    assert sum(summary.by_class.values()) == 10
    assert done[-1] == (11, 11)


def test_more_classes_than_there_are_and_one_image(run: Path, folder: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(run)
    predict_folder(predictor, folder / "part0" / "0.png", tmp_path / "p.csv", top=99)
    (row,) = rows_of(tmp_path / "p.csv")
    assert f"class_{len(predictor.classes)}" in row
    assert f"class_{len(predictor.classes) + 1}" not in row
    assert sum(float(v) for k, v in row.items() if k.startswith("probability")) == pytest.approx(1, abs=1e-5)


def test_class_names_that_are_formulas_do_not_act_in_a_spreadsheet(run: Path, folder: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(run)
    facts = replace(predictor.trained.facts, classes=tuple(f"=1+{i}" for i in range(len(predictor.classes))))
    evil = replace(predictor, trained=replace(predictor.trained, facts=facts))
    predict_folder(evil, folder, tmp_path / "p.csv")
    assert all(row["class_1"].startswith("'=1+") for row in rows_of(tmp_path / "p.csv")[1:])


def test_probabilities_that_are_hardly_more_than_a_guess_are_told(run: Path, folder: Path, tmp_path: Path) -> None:
    """A temperature of a hold-out of few images, most of them misclassified with confidence, has no upper limit."""
    predictor = Predictor.load(run)
    for temperature, expected in ((0.01, False), (1e5, True)):
        flat = replace(predictor, temperature=temperature)
        lines = summary_lines(flat, predict_folder(flat, folder, tmp_path / "p.csv"))
        assert any(line.endswith("Use the order of the classes, not the probabilities") for line in lines) is expected


def test_the_commands(run: Path, folder: Path, tmp_path: Path, capsys: Any) -> None:
    main(["predict", str(run), str(folder), "--out", str(tmp_path / "p.csv"), "--device", "cpu"])
    shown = capsys.readouterr().out
    assert "10 images: " in shown
    assert "1 files cannot be read: broken.jpg (no image)" in shown
    assert "more unusual than 99 %" in shown
    main(["export", str(run), "--to", "safetensors", "--out", str(tmp_path / "e")])
    assert f"exported: {tmp_path / 'e'}" in capsys.readouterr().out
    main(["predict", str(tmp_path / "e"), str(folder), "--out", str(tmp_path / "q.csv"), "--device", "cpu"])
    assert (tmp_path / "q.csv").read_text() == (tmp_path / "p.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "RUN", "nowhere"], "nowhere does not exist: give a folder of images"),
        (["predict", "RUN", "EMPTY"], "holds no image file"),
        (["predict", "RUN", "RUN/../..", "--top", "0"], "must be at least 1, got 0"),
        (["predict", "EMPTY", "EMPTY"], "is not the folder of a finished run"),
        (["export", "RUN", "--to", "onnx", "--out", "RUN"], "is not an empty folder"),
        (
            ["export", "RUN", "--to", "onnx", "--out", "new", "--register", "x"],
            "only an MLflow model can be registered",
        ),
        (
            ["export", "RUN", "--to", "mlflow", "--out", "new", "--tracking-uri", "sqlite:///x.db"],
            "add --register NAME",
        ),
        (
            ["export", "RUN", "--to", "mlflow", "--out", "new", "--register", "birds/v2"],
            "must be a text without / and :, got 'birds/v2'",
        ),
        (["export", "RUN", "--to", "onnx", "--out", "RUN/run.json/new"], "Cannot write to the output folder"),
        (["predict", "RUN", "EMPTY", "--modules", "no_such_module"], "no_such_module"),
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], message: str, run: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "empty").mkdir()
    texts = [a.replace("RUN", str(run)).replace("EMPTY", str(tmp_path / "empty")) for a in arguments]
    with pytest.raises(SystemExit) as end:
        main(texts)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_every_export_carries_its_card_classes_and_preprocessing(run: Path, pixels: Tensor, tmp_path: Path) -> None:
    texts = CardTexts(data_licence="CC BY 4.0", intended_use="sorting digits")
    export_run(run, "torch-export", tmp_path / "e", texts=texts)
    card = (tmp_path / "e" / "README.md").read_text()
    final = json.loads((run / "final.json").read_text())
    table = json.loads((run / "per_class.json").read_text())
    assert "Licence of the images: CC BY 4.0." in card
    assert "sorting digits" in card
    assert "Licence of the pretrained weights: not stated by their source" in card
    values = final.get("metrics", final)
    assert f"{100 * values['test/gen/accuracy']:.1f}"[:4] in card
    for name, train, test, recall in zip(
        table["classes"], table["train_counts"], table["test_counts"], table["recall"], strict=True
    ):
        assert f"| {name} | {train} | {test} | {recall:.3f} |" in card
    assert json.loads((tmp_path / "e" / "classes.json").read_text()) == table["classes"]
    rule = json.loads((tmp_path / "e" / "preprocessing.json").read_text())
    assert rule["input"]["shape"] == ["batch", 3, 24, 24]
    # With Pillow alone, the steps give the pixels that the run's own preprocessing gives, up to rounding.
    image = Image.fromarray(pixels[0, 0].numpy()).convert("RGB")
    for step in rule["steps"]:
        if step["step"] == "resize":
            image = image.resize((step["to"], step["to"]), Image.Resampling[step["interpolation"].upper()])
        elif step["step"] == "crop":
            image = image.crop(step["box"])
    expected = Predictor.load(run).trained.facts.preprocessing
    assert expected is not None
    own = expected.geometry(pixels[:1]).expand(-1, 3, -1, -1)[0].permute(1, 2, 0)
    assert abs(np.asarray(image).astype(int) - own.numpy().astype(int)).max() <= 2


def test_an_export_that_fails_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(_predictor: Predictor, _run: Path, out: Path) -> None:
        (out / "model.onnx").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(EXPORT_FORMATS, "onnx", half)
    with pytest.raises(OSError, match="No space left"):
        export_run(run, "onnx", tmp_path / "exports" / "new")
    assert list((tmp_path / "exports").iterdir()) == []


def test_markdown_in_names_stays_text(run: Path, tmp_path: Path) -> None:
    from nc_tools.deployment.model_card import model_card

    predictor = Predictor.load(run)
    facts = replace(predictor.trained.facts, classes=("a|b", "<script>", *predictor.classes[2:]))
    card = model_card(replace(predictor, trained=replace(predictor.trained, facts=facts)), run, CardTexts())
    assert "a\\|b" in card
    assert "<script>" not in card


@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")  # torch.export.load of PyTorch 2.10
def test_a_program_of_torch_gives_the_runs_probabilities(run: Path, pixels: Tensor, tmp_path: Path) -> None:
    export_run(run, "torch-export", tmp_path / "e")
    program = torch.export.load(tmp_path / "e" / "model.pt2").module()
    predictor = Predictor.load(run)
    expected = predictor.trained.facts.preprocessing
    assert expected is not None
    logits, probabilities = recorded(run)
    for number in (1, 7):
        found = program(expected.geometry(pixels[:number]))
        assert torch.allclose(found[0], logits[:number], atol=1e-4)
        assert torch.allclose(found[1].double(), probabilities[:number], atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings(r"ignore:.isinstance\(treespec, LeafSpec\). is deprecated:FutureWarning")  # of PyTorch 2.10
def test_onnx_gives_the_runs_probabilities(run: Path, pixels: Tensor, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    export_run(run, "onnx", tmp_path / "e")
    session = onnxruntime.InferenceSession(tmp_path / "e" / "model.onnx")
    expected = Predictor.load(run).trained.facts.preprocessing
    assert expected is not None
    logits, probabilities = recorded(run)
    for number in (1, 7):
        images = expected.geometry(pixels[:number]).numpy()
        found = session.run(["logits", "probabilities"], {"images": images})
        assert np.allclose(found[0], logits[:number].numpy(), atol=1e-4)
        assert np.allclose(found[1], probabilities[:number].numpy(), atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == json.loads((tmp_path / "e" / "classes.json").read_text())
    assert json.loads(metadata["preprocessing"])["input"]["type"] == "uint8"


def test_a_safetensors_export_loads_like_the_run(run: Path, pixels: Tensor, tmp_path: Path) -> None:
    export_run(run, "safetensors", tmp_path / "e")
    first, again = Predictor.load(run), Predictor.load(tmp_path / "e")
    assert torch.equal(again(pixels[:5]).probabilities, first(pixels[:5]).probabilities)
    assert torch.equal(load_run(tmp_path / "e").predict(pixels[:5]), first.trained.predict(pixels[:5]))


def test_a_network_from_scratch_exports_too(scratch: Path, tmp_path: Path) -> None:
    export_run(scratch, "torch-export", tmp_path / "e")
    program = torch.export.load(tmp_path / "e" / "model.pt2").module()
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    assert torch.allclose(program(images)[0], load_run(scratch).predict(images), atol=1e-4)


def test_low_rank_additions_are_part_of_the_exported_weights(config: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft")
    lora = replace(config, model=replace(config.model, train="lora:2"))
    result, _ = make(job_of(tmp_path, "final", config=lora))
    assert result.run is not None
    export_run(result.run, "torch-export", tmp_path / "e")
    program = torch.export.load(tmp_path / "e" / "model.pt2")
    assert not any("lora" in name for name in program.state_dict)
    images = torch.randint(0, 256, (3, 3, 24, 24), dtype=torch.uint8)
    loaded = load_run(result.run)
    expected = loaded.facts.preprocessing
    assert expected is not None
    with torch.no_grad():
        logits = loaded.model(expected.normalize(images))
    assert torch.allclose(program.module()(images)[0], logits, atol=1e-4)


def test_the_formats_of_the_command_are_those_of_the_function() -> None:
    import argparse

    from nc_tools.cli import parser

    commands = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    choices = next(a.choices for a in commands.choices["export"]._actions if a.dest == "to")
    assert choices is not None
    assert set(choices) == set(EXPORT_FORMATS)
    documented = set(re.findall(r"- ``([\w-]+)``:", export_run.__doc__ or ""))
    assert documented == set(EXPORT_FORMATS)
