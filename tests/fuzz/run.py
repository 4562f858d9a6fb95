#!/usr/bin/env python3
"""Runs one fuzz target for some seconds from seeds that reach deep into the format: run.py EXE KIND FOLDER SECONDS."""
import gzip
import json
import os
import pathlib
import struct
import subprocess
import sys


def safetensors(header, data):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def seeds(kind):
    if kind == "safetensors":
        entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
        yield safetensors({"a": entry, "__metadata__": {"k": "v"}}, bytes(24))
        for dtype, size in [("F64", 8), ("BF16", 2), ("I64", 8), ("I32", 4), ("I8", 1), ("U8", 1), ("BOOL", 1)]:
            b = {"dtype": dtype, "shape": [3], "data_offsets": [24, 24 + 3 * size]}
            yield safetensors({"a": entry, "b": b}, bytes(24 + 3 * size))
        yield safetensors({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 24]}}, bytes(24))
        yield struct.pack("<Q", 2**63) + b"{}"
    elif kind == "idx":
        for code, size in [(8, 1), (9, 1), (12, 4), (13, 4), (14, 8)]:
            plain = struct.pack(">BBBBII", 0, 0, code, 2, 2, 3) + bytes(6 * size)
            yield plain
            yield gzip.compress(plain, mtime=0)
        yield struct.pack(">BBBBII", 0, 0, 8, 2, 2**31, 2**31)
        yield gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, 10), mtime=0)[:-4]
    elif kind == "coding":  # coder, alphabet − 1, count; a table or a stream
        for coder in range(4):
            yield bytes([coder, 15, 40, 0]) + bytes(range(60))
            yield bytes([coder, 3, 200, 1]) + bytes(40)
        yield bytes([0, 3, 16, 0, 0b01000101, 0b01010110, 0b11000110, 0b11])
    elif kind == "packed":  # written by packed_corpus
        for path in sorted((pathlib.Path(__file__).resolve().parent / "packed").glob("*.hex")):
            yield bytes.fromhex(path.read_text(encoding="ascii"))


def main():
    exe, kind, folder, seconds = sys.argv[1:]
    corpus = pathlib.Path(folder)
    corpus.mkdir(parents=True, exist_ok=True)
    if kind in ("checkpoint", "graph"):  # of the very run or network that the target has
        subprocess.run([exe], env={**os.environ, "HONE_FUZZ_SEED": str(corpus / "seed")}, check=True)
    for i, seed in enumerate(seeds(kind)):
        (corpus / f"seed{i}").write_bytes(seed)
    return subprocess.call([exe, str(corpus), f"-max_total_time={seconds}", "-max_len=8192", "-rss_limit_mb=1024",
                            "-malloc_limit_mb=256", "-timeout=10", f"-artifact_prefix={corpus}-", "-print_final_stats=1"])


if __name__ == "__main__":
    sys.exit(main())
