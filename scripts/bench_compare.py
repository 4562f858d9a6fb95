#!/usr/bin/env python3
"""Runs Hone's and PyTorch's LeNet loops alternately and prints medians, spread and ratios. Called by scripts/bench."""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile


def measure(command, threads):
    # The thread pools of both sides read these at start; each program also sets its count itself.
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads))
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def processor():
    try:
        with open("/proc/cpuinfo") as info:
            for line in info:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def save(path, result):
    folder = os.path.dirname(os.path.abspath(path))
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as out:
        json.dump(result, out, indent=2)
        out.write("\n")
    os.chmod(out.name, 0o644)
    os.replace(out.name, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hone", required=True)
    parser.add_argument("--peer-python", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--batches", default="32 64 256")
    parser.add_argument("--threads", default="1 2")
    parser.add_argument("--json", default="")
    o = parser.parse_args()
    if o.rounds < 1 or o.seconds <= 0:
        sys.exit("bench: --rounds must be at least 1 and --seconds above 0")
    peer = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench_torch.py")
    rows, versions, simd = [], {}, ""
    print(f"{processor()}; LeNet, 3x32x32, Adam; samples/s, median of {o.rounds} (lowest-highest)")
    print(f"{'batch':>6} {'threads':>8} {'hone':>24} {'pytorch':>24} {'ratio':>7}")
    for threads in sorted({int(t) for t in o.threads.split()}):
        for batch in (int(b) for b in o.batches.split()):
            arguments = ["--batch", str(batch), "--threads", str(threads), "--seconds", str(o.seconds)]
            ours, theirs = [], []
            for _ in range(o.rounds):
                got = measure([o.hone, *arguments], threads)
                ours.append(got["samples_per_second"])
                versions.update(hone=got["version"], blas=got["blas"])
                simd = got["simd"]
                if o.peer_python:
                    got = measure([o.peer_python, "-W", "ignore", peer, *arguments], threads)
                    theirs.append(got["samples_per_second"])
                    versions["pytorch"] = got["version"]
            row = {"name": f"lenet_train_b{batch}_t{threads}", "batch": batch, "threads": threads}
            cells = []
            for name, values in (("hone", ours), ("pytorch", theirs)):
                if not values:
                    cells.append("-")
                    continue
                middle, low, high = statistics.median(values), min(values), max(values)
                row[f"{name}_samples_per_second"] = round(middle, 1)
                row[f"{name}_samples_per_second_lowest"] = round(low, 1)
                row[f"{name}_samples_per_second_highest"] = round(high, 1)
                cells.append(f"{middle:,.0f} ({low:,.0f}-{high:,.0f})")
            ratio = statistics.median(ours) / statistics.median(theirs) if theirs else None
            row["ratio"] = round(ratio, 3) if ratio else None
            rows.append(row)
            verdict = "-" if ratio is None else f"{ratio:.2f}" + ("" if ratio >= 1 else " loses")
            print(f"{batch:>6} {threads:>8} {cells[0]:>24} {cells[1]:>24} {verdict:>7}", flush=True)
    print(", ".join(f"{k}: {v}" for k, v in versions.items()))
    if o.json:
        save(o.json, {"job": "bench_lenet_train",
                      "machine": {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "simd": simd,
                                  "versions": versions},
                      "settings": {"rounds": o.rounds, "seconds": o.seconds, "optimizer": "adam"}, "rows": rows})


if __name__ == "__main__":
    main()
