#!/usr/bin/env python3
"""Runs an example as a user would and checks what it promises: run.py CASE FOLDER_OF_PROGRAMS WORK_FOLDER [--small].

--small: a few generated images instead of Fashion-MNIST, for builds that are slow on purpose. The real images are taken
from $HONE_DATA or Debian's dataset-fashion-mnist; where neither is there, generated ones too.
"""
import gzip
import json
import math
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
    """train_lenet --prune --pack on generated images: the files, the figures, a row a layer and the page's sections."""
    write_images(WORK / "images", {"train": 1600, "t10k": 300})
    files = {name: WORK / name for name in ("results.json", "report.html", "net.safetensors", "pruned.safetensors",
                                          "net.hone")}
    out = succeeds("train_lenet", "--data", WORK / "images", "--validation", 100, "--epochs", 2, "--batch", 32,
                   "--prune", 0.2, "--prune-epochs", 2, "--teacher-epochs", 1, "--seeds", 2, "--threads", 2, "--json", files["results.json"],
                   "--report", files["report.html"], "--save", files["net.safetensors"],
                   "--save-pruned", files["pruned.safetensors"], "--pack", files["net.hone"], "--clusters", 8,
                   "--share-epochs", 1)
    found = read(files["results.json"], "train_lenet")
    assert found["pruned_test_accuracy"] >= 0.8 and found["pruned_validation_accuracy"] >= 0.7, found
    assert abs(found["density"] - 0.2) < 1e-4, found
    assert found["pruned_file_bytes"] == files["pruned.safetensors"].stat().st_size, found
    assert 3 * found["pruned_file_bytes"] < found["file_bytes"], found
    assert found["latency_us"] > 0 and found["pruned_latency_us"] > 0, found
    assert found["packed_file_bytes"] == files["net.hone"].stat().st_size < found["huffman_file_bytes"], found
    assert 30 * found["packed_file_bytes"] < found["file_bytes"] and found["packed_latency_us"] > 0, found
    assert found["packed_test_accuracy"] >= 0.8 and found["packed_validation_accuracy"] >= 0.7, found
    alone = succeeds("train_lenet", "--data", WORK / "images", "--score", files["net.hone"])
    assert alone.startswith(f"right {round(300 * found['packed_test_accuracy'])} of 300 images, "), alone
    files["net.hone"].write_bytes(files["net.hone"].read_bytes()[:-1])
    fails("train_lenet", "--data", WORK / "images", "--score", files["net.hone"], says=str(files["net.hone"]))
    fails("train_lenet", "--score", WORK / "absent.hone", says="absent.hone")
    for name in ("test_accuracy", "pruned_test_accuracy", "packed_test_accuracy"):
        of_seeds = [row[name] for row in found["rows"] if row["name"] in ("seed 7", "seed 8")]
        assert of_seeds[0] == found[name] and abs(sum(of_seeds) / 2 - found[name + "_mean"]) < 1e-9, found
    layers = {row["name"]: row for row in found["rows"] if "runs_as" in row}
    assert list(layers) == ["conv1", "conv2", "fc1", "fc2", "fc3"], layers
    assert sum(row["kept"] for row in layers.values()) == round(0.2 * sum(row["weights"] for row in layers.values()))
    page = files["report.html"].read_text()
    assert "From the trained network to the packed file" in page and "Accuracy against bytes" in page
    assert f"{100 * found['packed_test_accuracy']:.2f} %" in page and f"{found['packed_file_bytes']:,}" in page
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
    for option in ("--save", "--json", "--report", "--checkpoint"):  # before any training
        status, _, text = run("train_lenet", *few, option, WORK / "no" / "folder")
        assert status not in (0, 1) and f"{option}: cannot be written" in text, (option, status, text)
    fails("linear_regression", "--lr", "1e9", says="try a lower --lr")
    fails("linear_regression", "--data", WORK / "absent.csv", says="absent.csv: cannot be read")
    fails("custom_op", "--data", WORK / "absent.csv", says="absent.csv: cannot be read")
    for arguments in (["--lr", "nan"], ["--lr", "0"], ["--lr", "1x"], ["--lr", ""], ["--nonsense"], ["--prune", "nan"],
                      ["--prune", "1.5"], ["--prune", "0.1x"], ["--label-smoothing", "-0.1"], ["--width", "nan"]):
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


