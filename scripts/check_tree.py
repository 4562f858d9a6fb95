#!/usr/bin/env python3
"""What the repository may hold: no tracked file over 5 MB, no source over 600 lines (the aim is 500), every source
listed in the CMakeLists.txt nearest above it.

Usage: check_tree.py [ROOT]        exit 1 and one line per breach; ROOT is a git work tree
       check_tree.py --self-test   plants breaches in a temporary one and expects each to be found
"""
import os
import re
import subprocess
import tempfile

import checking

MAX_BYTES, MAX_LINES = 5_000_000, 600
CMAKE_COMMENT = re.compile(r"#[^\n]*")


def is_listed(path, lists):
    """Whether the CMakeLists.txt nearest above names the file, or its stem in a list that `foreach` goes through."""
    folder = os.path.dirname(path)
    while folder not in lists:
        if not folder:
            return False
        folder = os.path.dirname(folder)
    name, text = os.path.relpath(path, folder or "."), lists[folder]
    stem = os.path.splitext(name)[0]
    loops = " ".join(re.findall(r"foreach\(([^)]*)\)", text))
    for variable, items in re.findall(r"\bset\((\w+)\s([^)]*)\)", text):
        if re.search(rf"\b{variable}\b", loops):
            loops += " " + items
    named = re.search(rf"(?<![\w./]){re.escape(name)}(?![\w./])", text)
    return bool(named or any(re.search(rf"(?<![\w./]){re.escape(s)}(?![\w./])", loops)
                             for s in (stem, stem.removesuffix("_fuzz"))))


def tracked(root):
    files = subprocess.run(["git", "-C", root, "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    return [f for f in files.split("\0") if f and os.path.isfile(os.path.join(root, f))]


def breaches(root):
    files = tracked(root)
    lists = {os.path.dirname(f): CMAKE_COMMENT.sub("", checking.read(os.path.join(root, f)))
             for f in files if os.path.basename(f) == "CMakeLists.txt"}
    found = []
    for f in files:
        size = os.path.getsize(os.path.join(root, f))
        if size > MAX_BYTES:
            found.append(f"{f}: {size} bytes; the most is {MAX_BYTES}")
        if f.endswith((".h", ".cpp", ".cu", ".cuh", ".py")):
            lines = checking.read(os.path.join(root, f)).count("\n")
            if lines > MAX_LINES:
                found.append(f"{f}: {lines} lines; the most is {MAX_LINES}")
        if f.endswith((".cpp", ".cu")) and not is_listed(f, lists):
            found.append(f"{f}: in no CMakeLists.txt, so nothing compiles it")
    return found


def self_test():
    planted = {
        "CMakeLists.txt": "project(x)  # main.cpp\n",
        "main.cpp": "in no CMakeLists.txt",
        "core/CMakeLists.txt": "add_library(x a.cpp data/b.cpp\n  # c.cpp\n)  # d\nlink(e_test)\n",
        "core/a.cpp": None, "core/data/b.cpp": None, "core/c.cpp": "in no CMakeLists.txt",
        "core/d.cpp": "in no CMakeLists.txt", "core/e_test.cpp": "in no CMakeLists.txt",
        "core/b.cpp": "in no CMakeLists.txt",
        "fuzz/CMakeLists.txt": "set(more four)\nset(others five)\nforeach(target one two ${more})\n"
                               "  add_executable(${target}_fuzz ${target}_fuzz.cpp)\nendforeach()\n",
        "fuzz/four_fuzz.cpp": None, "fuzz/five_fuzz.cpp": "in no CMakeLists.txt",
        "fuzz/one_fuzz.cpp": None, "fuzz/three_fuzz.cpp": "in no CMakeLists.txt",
        "core/long.h": "601 lines", "core/whole.h": None, "data.bin": "5000001 bytes",
    }
    contents = {"core/long.h": "\n" * 601, "core/whole.h": "\n" * 600, "data.bin": "x" * 5_000_001}
    with tempfile.TemporaryDirectory() as root:
        subprocess.run(["git", "init", "-q", root], check=True)
        for path, text in planted.items():
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as f:
                f.write(text if path.endswith("CMakeLists.txt") else contents.get(path, ""))
        subprocess.run(["git", "-C", root, "add", "-A"], check=True)
        found = breaches(root)
    expected = {path: why for path, why in planted.items() if why and not path.endswith("CMakeLists.txt")}
    for path, why in expected.items():
        assert any(b.startswith(path + ":") and why in b for b in found), (path, found)
    assert len(found) == len(expected), found
    print("check_tree: self-test passed")
    return 0


if __name__ == "__main__":
    checking.main("tree", breaches, self_test, lambda root: len(tracked(root)))
