#!/usr/bin/env python3
"""Forward latency of Hone's Executor, in f32 and on integers of 8 bits, and of PyTorch, eager and frozen, in turn; medians over the
rounds of the medians of single calls, how many times faster Hone is in f32 than the better of the two, and its integers than its f32.
Called by scripts/bench --latency."""
import argparse
import os
import statistics
import sys

from bench_compare import measure, processor, save


def middle(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hone", required=True)
    parser.add_argument("--peer-python", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--batches", default="1 64")
    parser.add_argument("--threads", default="1 2")
    parser.add_argument("--nets", default="lenet mlp resnet8")
    parser.add_argument("--json", default="")
    o = parser.parse_args()
    if o.rounds < 1 or o.seconds <= 0:
        sys.exit("bench: --rounds must be at least 1 and --seconds above 0")
    peer = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench_latency_torch.py")
    rows, versions, simd = [], {}, ""
    print(f"{processor()}; forward pass, microseconds, median of {o.rounds} (hone: lowest-highest)")
    print(f"{'net':>8} {'batch':>6} {'threads':>8} {'hone':>24} {'module':>9} {'torch':>9} {'frozen':>9} {'ratio':>7} "
          f"{'int8':>9} {'f32/int8':>9}")
    for net in o.nets.split():
        for threads in sorted({int(t) for t in o.threads.split()}):
            for batch in (int(b) for b in o.batches.split()):
                arguments = ["--net", net, "--batch", str(batch), "--threads", str(threads), "--seconds", str(o.seconds)]
                ours, int8, module, eager, frozen = [], [], [], [], []
                for _ in range(o.rounds):
                    got = measure([o.hone, *arguments], threads)
                    ours.append(got["p50_us"])
                    int8.append(got["int8_p50_us"])
                    module.append(got["module_p50_us"])
                    versions["hone"], simd = got["version"], got["simd"]
                    if o.peer_python:
                        got = measure([o.peer_python, "-W", "ignore", peer, *arguments], threads)
                        eager.append(got["eager_us"])
                        frozen.append(got["frozen_us"])
                        versions["pytorch"] = got["version"]
                hone, peers = middle(ours), [v for v in (middle(eager), middle(frozen)) if v is not None]
                ratio = min(peers) / hone if peers else None
                row = {"name": f"{net}_forward_b{batch}_t{threads}", "net": net, "batch": batch, "threads": threads,
                       "latency_us": hone, "latency_us_lowest": min(ours), "latency_us_highest": max(ours),
                       "int8_latency_us": middle(int8), "module_latency_us": middle(module), "pytorch_latency_us": middle(eager),
                       "pytorch_frozen_latency_us": middle(frozen), "ratio": round(ratio, 3) if ratio else None}
                rows.append(row)
                cells = ["-" if v is None else f"{v:,.1f}" for v in (middle(module), middle(eager), middle(frozen))]
                verdict = "-" if ratio is None else f"{ratio:.2f}" + ("" if ratio >= 1 else " loses")
                print(f"{net:>8} {batch:>6} {threads:>8} {f'{hone:,.1f} ({min(ours):,.1f}-{max(ours):,.1f})':>24} "
                      f"{cells[0]:>9} {cells[1]:>9} {cells[2]:>9} {verdict:>7} "
                      f"{middle(int8):>9,.1f} {hone / middle(int8):>9.2f}", flush=True)
    print(", ".join(f"{k}: {v}" for k, v in versions.items()))
    if o.json:
        save(o.json, {"job": "bench_latency",
                      "machine": {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "simd": simd,
                                  "versions": versions},
                      "settings": {"rounds": o.rounds, "seconds": o.seconds}, "rows": rows})


if __name__ == "__main__":
    main()