def documents(_):
    few = [*few_images(), "--validation", 100, "--epochs", 10]
    out = succeeds("documents", *few, "--seeds", 2, "--json", WORK / "right.json")
    found = read(WORK / "right.json", "documents")
    check_rows(found, ("test_accuracy_mean", "file_bytes"))
    rows = {row["name"]: row for row in found["rows"]}
    assert len(rows) == 7 and all(name in out for name in rows) and not any("error" in row for row in rows.values()), rows
    trained, pruned = rows["trained"], rows["1: 10 % of the weights stay, by magnitude"]
    assert trained["test_accuracy_mean"] > 0.7 and pruned["test_accuracy_mean"] > 0.6, rows
    assert pruned["file_bytes"] < trained["file_bytes"] / 5, rows
    assert abs(rows["2: uniform, 8 bits"]["test_accuracy_mean"] - trained["test_accuracy_mean"]) < 0.02, rows

    out = succeeds("documents", *few, "--as-written", "--json", WORK / "written.json")
    found = read(WORK / "written.json", "documents")
    rows = {row["name"]: row for row in found["rows"]}
    errors = {name: row["error"] for name, row in rows.items() if "error" in row}
    assert list(errors.values()) == ["ShapeError", "ValueError", "DTypeError", "ShapeError"], errors
    for name, row in rows.items():
        assert name in out and ("means" in row or name in ("trained", "1: the same, retrained")), row
        if "error" in row:
            assert row["says"] in out and row["means"] in out, row
        else:
            check_rows({"rows": [row]}, ("test_accuracy_mean", "file_bytes"))
    assert "[1, 10]" in rows["1: cross_entropy(net(x), integers [1, 10])"]["says"], rows
    zeroed = rows["2: (w - 64) clipped to [0, 127], divided by a step of 1"]
    assert "100.00 %" in zeroed["means"] and zeroed["test_accuracy_mean"] < 0.2, zeroed
    only = succeeds("documents", *few, "--program", "2")
    assert "2: uniform, 4 bits" in only and "1: " not in only and "3: " not in only, only
    fails("documents", "--data", WORK / "absent", says="absent")


def inspect(_):
    """A pruned LeNet as a saved graph and packed: rows add up to the file, counts are the graph's, damage is told."""
    saved, packed, text = (WORK / name for name in ("net.safetensors", "net.hone", "i.json"))
    succeeds("train_lenet", *few_images(), "--validation", 100, "--epochs", 1, "--batch", 32, "--prune", 0.2, "--prune-epochs", 1,
             "--save-pruned", saved)
    kept = {}
    for file, arguments in ((saved, ["--pack", packed]), (packed, [])):
        out = succeeds("inspect", file, "--latency-seconds", 0.01, "--json", text, *arguments)
        found = read(text, "inspect")
        size = file.stat().st_size
        rows = {row["name"]: row for row in found["rows"]}
        assert list(rows)[:5] == ["conv1", "conv2", "fc1", "fc2", "fc3"] and all(name in out for name in rows), rows
        assert found["file_bytes"] == size and found["weights"] == 61770, found
        assert abs(sum(row.get("bytes", 0) for row in rows.values()) - size) < 1e-6, rows
        header = rows["header, graph"]["bytes"]
        assert header == 8 + struct.unpack("<Q", saved.read_bytes()[:8])[0] if file == saved else 50 < header < 120, rows
        assert found["latency_us"] > 0, found
        for row in list(rows.values())[:5]:
            parts = row["mask_bytes"] + row["value_bytes"] + row["codebook_bytes"] + row["beside_bytes"]
            assert abs(parts - row["bytes"]) < 1e-6 and row["mask_bytes"] > 0 and row["beside_bytes"] > 0, row
            assert row["latency_us"] > 0 and row["stored_as"] == "f32", row
            p = row["kept"] / row["weights"]
            assert abs(row["mask_entropy_bits"] + p * math.log2(p) + (1 - p) * math.log2(1 - p)) < 1e-9, row
            if file == saved:
                assert row["value_bytes"] == 4 * row["kept"], row
        kept[file] = [row["kept"] for row in rows.values() if "kept" in row]
    assert kept[saved] == kept[packed] and sum(kept[saved]) == round(0.2 * 61770), kept

    whole, bad = packed.read_bytes(), WORK / "bad.hone"
    for content, says in ((whole[:-9], "checksum"), (whole[:99] + bytes([whole[99] ^ 1]) + whole[100:], "checksum"),
                          (b"", "no packed network"), (b"HON\2" + whole[4:], "version 2")):
        bad.write_bytes(content)
        fails("inspect", bad, says=says)
    fails("inspect", WORK / "absent.hone", says="absent.hone")
    fails("inspect", WORK / "absent.safetensors", says="absent.safetensors")
    weights = WORK / "weights.safetensors"
    weights.write_bytes(struct.pack("<Q", 2) + b"{}")
    fails("inspect", weights, says="is no graph")


