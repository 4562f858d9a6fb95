#!/usr/bin/env python3
"""train_lenet, killed at any moment and resumed, ends in the bytes of one that never was: checkpoint_kill.py EXE FOLDER.

Weights, the last checkpoint and the figures that are no times are compared. Moments: at random, and inside a save (a
limit on file sizes kills the process at the first write beyond it)."""
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time

TIMES = {"seconds", "training_seconds", "train_samples_per_second", "peak_rss_bytes", "threads"}
random.seed(3)


def write_data(folder):
    """Images of three classes that a network can tell apart: bright rows at the height of the class."""
    folder.mkdir(parents=True)
    for part, count in (("train", 400), ("t10k", 60)):
        images = bytearray()
        labels = bytes(random.randrange(3) for _ in range(count))
        for label in labels:
            image = bytearray(random.randrange(90) for _ in range(784))
            for i in range(28 * (4 + 8 * label), 28 * (8 + 8 * label)):
                image[i] = 130 + random.randrange(120)
            images += image
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, count, 28, 28) + images)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels)


class Scenario:
    def __init__(self, exe, root, data, name, *settings):
        self.out = root / name
        self.out.mkdir()
        self.checkpoint, self.weights, self.results = (self.out / f for f in ("run.ckpt", "lenet.safetensors", "results.json"))
        self.command = [str(exe), "--data", str(data), "--epochs", "3", "--batch", "20", "--validation", "100", "--width",
                        "0.5", *settings, "--save", str(self.weights), "--json", str(self.results), "--checkpoint",
                        str(self.checkpoint)]

    def start(self, *more, limit=None):
        def limits():
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return subprocess.Popen([*self.command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                preexec_fn=limits)

    def finish(self, *more):
        run = self.start(*more)
        out, error = run.communicate()
        assert run.returncode == 0, error
        return out

    def figures(self):
        def without_times(record):
            return {k: v for k, v in record.items() if k not in TIMES}
        figures = json.loads(self.results.read_text(), parse_float=str)  # the digits, not what they round to
        figures["rows"] = [without_times(row) for row in figures["rows"]]
        figures["settings"] = without_times(figures["settings"])
        assert len(figures["rows"]) == 3, figures
        return without_times(figures)

    def end(self):
        return self.weights.read_bytes(), self.checkpoint.read_bytes(), self.figures()


def expect_same(got, want, what):
    for name, a, b in zip(("weights", "checkpoint", "figures"), got, want):
        assert a == b, f"{what}: the {name} differ from those of the uninterrupted run\n{a if name == 'figures' else ''}"


def kill_at_random(run, kills):
    """Starts again until it ends by itself; returns how often it was killed, and resumed inside a run."""
    def saved():
        return run.checkpoint.stat().st_mtime_ns if run.checkpoint.exists() else 0
    killed = resumed = 0
    while True:
        process = run.start("--resume", "--every", "1")
        if killed < kills:
            last, left = saved(), random.randrange(6)
            while left > 0 and process.poll() is None:
                time.sleep(0.0005)
                if saved() != last:
                    last, left = saved(), left - 1
            time.sleep(random.uniform(0, 0.012))  # about a step with its save
            process.kill()
        out, error = process.communicate()
        resumed += "resumed from" in out
        if process.returncode == 0:
            return killed, resumed
        assert process.returncode == -signal.SIGKILL, error
        killed += 1


def main():
    exe, root = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    shutil.rmtree(root, ignore_errors=True)
    data = root / "data"
    write_data(data)

    for name, settings in (("adam", ["--threads", "2"]), ("sgd", ["--optimizer", "sgd", "--augment", "crop", "--lr", "0.02"])):
        whole = Scenario(exe, root, data, f"{name}-whole", *settings)
        begin = time.monotonic()
        out = whole.finish("--resume", "--every", "1")
        seconds = time.monotonic() - begin
        assert "does not exist yet" in out, out
        want = whole.end()
        plain = Scenario(exe, root, data, f"{name}-plain", *settings)
        plain.finish()  # saves at ends of epochs only
        expect_same(plain.end(), want, f"{name}, saved seldom")

        killed_at_random = Scenario(exe, root, data, f"{name}-killed", *settings)
        killed, resumed = kill_at_random(killed_at_random, 8)
        assert killed >= 5 and resumed >= 4, (killed, resumed)
        expect_same(killed_at_random.end(), want, f"{name}, killed {killed} times")
        print(f"{name}: {seconds:.2f} s whole; killed {killed} times at random, resumed {resumed} times: the same bytes")

    # Killed in the write of a checkpoint, at every third step: the limit lies above the others, whose lengths differ.
    size = whole.checkpoint.stat().st_size
    inside = Scenario(exe, root, data, "inside", *settings)
    process = inside.start("--every", "20", limit=size // 2)
    process.communicate()
    assert process.returncode == -signal.SIGXFSZ, process.returncode
    assert not inside.checkpoint.exists()  # the first save never was whole
    process = inside.start("--every", "7")
    while not inside.checkpoint.exists() and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    former = inside.checkpoint.read_bytes()
    process = inside.start("--every", "1", "--resume", limit=size // 2)
    process.communicate()
    assert process.returncode == -signal.SIGXFSZ, process.returncode
    assert inside.checkpoint.read_bytes() == former
    assert any(f.name.endswith(".tmp") for f in inside.out.iterdir())  # it was killed inside the save
    out = inside.finish("--resume", "--threads", "1")
    assert "resumed from" in out, out
    expect_same(inside.end(), want, "killed inside a save, resumed on one thread")
    assert not any(f.name.endswith(".tmp") for f in inside.out.iterdir())

    # Resumed after the end: nothing is trained, the same test figures.
    inside.weights.unlink()
    inside.finish("--resume", "--threads", "2")
    expect_same(inside.end(), want, "resumed after the end")

    # Another run's checkpoint is refused by name and stays as it is.
    for more, part in ((["--lr", "0.5"], "--lr was 0.02, here it is 0.5"), (["--epochs", "4"], "--epochs was 3"),
                       (["--seed", "8"], "--seed was 7, here it is 8"), (["--optimizer", "adam"], "part 'optimizer'")):
        command = list(inside.command)
        if more[0] in command:
            command[command.index(more[0]) + 1] = more[1]
            more = []
        run = subprocess.run([*command, *more, "--resume"], capture_output=True, text=True)
        assert run.returncode == 1 and part in run.stderr and run.stderr.count("\n") == 1, run.stderr
    assert inside.checkpoint.read_bytes() == want[1]
    run = subprocess.run([str(exe), "--resume"], capture_output=True, text=True)
    assert run.returncode != 0 and "--checkpoint" in run.stderr + run.stdout, run.stderr
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
