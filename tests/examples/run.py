#!/usr/bin/env python3
"""Runs an example as a user would and checks what it promises: run.py CASE FOLDER_OF_PROGRAMS WORK_FOLDER [--small].

--small: a few generated images instead of Fashion-MNIST, for builds that are slow on purpose. The real images are taken
from $HONE_DATA or Debian's dataset-fashion-mnist; where neither is there, generated ones too.
"""
import gzip
import json
import os
import pathlib
import random
import struct
import subprocess
import sys

PROGRAMS, WORK = pathlib.Path(), pathlib.Path()
DEBIAN = pathlib.Path("/usr/share/datasets/fashion-mnist")


def run(program, *arguments):
    done = subprocess.run([PROGRAMS / program, *map(str, arguments)], capture_output=True, text=True, timeout=240)
    return done.returncode, done.stdout, done.stderr


def succeeds(program, *arguments):
    status, out, errors = run(program, *arguments)
    assert status == 0, f"{program} {arguments}: status {status}: {errors}"
    return out


def fails(program, *arguments, says):
    """Status 1 and one line on stderr, at the end of it, that names the program and the trouble."""
    status, _, errors = run(program, *arguments)
    assert status == 1, f"{program} {arguments}: status {status}, not 1: {errors}"
    lines = [line for line in errors.splitlines() if line]
    assert lines and lines[-1].startswith(f"{program}: ") and says in lines[-1], errors
    others = [line for line in lines[:-1] if not line.startswith("epoch ")]  # what the progress bar had printed
    assert not others, f"more than one line: {errors}"


def read(path, job):
    found = json.loads(path.read_text())
    assert found["job"] == job, found
    machine = found["machine"]
    assert machine["processor"] and machine["cores"] >= 1 and machine["simd"] and "hone" in machine["versions"], machine
    assert found["settings"]["seed"] == 7 and isinstance(found["settings"]["threads"], int), found["settings"]
    assert found["seconds"] > 0
    assert found["rows"] and all(row["name"] for row in found["rows"]), found["rows"]
    return found


def write_images(folder, counts):
    """IDX files of noise with a bright bar, whose place is the class."""
    rng = random.Random(1)
    folder.mkdir(exist_ok=True)
    for part, count in counts.items():
        pixels, labels = bytearray(), bytearray()
        for _ in range(count):
            label = rng.randrange(10)
            image = bytearray(rng.randrange(40) for _ in range(784))
            for y in range(28):
                # Symmetric, so that a flip changes nothing.
                for x in (label, label + 1, 27 - label, 26 - label):
                    image[28 * y + x] = 220 + rng.randrange(36)
            pixels += image
            labels.append(label)
        for name, shape, data in (("images-idx3-ubyte.gz", (count, 28, 28), pixels), ("labels-idx1-ubyte", (count,), labels)):
            whole = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + data
            (folder / f"{part}-{name}").write_bytes(gzip.compress(whole, 1) if name.endswith(".gz") else whole)


def data_of(small):
    """(arguments, training images, least test accuracy) of a run."""
    if not small and (os.environ.get("HONE_DATA") or DEBIAN.is_dir()):
        return ["--epochs", 1], 55000, 0.80
    write_images(WORK / "images", {"train": 1600, "t10k": 300})
    return ["--data", WORK / "images", "--validation", 100, "--epochs", 2, "--width", 0.5, "--batch", 32], 1500, 0.80


def train_lenet(small):
    arguments, images, least = data_of(small)
    files = {name: WORK / name for name in ("results.json", "report.html", "net.safetensors")}
    out = succeeds("train_lenet", *arguments, "--json", files["results.json"], "--report", files["report.html"],
                   "--save", files["net.safetensors"])
    epochs = arguments[arguments.index("--epochs") + 1]
    found = read(files["results.json"], "train_lenet")
    assert found["test_accuracy"] >= least, f"test accuracy {found['test_accuracy']}, at least {least} was expected"
    assert found["validation_accuracy"] >= least - 0.05, found
    assert 0 < found["test_loss"] < 1 and found["train_samples_per_second"] > 0, found
    assert found["epochs"] == epochs == len(found["rows"]), found
    assert 0 < found["training_seconds"] < found["seconds"], found
    assert found["peak_rss_bytes"] > 1 << 20 and found["threads"] >= 1 and found["parameters"] > 1000, found
    settings = found["settings"]
    assert settings["optimizer"] == "adam" and settings["training_images"] == images, settings
    for row in found["rows"]:
        for key in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "seconds"):
            assert isinstance(row[key], float), row
    assert f"test accuracy {100 * found['test_accuracy']:.2f} %" in out, out

    # The file: its length as the header says, every parameter of the network in it.
    whole = files["net.safetensors"].read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8:8 + length])
    header.pop("__metadata__", None)
    assert set(header) == {f"{layer}.{kind}" for layer in ("conv1", "conv2", "fc1", "fc2", "fc3")
                           for kind in ("weight", "bias")}, header
    assert len(whole) == 8 + length + 4 * found["parameters"], len(whole)

    page = files["report.html"].read_text()
    assert page.rstrip().endswith("</html>") and f"{100 * found['test_accuracy']:.2f} %" in page
    assert page.count("<svg") == 2 and "Confusion matrix" in page and "Ankle boot" in page