def few_images():
    write_images(WORK / "images", {"train": 700, "t10k": 200})
    return ["--data", WORK / "images", "--threads", 1]


def check_rows(found, numbers):
    """Rows whose accuracies are shares and whose other numbers are above 0."""
    for row in found["rows"]:
        for key in numbers:
            assert isinstance(row[key], (int, float)) and (0 <= row[key] <= 1 if "accuracy" in key else row[key] > 0), (key, row)


def prune_lenet(_):
    few = [*few_images(), "--validation", 100, "--dense-epochs", 3, "--epochs", 2, "--teacher-epochs", 1,
           "--recipe-epochs", 1, "--latency-seconds", 0.01, "--shares", 0.5, "--densities", 0.1]
    numbers = ("test_accuracy_mean", "weights", "macs", "file_bytes", "latency_us", "seconds")
    for structure, size in (("weights", "density"), ("kernels", "macs_share"), ("pools", "channel_share")):
        files = {name: WORK / f"{structure}.{name}" for name in ("json", "html")}
        out = succeeds("prune_lenet", *few, "--structure", structure, "--json", files["json"], "--report", files["html"])
        found = read(files["json"], "prune_lenet")
        assert found["settings"]["structure"] == structure and found["settings"]["scored_on"] == "test", found["settings"]
        refused = [row for row in found["rows"] if "refused" in row]
        dense, *pruned = found["rows"] = [row for row in found["rows"] if "refused" not in row]
        check_rows(found, numbers)
        assert dense["name"] == "dense" and dense["weights"] == 61770 and dense["macs"] == 651720, dense
        assert all(row["name"] in out for row in pruned + refused), out
        page = files["html"].read_text()
        assert page.rstrip().endswith("</html>") and "<svg" in page and all(row["name"] in page for row in pruned)
        if structure == "weights":
            assert len(pruned) == 24 and not refused, [row["name"] for row in pruned]
            for layer in ("conv1", "conv2", "fc1", "fc2", "fc3"):  # what each layer bears
                assert f"{layer}.weight" in out and f"{layer}.weight" in page, layer
            for row in pruned:
                # RigL's densities are rounded layer by layer; of blocks some are cut off at edges, so are n:m's at the end of a row.
                part, off = (0.5, 200) if row["name"][-3:] in ("2:4", "4:8") else (0.1, 700 if "blocks" in row["name"] else 5)
                assert row[size] == part and abs(row["weights"] - part * 61770) <= off and row["macs"] == dense["macs"], row
                assert row["file_bytes"] < dense["file_bytes"] * (part * 1.6), row
        if structure == "kernels":
            assert [row["name"] for row in refused] == ["bn_gamma"], refused  # LeNet has no batch norm
            assert len(pruned) == 7, pruned
            for row in pruned:
                assert row[size] == 0.5 and row["macs"] <= 0.5 * dense["macs"] and row["weights"] < dense["weights"], row
                assert row["file_bytes"] < dense["file_bytes"] and row["masked_shrunk_difference"] < 1e-4, row
        if structure == "pools":
            assert all("no pool" in row["name"] and "fc1" in row["refused"] for row in refused) and len(refused) == 3, refused
            assert len(pruned) == 6 and all(row["macs"] < dense["macs"] for row in pruned), pruned

    def row_of(*arguments):
        succeeds("prune_lenet", *few, "--only", "cubic ramp", *arguments, "--json", WORK / "row.json")
        return read(WORK / "row.json", "prune_lenet")["rows"][1]
    for file in WORK.glob("lenet_*.safetensors"):
        file.unlink()
    trained, kept = [row_of("--seeds", 1, "--keep", WORK)["test_accuracy_mean"] for _ in range(2)]
    assert trained == kept and len(list(WORK.glob("lenet_*.safetensors"))) == 2, (trained, kept)
    held_out = row_of("--held-out", "--seeds", 2)
    assert "validation_accuracy_sd" in held_out and not any(key.startswith("test") for key in held_out), held_out
    out = succeeds("prune_lenet", *few, "--structure", "kernels", "--only", "l1", "--seeds", 2, "--json", WORK / "row.json")
    row = read(WORK / "row.json", "prune_lenet")["rows"][1]
    seeds = [line.split() for line in out.splitlines() if line.startswith("l1 ")][:2]
    for column, key in ((5, "weights"), (6, "macs"), (7, "file_bytes")):
        first, second = (int(line[column]) for line in seeds)
        assert row[key] == (first + second) / 2, (key, seeds, row)
    fails("prune_lenet", *few, "--only", "cubic", says="there is no 'cubic' among 'magnitude'")


