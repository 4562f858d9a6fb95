#!/usr/bin/env python3
"""packed_format_test.py EXE FOLDER: EXE writes networks there, each packed (NAME.hone) and as a saved graph
(NAME.safetensors); what packed_format decodes must be what the graph holds."""
import json
import math
import pathlib
import struct
import subprocess
import sys

from packed_format import decode


def read_safetensors(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    graph = json.loads(header.pop("__metadata__")["hone.graph"])
    names = dict(F64="f64", F32="f32", BF16="bf16", I64="i64", I32="i32", I8="i8", U8="u8", BOOL="bool")
    kinds = dict(f64="Q", f32="I", bf16="H", i64="q", i32="i", i8="b", u8="B", bool="B")  # floats as patterns
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        kind = kinds[names[entry["dtype"]]]
        count, at = (end - begin) // struct.calcsize(kind), 8 + length + begin
        values = struct.unpack_from(f"<{count}{kind}", data, at)
        tensors[name] = (names[entry["dtype"]], entry["shape"], list(values))
    return graph, tensors


def masked(tensors, name, n):
    dtype, _, kept = tensors[name + ".kept"]
    if name + ".bits" in tensors:
        bits = tensors[name + ".bits"][2]
        mask = [bits[i // 8] >> i % 8 & 1 for i in range(n)]
    else:
        mask = []
        for gap in tensors[name + ".gaps"][2]:
            mask += [0] * gap + ([1] if gap != 255 else [])
        mask = mask[:n]
    rest = iter(kept)
    return dtype, mask, [next(rest) if m else 0 for m in mask]


def compare(a, graph, tensors):
    leaves = {leaf["name"]: leaf for leaf in a.leaves}
    assert [(i["name"], i["dtype"], i["shape"]) for i in a.inputs] == \
        [(i["name"], i["dtype"], i["shape"]) for i in graph["inputs"]]
    constants = [c["name"] for c in graph["constants"]]
    expected = [p["name"] for p in graph["parameters"]] + graph["buffers"] + constants
    assert sorted(leaves) == sorted(expected)
    for p in graph["parameters"]:
        leaf = leaves[p["name"]]
        assert leaf["kind"] == 0 and bool(leaf["frozen"]) == p.get("frozen", False)
        assert bool(leaf["dense"]) == p.get("dense_gradient", False)
        if "shape" in p:
            want = masked(tensors, p["name"], math.prod(p["shape"]))
            assert (leaf["dtype"], leaf["mask"], leaf["elements"]) == want and leaf["shape"] == p["shape"], p["name"]
        else:
            assert leaf["mask"] is None and (leaf["dtype"], leaf["shape"], leaf["elements"]) == tensors[p["name"]], p["name"]
    for name in graph["buffers"] + constants:
        leaf = leaves[name]
        assert leaf["kind"] == (1 if name in graph["buffers"] else 2)
        assert (leaf["dtype"], leaf["shape"], leaf["elements"]) == tensors[name], name
    for c in graph["constants"]:
        assert leaves[c["name"]].get("uniform") == c.get("shape")

    names = [i["name"] for i in a.inputs] + [leaf["name"] for leaf in a.leaves]
    for node, want in zip(a.nodes, graph["nodes"]):
        assert node["first"] == len(names) and node["outputs"] == len(want["outputs"])
        names += want["outputs"]

    def attributes_agree(got, want):
        fields, per_batch = got
        assert per_batch == want.get("per_batch", []) and set(fields) == set(want["fields"]), (fields, want)
        for name, v in fields.items():
            w = want["fields"][name]
            assert v == (float(w) if isinstance(v, float) else w), (name, v, w)

    assert len(a.nodes) == len(graph["nodes"])
    for node, want in zip(a.nodes, graph["nodes"]):
        assert (node["name"], node["op"]) == (want["name"], want["op"])
        assert [None if v is None else names[v] for v in node["inputs"]] == want["inputs"]
        attributes_agree(node["attributes"], want["attributes"])
        assert (node["train"] is not None) == ("train" in want)
        if node["train"]:
            attributes_agree(node["train"], want["train"])
        assert bool(node["train_only"]) == want.get("train_only", False)
    assert [names[v] for v in a.outputs] == graph["outputs"]


def main():
    exe, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*"):
        old.unlink()
    subprocess.run([exe, str(folder)], check=True)
    files = sorted(folder.glob("*.hone"))
    assert len(files) >= 4, files
    for path in files:
        a = decode(path.read_bytes())
        compare(a, *read_safetensors(path.with_suffix(".safetensors")))
        print(f"{path.name}: {path.stat().st_size} bytes, {len(a.leaves)} tensors, {len(a.nodes)} nodes: as saved")
    return 0


if __name__ == "__main__":
    sys.exit(main())