def pruned_lenet(_):
    """train_lenet --prune on generated images: the file, the figures, a row a layer and the page's section."""
    write_images(WORK / "images", {"train": 1600, "t10k": 300})
    files = {name: WORK / name for name in ("results.json", "report.html", "net.safetensors", "pruned.safetensors")}
    out = succeeds("train_lenet", "--data", WORK / "images", "--validation", 100, "--epochs", 2, "--batch", 32,
                   "--prune", 0.2, "--prune-epochs", 2, "--seeds", 2, "--threads", 2, "--json", files["results.json"],
                   "--report", files["report.html"], "--save", files["net.safetensors"],
                   "--save-pruned", files["pruned.safetensors"])
    found = read(files["results.json"], "train_lenet")
    assert found["pruned_test_accuracy"] >= 0.8 and found["pruned_validation_accuracy"] >= 0.7, found
    assert abs(found["density"] - 0.2) < 1e-4, found
    assert found["pruned_file_bytes"] == files["pruned.safetensors"].stat().st_size, found
    assert 3 * found["pruned_file_bytes"] < found["file_bytes"], found
    assert found["latency_us"] > 0 and found["pruned_latency_us"] > 0, found
    for name in ("test_accuracy", "pruned_test_accuracy"):
        of_seeds = [row[name] for row in found["rows"] if row["name"] in ("seed 7", "seed 8")]
        assert of_seeds[0] == found[name] and abs(sum(of_seeds) / 2 - found[name + "_mean"]) < 1e-9, found
    layers = {row["name"]: row for row in found["rows"] if "runs_as" in row}
    assert list(layers) == ["conv1", "conv2", "fc1", "fc2", "fc3"], layers
    assert sum(row["kept"] for row in layers.values()) == round(0.2 * sum(row["weights"] for row in layers.values()))
    page = files["report.html"].read_text()
    assert "Pruned layers" in page and f"{100 * found['pruned_test_accuracy']:.2f} %" in page
    for name, row in layers.items():
        faster = row["sparse_us"] < 0.95 * row["dense_us"]
        assert row["runs_as"] == (row["sparse_form"] if faster else "dense"), row
        assert row["reason"].startswith("stays dense: " if row["runs_as"] == "dense" else row["runs_as"]), row
        assert row["reason"] in page and f"{name}: {row['reason']}" in out, row


def errors(_):
    write_images(WORK / "few", {"train": 200, "t10k": 20})
    data = ["--data", WORK / "few", "--epochs", 2]
    few = [*data, "--validation", 40, "--batch", 16]
    fails("train_lenet", "--data", WORK / "absent", says=str(WORK / "absent"))
    fails("train_lenet", *few, "--lr", "1e9", says="try a lower --lr")
    fails("train_lenet", *data, "--validation", 200, says="200 held out of 200 images")
    fails("train_lenet", *data, "--validation", 40, "--batch", 161, says="full batch of 161")
    fails("train_lenet", *few, "--save", WORK / "no" / "folder.safetensors", says="cannot")
    fails("linear_regression", "--lr", "1e9", says="try a lower --lr")
    fails("linear_regression", "--data", WORK / "absent.csv", says="absent.csv: cannot be read")
    fails("custom_op", "--data", WORK / "absent.csv", says="absent.csv: cannot be read")
    for arguments in (["--lr", "nan"], ["--lr", "0"], ["--lr", "1x"], ["--lr", ""], ["--nonsense"]):
        status, _, text = run("train_lenet", *arguments)
        assert status not in (0, 1) and "terminate" not in text, (arguments, status, text)

    def csv(text):
        (WORK / "table.csv").write_text(text)
        return WORK / "table.csv"
    line = "".join(f"{i},{3 * i + 1}\n" for i in range(-5, 5))
    for text in (line, "x,y\n" + line, "x,y\r\n" + line.replace("\n", "\r\n"), line + "\n\n"):
        out = succeeds("linear_regression", "--data", csv(text), "--steps", 500, "--lr", 0.05)
        assert "+3.0000 x0" in out and "+1.0000" in out.splitlines()[-1], out
    for text, says in ((f"x,y\nx,y\n{line}", "line 2"), (f"1,two\n{line}", "line 1"), (f"{line}6,\n", "line 11"),
                       (f"{line}6,7,8\n", "line 11"), (f"x,y\n1;2\n{line}", "line 2"), ("x,y\n", "holds no numbers"),
                       ("", "holds no numbers"), ("1\n2\n", "two or more")):
        fails("linear_regression", "--data", csv(text), says=says)
    fails("custom_op", "--data", csv("1,2,3\n"), "--steps", 1, says="3 columns")


def linear_regression(_):
    path = WORK / "line.json"
    out = succeeds("linear_regression", "--json", path)
    found = read(path, "linear_regression")
    assert 0.005 < found["mean_squared_error"] < 0.02, found  # noise of variance 0.01
    weights = [row["value"] for row in found["rows"]]
    assert [row["name"] for row in found["rows"]] == ["weight 0", "weight 1"], found["rows"]
    for got, want in zip(weights + [found["bias"]], (3, -2, 0.5)):
        assert abs(got - want) < 0.02, found
    assert found["settings"]["steps"] == 200 and found["settings"]["lr"] == 0.1 and "x1" in out


def custom_op(_):
    path = WORK / "op.json"
    out = succeeds("custom_op", "--steps", 300, "--json", path)
    assert "agree with central differences" in out, out
    found = read(path, "custom_op")
    assert found["mean_squared_error"] < 0.05 and isinstance(found["beta"], float), found
    first, last = (row["mean_squared_error"] for row in found["rows"])
    assert last == found["mean_squared_error"] and last < first / 5, found


def main():
    global PROGRAMS, WORK
    case, programs, work = sys.argv[1:4]
    PROGRAMS, WORK = pathlib.Path(programs), pathlib.Path(work)
    WORK.mkdir(parents=True, exist_ok=True)
    cases = {f.__name__: f for f in (train_lenet, pruned_lenet, errors, linear_regression, custom_op)}
    cases[case]("--small" in sys.argv[4:])


if __name__ == "__main__":
    main()