def prune_resnet(_):
    succeeds("prune_resnet", *few_images(), "--validation", 100, "--width", 8, "--macs", 0.7, "--epochs", 1, "--tune-epochs", 1,
             "--criterion", "bn_gamma", "--json", WORK / "resnet.json", "--save", WORK)
    found = read(WORK / "resnet.json", "prune_resnet")
    check_rows(found, ("test_accuracy", "validation_accuracy", "macs", "file_bytes", "latency_us", "parameters"))
    dense, pruned = found["rows"]
    assert (dense["name"], pruned["name"]) == ("dense", "pruned"), found["rows"]
    assert pruned["macs"] <= found["settings"]["macs"] * dense["macs"], found["rows"]
    for row in found["rows"]:
        assert (WORK / f"prune_resnet_{row['name']}.safetensors").stat().st_size == row["file_bytes"], row
    assert found["macs_ratio"] == dense["macs"] / pruned["macs"], found
    assert found["masked_shrunk_difference"] <= 1e-5, found


def quantize_lenet(small):
    few = [*few_images(), "--validation", 100, "--epochs", 2, "--retrain", 1, "--long-retrain", 1, "--latency-seconds", 0.002]
    some = ["uniform, 4 bits", "a width a layer, 3 bits in the mean", "int8 static", "int8 dynamic",
            "LSQ weights, PACT activations, 4 bits"]
    out = succeeds("quantize_lenet", *few, *(["--only", ";".join(some)] if small else []), "--json", WORK / "quantize.json")
    found = read(WORK / "quantize.json", "quantize_lenet")
    check_rows(found, ("bits_per_weight", "test_accuracy_at_once_mean", "test_accuracy_mean", "file_bytes", "latency_us"))
    rows = {row["name"]: row for row in found["rows"]}
    assert len(rows) == (6 if small else 74) and all(name in out for name in rows), found["rows"]
    bits = {name: row["bits_per_weight"] for name, row in rows.items()}
    assert 4 < bits["uniform, 4 bits"] < 4.1 and bits["a width a layer, 3 bits in the mean"] < 3.1, bits
    floats = rows["floats"]
    for name, row in rows.items():
        drop = 100 * (floats["test_accuracy_mean"] - row["test_accuracy_mean"])
        assert abs(drop - row["drop_points_mean"]) < 1e-9, row
        # A file holds codes: no more bytes than their bits, biases, scales, the graph and a layer's padding need. Floats
        # among the codes, or a step a channel, are more values than a codebook holds, and make floats of all.
        floats_in_file = ("floats", "mixed, 3 bits, outliers float", "dynamic by channel, 4 bits")
        assert name in floats_in_file or row["file_bytes"] < 61770 * bits[name] / 8 + 5000, row
    for name in ("int8 static", "int8 dynamic"):
        assert rows[name]["test_accuracy_at_once_mean"] == rows[name]["test_accuracy_mean"], rows[name]
        assert abs(rows[name]["drop_points_mean"]) < 3, rows[name]
    only = "codebook of 4, optimal"
    for file in WORK.glob("quantize_lenet_*"):
        file.unlink()
    succeeds("quantize_lenet", *few, "--held-out", "--seeds", 2, "--only", only, "--keep", WORK, "--json", WORK / "one.json")
    _, row = read(WORK / "one.json", "quantize_lenet")["rows"]
    assert row["name"] == only and not any(key.startswith("test") for key in row), row
    files = [WORK / f"quantize_lenet_codebook_of_4__optimal_seed_{seed}.hone" for seed in (7, 8)]
    assert sum(file.stat().st_size for file in files) / 2 == row["file_bytes"], row
    succeeds("inspect", files[0], "--latency-seconds", 0.01, "--json", WORK / "inspect.json")
    layers = {layer["name"]: layer for layer in read(WORK / "inspect.json", "inspect")["rows"]}
    assert list(layers)[:5] == ["conv1", "conv2", "fc1", "fc2", "fc3"], layers
    for layer in list(layers.values())[:5]:
        assert layer["stored_as"] == "codebook of 4" and 0 < layer["code_entropy_bits"] <= 2, layer
        assert layer["codebook_bytes"] > 0 and layer["kept"] == layer["weights"] and layer["mask_bytes"] == 0, layer
    times = [file.stat().st_mtime_ns for file in WORK.glob("quantize_lenet_floats*.safetensors")]
    succeeds("quantize_lenet", *few, "--held-out", "--seeds", 2, "--only", only, "--keep", WORK, "--json", WORK / "again.json")
    _, again = read(WORK / "again.json", "quantize_lenet")["rows"]
    assert all(again[key] == row[key] for key in row if key != "latency_us"), (row, again)
    assert times == [file.stat().st_mtime_ns for file in WORK.glob("quantize_lenet_floats*.safetensors")] and len(times) == 2
    fails("quantize_lenet", *few, "--only", "uniform", says="there is no 'uniform' among 'floats, trained on'")


