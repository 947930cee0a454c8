"""Image folders for tests: a small one, and the same with damaged files."""

from PIL import Image

from nc_tools.data import DataConfig


def save(path, color=(200, 30, 60), size=(8, 8), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).convert(mode).save(path, **options)


def config(root, **options):
    return DataConfig(source=f"imagefolder:{root}", **options)


def make_tree(root):
    """Two classes, with three images each for training and two for testing."""
    for split, count in (("train", 3), ("test", 2)):
        for k, name in enumerate(("crow", "owl")):
            for i in range(count):
                save(root / split / name / f"{i}.png", color=(40 * i, 100 * k, 7))
    return root


def add_damaged_files(tree):
    """Add a file that is not an image, one that is cut short, and an empty one."""
    (tree / "train" / "crow" / "note.jpg").write_text("no image")
    save(tree / "train" / "owl" / "cut.png", size=(64, 64))
    complete = (tree / "train" / "owl" / "cut.png").read_bytes()
    (tree / "train" / "owl" / "cut.png").write_bytes(complete[: len(complete) // 2])
    (tree / "test" / "owl" / "empty.png").write_bytes(b"")
    return tree
