"""Wrong labels found from features and labels alone, through the command and through the function."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from nc_tools.cli import main
from nc_tools.metrics import precision_at, rank_suspects
from nc_tools.ood import separation
from nc_tools.suspects import find_suspects, out_of_fold, out_of_fold_logits, standardized
from nc_tools.suspects.out_of_fold import held_out_logits, spread_over_folds


def classes_with_wrong_labels(n=400, d=8, k=4, rate=0.2, seed=0, counts=None):
    """Return features, given labels and true labels."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.arange(n) % k if counts is None else torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    means = 2 * torch.randn(int(true.max()) + 1, d, generator=generator)
    features = means[true] + torch.randn(len(true), d, generator=generator)
    wrong = torch.rand(len(true), generator=generator) < rate
    other = (true + torch.randint(1, k, true.shape, generator=generator)) % (int(true.max()) + 1)
    return features, torch.where(wrong, other, true), true


def auroc(suspicion, wrong):
    return separation(suspicion[wrong].double(), suspicion[~wrong].double())["auroc"]


def test_wrong_labels_come_first_and_their_number_is_known():
    x, y, true = classes_with_wrong_labels(n=2000)
    found = find_suspects(x, y)
    wrong = y != true
    assert auroc(-(found.suspects.loss_rank + found.suspects.distance_rank), wrong) > 0.98
    assert (precision_at(found.order, wrong) or 0) > 0.9
    for k in range(4):
        actual = int(wrong[y == k].sum())
        assert int(found.wrong_by_class[k]) == pytest.approx(actual, rel=0.2)
        assert int(found.likely_wrong[y == k].sum()) == int(found.wrong_by_class[k])
    assert float(wrong[found.likely_wrong].double().mean()) > 0.75
    assert float((found.suspects.suggested == true)[wrong].double().mean()) > 0.9
    assert float(found.joint.sum()) == pytest.approx(1)


def test_clean_labels_have_no_suspect():
    x, y, _ = classes_with_wrong_labels(rate=0.0)
    assert int(find_suspects(x * 5, y).likely_wrong.sum()) <= 4


def test_classes_exchanged_as_a_whole_have_no_suspect_and_the_page_says_so():
    x, y, _ = classes_with_wrong_labels(rate=0.0)
    exchanged = torch.tensor([1, 0, 2, 3])[y]
    assert int(find_suspects(x * 5, exchanged).likely_wrong.sum()) <= 4
    page = (Path(__file__).parents[1] / "docs" / "measures.md").read_text(encoding="utf-8")
    assert "names are exchanged as a whole have no suspect" in page


def test_the_logits_are_those_of_models_that_have_not_seen_the_sample(monkeypatch):
    monkeypatch.setattr(out_of_fold, "_TOLERANCE", 1e-5)
    x, y, _ = classes_with_wrong_labels(n=120)
    z = standardized(x)
    logits, strength = out_of_fold_logits(z, y, 4, folds=3, seed=5)
    fold = spread_over_folds(y, 3, 5)
    assert fold.bincount().tolist() == [40, 40, 40]
    for number in range(3):
        held = (fold == number).numpy()
        model = LogisticRegression(C=strength, tol=1e-8, max_iter=2000).fit(z.numpy()[~held], y.numpy()[~held])
        expected = torch.from_numpy(model.predict_proba(z.numpy()[held])).double()
        torch.testing.assert_close(logits[fold == number].double().softmax(1), expected, atol=1e-3, rtol=0)


def test_the_penalty_keeps_a_wide_model_from_fitting_noise():
    x, y, true = classes_with_wrong_labels(n=300, d=400, rate=0.4)
    logits, strength = out_of_fold_logits(standardized(x), y, 4)
    assert strength < 1.0
    unregularized = LogisticRegression(C=1e6, max_iter=200).fit(x.numpy(), y.numpy())
    in_sample = rank_suspects(x, torch.from_numpy(unregularized.decision_function(x.numpy())), y)
    assert auroc(rank_suspects(x, logits, y).loss, y != true) > auroc(in_sample.loss, y != true) + 0.1


def test_annotators_who_disagree_raise_the_rank():
    x, y, true = classes_with_wrong_labels(rate=0.3)
    x = x + 2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))  # features alone tell less
    people = true[:, None].repeat(1, 3)
    people[::5, 1] = -1  # one person left some out
    people[::7, 2] = (people[::7, 2] + 1) % 4
    two, three = find_suspects(x, y), find_suspects(x, y, annotations=people)
    wrong = y != true
    assert (precision_at(three.order, wrong) or 0) > (precision_at(two.order, wrong) or 0) + 0.05
    i = 5
    given = [int(label) for label in people[i] if label >= 0]
    assert float(three.disagreement[i]) == pytest.approx(sum(label != int(y[i]) for label in given) / len(given))
    values, ranks = three.disagreement.tolist(), three.disagreement_rank.tolist()
    for i in range(0, 400, 50):
        above, same = sum(v > values[i] for v in values), sum(v == values[i] for v in values)
        assert ranks[i] == above + (same + 1) / 2