def deep_compression(_):
    """Files of every size from generated images, each scored by a process of its own; the paper's networks; bad input."""
    data = [*few_images(), "--images", 640, "--validation", 100, "--epochs", 2, "--scale", 0.05]
    few = [*data, "--distil", "self"]
    kept = WORK / "kept"
    kept.mkdir(exist_ok=True)
    for old in kept.iterdir():
        old.unlink()
    out = succeeds("deep_compression", *few, "--keep", kept, "--json", WORK / "deep.json")
    whole, *rows = read(WORK / "deep.json", "deep_compression")["rows"]
    assert whole["weight_bytes"] == 248024 and 0 < whole["test_accuracy_mean"] <= 1, whole
    assert len(rows) == 6 and all(row["name"] in out for row in rows), rows
    for row in rows:
        control = row["name"].endswith("small dense")
        assert row["density"] == 1 if control else row["density"] < 0.12, row
        file, = (f for f in kept.glob("*.hone") if f.name.startswith(row["name"].replace(" ", "_").replace(",", "_") + "_seed"))
        assert file.stat().st_size == row["bytes_mean"] == row["bytes_max"] < row["huffman_bytes_mean"], row
        assert abs(whole["test_accuracy_mean"] - row["test_accuracy_mean"] - row["lost_mean"]) < 1e-9, row
        assert row["latency_us"] > 0 and 0 < row["code_entropy_bits"] <= 5, row
        alone = succeeds("deep_compression", *few[:2], "--score", file)
        assert alone.startswith(f"right {round(row['test_accuracy_mean'] * 200)} of 200 images, "), (alone, row)
    only = ["--only", "100 times", "--held-out", "--json", WORK / "one.json"]
    succeeds("deep_compression", *few, *only, "--seeds", 2)
    _, row = read(WORK / "one.json", "deep_compression")["rows"]
    assert row["name"] == "100 times" and "test_accuracy_mean" not in row and "latency_us" not in row, row
    succeeds("deep_compression", *data, "--mnist", "--distil", "none", "--json", WORK / "paper.json")
    names = [row["name"] for row in read(WORK / "paper.json", "deep_compression")["rows"]]
    assert len(names) == 4 and names[0] == "LeNet-300-100" and names[3].startswith("LeNet-5-Caffe, "), names
    fails("deep_compression", *few, "--only", "50 times", says="there is no '50 times' among '40 times'")
    fails("deep_compression", *few[:2], "--score", WORK / "deep.json", says="deep.json")


