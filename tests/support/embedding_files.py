"""Embedding files of a few rows, in every format."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file


def columns(rows=40, width=6, num_classes=4, seed=0, **more):
    """Random features with text labels; the first three quarters are for training."""
    random = np.random.default_rng(seed)
    values = {
        "features": random.normal(size=(rows, width)).astype(np.float32),
        "labels": np.asarray([f"class {i % num_classes}" for i in range(rows)]),
        "ids": np.asarray([f"row{i}" for i in range(rows)]),
        "split": np.asarray(["train" if i < 0.75 * rows else "test" for i in range(rows)]),
    }
    values |= more
    return {name: value for name, value in values.items() if value is not None}


def write_npz(folder, values):
    path = folder / "embeddings.npz"
    np.savez(path, **values)
    return path


def write_safetensors(folder, values):
    path = folder / "embeddings.safetensors"
    tensors = {name: value for name, value in values.items() if value.dtype.kind in "fiu"}
    texts = {name: json.dumps(value.tolist()) for name, value in values.items() if name not in tensors}
    save_file(tensors, path, metadata=texts)
    return path


def write_parquet(folder, values):
    path = folder / "embeddings.parquet"
    pq.write_table(pa.table({name: list(value) if value.ndim == 2 else value for name, value in values.items()}), path)
    return path


WRITERS = [write_npz, write_safetensors, write_parquet]
