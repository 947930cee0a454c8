"""Image folders and lists for runs with out-of-distribution sets."""

from PIL import Image


def pictures(root, splits, classes=("cat", "dog", "owl"), size=10):
    for split, count in splits.items():
        for k, name in enumerate(classes):
            for i in range(count):
                path = root / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (size, size), (40 * i, 90 * k, 9)).save(path)
    return f"imagefolder:{root}"


def left_out(tmp_path, *names):
    file = tmp_path / "out.csv"
    file.write_text("class,why\n" + "".join(f"{name},seen\n" for name in names))
    return str(file)
