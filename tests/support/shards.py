"""Shards of a webdataset for tests."""

import io
import tarfile

from PIL import Image

CLASSES = ("ape", "bat", "cow")


def image(i, form="JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (8 * i % 256, i % 256, 9)).save(buffer, form)
    return buffer.getvalue()


def shard(path, files):
    """Write (name, content) pairs as a tar file, as WebDataset's TarWriter does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def samples(count, start=0):
    """JPEG images of three classes, with the name of the class in KEY.cls."""
    return [
        file
        for i in range(start, start + count)
        for file in ((f"s/{i:04d}.jpg", image(i)), (f"s/{i:04d}.cls", CLASSES[i % 3].encode()))
    ]