def distill_lenet(_):
    names = ["1%/alone", "10%/alone", "10%/mutual", "10%/self"]  # those that need no teacher, which takes long to train
    few = [*few_images(), "--steps", 5, "--only", ",".join(names)]
    out = succeeds("distill_lenet", *few, "--seeds", 2, "--json", WORK / "distill.json")
    found = read(WORK / "distill.json", "distill_lenet")
    check_rows(found, ("test_accuracy_mean", "validation_accuracy_mean"))
    assert [row["name"] for row in found["rows"]] == names and all(name in out for name in names), found["rows"]
    assert found["student_parameters"] <= 10000 and found["settings"]["scored_on"] == "test", found
    assert all(("gain_points_mean" in row) == (row["name"] in names[2:]) for row in found["rows"]), found["rows"]
    parts = ["10%", "1%+unlabelled/ensemble", "10%+augmented/soft", "10%+equal/soft", "100%+mirrored/large_teacher"]
    succeeds("distill_lenet", *few, "--seeds", 1, "--teacher-steps", 3, "--only", ",".join(parts), "--json", WORK / "all.json")
    rows = [row["name"] for row in read(WORK / "all.json", "distill_lenet")["rows"]]
    methods = ["alone", "soft", "teacher_class", "ensemble", "large_teacher", "decoupled", "hint", "attention", "relational", "mutual", "self"]
    assert all(name in rows for name in [f"10%/{m}" for m in methods] + parts[1:]), rows
    succeeds("distill_lenet", *few, "--seeds", 1, "--tune", "--json", WORK / "tune.json")
    tuned = read(WORK / "tune.json", "distill_lenet")
    assert len(tuned["rows"]) == 8 and not any("test" in key for row in tuned["rows"] for key in row), tuned["rows"]


def main():
    global PROGRAMS, WORK
    case, programs, work = sys.argv[1:4]
    PROGRAMS, WORK = pathlib.Path(programs), pathlib.Path(work)
    WORK.mkdir(parents=True, exist_ok=True)
    cases = {f.__name__: f for f in (train_lenet, pruned_lenet, prune_lenet, prune_resnet, quantize_lenet, deep_compression, distill_lenet,
                                     documents, inspect, errors, linear_regression, custom_op)}
    cases[case]("--small" in sys.argv[4:])


if __name__ == "__main__":
    main()
