"""Features of images whose labels were corrected: what is left out stays out, and groups stay whole."""

from dataclasses import replace

import torch
from support.image_folders import config, save
from support.tables import lines

from nc_tools.data import make_subsets
from nc_tools.data.label_layers import with_label_files
from nc_tools.data.load_data import load_images
from nc_tools.experiment.on_features.feature_data import labeled_sources
from nc_tools.experiment.on_features.feature_sources import SETS_FILE, FeatureSources, write_feature_sources
from nc_tools.features import FeatureSet
from nc_tools.features.feature_cache import RowsFile


def test_features_on_disk_have_the_subsets_of_their_images(tmp_path):
    for part, count in (("train", 10), ("test", 3)):
        for k, name in enumerate(("crow", "owl")):
            for i in range(count):
                save(tmp_path / "birds" / part / name / f"{part}{i}.png", color=(20 * i, 90 * k, len(part)))
    rows = ["crow/train0.png,relabel,owl", "crow/train1.png,exclude,", "owl/train2.png,exclude,"]
    file = lines(tmp_path / "c.csv", "path,decision,label", *(f"train/{row}" for row in rows))
    data = config(tmp_path / "birds", corrections=str(file), holdout=0.4)
    images, groups = load_images(data), torch.arange(20) // 2
    images = replace(images, train=replace(images.train, groups=groups))
    sources = with_label_files(images, data)

    def features(images, name):
        values = torch.rand(len(images), 4)
        values.numpy().tofile(tmp_path / f"{name}.bin")
        file = RowsFile(str(tmp_path / f"{name}.bin"), "float32", 4, len(images))
        part = FeatureSet(values, images.labels, images.classes, name, paths=images.paths, groups=images.groups)
        return part, file

    (train, train_file), (test, test_file) = features(images.train, "train"), features(images.test, "test")
    made = FeatureSources(train, test, images_fingerprint=images.images_fingerprint, root=images.root)
    path = tmp_path / f"{SETS_FILE}.safetensors"
    write_feature_sources(made, {"train": train_file, "test": test_file}, path)
    opened = labeled_sources(path, data)
    assert torch.equal(opened.train.labels, sources.train.labels)
    assert opened.images_fingerprint == sources.images_fingerprint
    for seed in range(3):
        ours, theirs = make_subsets(sources, data, seed), make_subsets(opened, data, seed)
        for name in ("train", "fit", "holdout", "outside", "counts"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
        assert not set(theirs.train.tolist()) & {1, 12}
        assert not {*groups[theirs.fit].tolist()} & {*groups[theirs.holdout].tolist()}