def test_labels_of_a_test_set_are_judged_by_the_training_set():
    x, y, true = classes_with_wrong_labels(n=600)
    train, test = slice(0, 400), slice(400, 600)
    found = find_suspects(x[test], y[test], 4, training=(x[train], y[train]))
    wrong = y[test] != true[test]
    assert (precision_at(found.order, wrong) or 0) > 0.9
    z = standardized(x[test], x[train])
    logits, _ = held_out_logits(standardized(x[train]), y[train], z, 4)
    expected = -logits.double().log_softmax(1)[torch.arange(200), y[test]]
    torch.testing.assert_close(found.suspects.loss, expected)
    means = torch.stack([standardized(x[train])[y[train] == k].double().mean(0) for k in range(4)])
    distances = torch.cdist(z.double(), means)
    own = distances[torch.arange(200), y[test]]
    distances[torch.arange(200), y[test]] = torch.inf
    torch.testing.assert_close(found.suspects.distance, own - distances.amin(1), rtol=1e-5, atol=1e-5)


def test_rare_classes_single_samples_and_empty_classes():
    x, y, _ = classes_with_wrong_labels(counts=[200, 60, 12, 3, 1], k=2, rate=0.0)
    found = find_suspects(x, y, 7)
    assert found.alone.nonzero().flatten().tolist() == [275]
    assert int(found.order[-1]) == 275
    assert not bool(found.likely_wrong[275])
    assert found.wrong_by_class[5:].tolist() == [0, 0]
    assert int(found.wrong_by_class.sum()) < 15
    assert torch.equal(found.order.sort().values, torch.arange(276))


def test_ranks_are_fair_to_rare_classes():
    x, y, true = classes_with_wrong_labels(counts=[2000, 400, 100], k=3, rate=0.1)
    found, wrong = find_suspects(x, y), y != true
    flagged = torch.zeros(len(y), dtype=torch.bool)
    flagged[found.order[: int(wrong.sum())]] = True
    assert float(flagged[(true == 2) & ~wrong].double().mean()) < 0.1


BAD = {
    "one class": (lambda x, y: (x, torch.zeros_like(y)), "at least two classes, got one"),
    "fewer samples than folds": (
        lambda x, y: (x[:3], y[:3].clamp(max=1)),
        "from 2 to the number of samples, which is 3, got 5",
    ),
    "one sample of each class": (
        lambda x, y: (x[:5], y[:5] * 0 + torch.arange(5)),
        "each of these samples is alone in its class",
    ),
    "NaN": (lambda x, y: (x.index_fill(0, torch.tensor([1]), torch.nan), y), "features must be finite, but 1 of 400"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_bad_input(change, message):
    x, y, _ = classes_with_wrong_labels()
    with pytest.raises(ValueError, match=message):
        find_suspects(*change(x, y))
    with pytest.raises(ValueError, match="annotations must have the shape"):
        find_suspects(x, y, annotations=torch.zeros(3, 2))
    with pytest.raises(ValueError, match="the width of the features, 8, got 7"):
        rank_suspects(x, x, y, reference=(x[:, 1:], y))


# The command


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y, true = classes_with_wrong_labels(n=300, k=3)
    names = np.array(["cat", "dog", "=1+1"])
    ids = np.array([f"images/{i}.png" for i in range(300)])
    split = np.array(["train"] * 200 + ["val"] * 40 + ["test"] * 60)
    np.savez(tmp_path / "pets.npz", features=x.numpy(), labels=y.numpy(), classes=names, ids=ids, split=split)
    with (tmp_path / "people.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "given", "ann", "bob"])
        rows.writerows([ids[i], names[y[i]], names[true[i]], "" if i % 2 else names[true[i]]] for i in range(300))
    return tmp_path, y, true


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_command_lists_the_suspects_of_the_training_rows(saved, capsys):
    folder, y, true = saved
    main(["suspects", "pets.npz"])
    text = capsys.readouterr().out
    rows = table(folder / "outputs/suspects/pets/suspects.csv")
    assert len(rows) == 240
    assert "240 labels of 3 classes; about" in text
    assert {int(row["index"]) for row in rows} == set(range(240))
    assert rows[0]["path"] == f"images/{rows[0]['index']}.png"
    wrong = [bool(y[int(row["index"])] != true[int(row["index"])]) for row in rows]
    assert sum(wrong[:30]) >= 28
    names = ["cat", "dog", "'=1+1"]  # no formula for a spreadsheet
    assert [row["given"] for row in rows] == [names[int(y[int(row["index"])])] for row in rows]
    checked = [row["check"] == "yes" for row in rows]
    by_class = table(folder / "outputs/suspects/pets/classes.csv")
    assert sum(int(row["estimated_wrong"]) for row in by_class) == sum(checked)
    assert [row["class"] for row in by_class] == names
    matrix = table(folder / "outputs/suspects/pets/transition.csv")
    assert sum(float(value) for value in list(matrix[0].values())[1:]) == pytest.approx(1, abs=1e-3)


def test_a_model_that_knows_little_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    np.savez("noise.npz", features=generator.normal(size=(200, 5)), labels=np.arange(200) % 10)
    main(["suspects", "noise.npz"])
    assert "Caution: a linear model of these features predicts only" in capsys.readouterr().out


def test_a_model_that_does_no_better_than_the_largest_class_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("noise.npz", features=np.ones((50, 3)), labels=np.repeat(["a", "b"], [30, 20]))
    main(["suspects", "noise.npz"])
    assert "predicts only 60% of the given labels (the largest class has 60%)" in capsys.readouterr().out


def test_the_command_takes_the_test_rows_and_few_rows(saved, capsys):
    folder, *_ = saved
    main(["suspects", "pets.npz", "--part", "test", "--rows", "7", "--out", "found"])
    rows = table(folder / "found/suspects.csv")
    assert len(rows) == 7
    assert all(int(row["index"]) >= 240 for row in rows)
    assert "60 labels of 3 classes" in capsys.readouterr().out


def test_the_command_takes_the_columns_of_several_people(saved, capsys):
    folder, y, true = saved
    main(["suspects", "pets.npz", "--labels", "people.csv:given,ann,bob", "--out", "found"])
    assert "Disagreement with ann, bob counts as a third rank." in capsys.readouterr().out
    rows = table(folder / "found/suspects.csv")
    for row in rows[:20]:
        i = int(row["index"])
        assert float(row["disagreement"]) == float(y[i] != true[i])


def test_people_may_have_labeled_the_test_rows_only(saved, capsys):
    folder, y, true = saved
    rows = [f"images/{i}.png,{('cat', 'dog', '=1+1')[y[i]]},{('cat', 'dog', '=1+1')[true[i]]}" for i in range(240, 300)]
    (folder / "testers.csv").write_text("\n".join(["path,given,ann", *rows]))
    main(["suspects", "pets.npz", "--part", "test", "--labels", "testers.csv:given,ann", "--out", "found"])
    assert "Disagreement with ann counts as a third rank." in capsys.readouterr().out
    for row in table(folder / "found/suspects.csv")[:10]:
        i = int(row["index"])
        assert float(row["disagreement"]) == float(y[i] != true[i])


def test_training_and_test_rows_are_ranked_together(saved):
    folder, y, true = saved
    main(["suspects", "pets.npz", "--part", "all", "--out", "found"])
    rows = table(folder / "found/suspects.csv")
    assert sorted(int(row["index"]) for row in rows) == list(range(300))
    wrong = [bool(y[int(row["index"])] != true[int(row["index"])]) for row in rows]
    assert sum(wrong[:30]) >= 28


WRONG = {
    "no file": (["nothing.npz"], "the embedding file nothing.npz does not exist"),
    "column": (["pets.npz", "--labels", "people.csv:anne"], "has no column 'anne'"),
    "form": (["pets.npz", "--labels", "people.csv"], "--labels must be FILE:COLUMN or FILE:COLUMN,COLUMN"),
    "twice": (["pets.npz", "--labels", "people.csv:ann,ann"], "must name each column once"),
    "rows": (["pets.npz", "--rows", "0"], "--rows is a number of rows and must be at least 1, got 0"),
    "folds": (
        ["pets.npz", "--folds", "1"],
        "the number of folds must be from 2 to the number of samples",
    ),
    "folds for test rows": (["pets.npz", "--part", "test", "--folds", "0"], "which is 240, got 0"),
    "seed": (["pets.npz", "--seed", str(10**30)], "--seed must be a number from 0 to 2^63 - 1, got 1000"),
    "out": (["pets.npz", "--out", "people.csv"], "Cannot write to the output folder people.csv: File exists. Choose"),
    "part": (["plain.npz", "--part", "test"], "plain.npz has no test rows: give the file a split"),
    "ids": (["plain.npz", "--labels", "people.csv:given"], "plain.npz has no ids: save it with ids="),
    "table": (["pets.npz", "--test-table", "x.csv"], "data.table is about image files, and an embedding file has none"),
    "duplicates": (["pets.npz", "--drop-duplicates"], "data.drop_duplicates is about image files"),
    "review": (["pets.npz", "--review", "9"], "leave --review out"),
    "cache": (["pets.npz", "--cache", "x"], "leave out --cache"),
    "device": (["pets.npz", "--device", "cuda"], "--device is where a network computes features"),
    "class": (
        ["pets.npz", "--labels", "wrong.csv:given,ann"],
        "wrong.csv, line 2: column 'ann': the label 'fox' is neither",
    ),
}


@pytest.mark.parametrize(("argv", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_reported_in_one_line(argv, message, saved, capsys):
    folder, *_ = saved
    np.savez(folder / "plain.npz", features=np.random.default_rng(0).normal(size=(9, 2)), labels=[0, 1, 1] * 3)
    text = (folder / "people.csv").read_text().splitlines()
    (folder / "wrong.csv").write_text("\n".join([text[0], "images/0.png,cat,fox,0", *text[2:]]))
    with pytest.raises(SystemExit) as end:
        main(["suspects", *argv])
    shown = capsys.readouterr().err
    assert end.value.code == 2
    assert message in shown
    assert shown.count("\n") == 1
