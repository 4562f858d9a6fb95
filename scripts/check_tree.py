#!/usr/bin/env python3
"""What the repository may hold: no tracked file over 5 MB, no source over 600 lines (the aim is 500), every source
listed in its room's CMakeLists.txt."""
import os
import re
import subprocess
import sys

MAX_BYTES, MAX_LINES = 5_000_000, 600


def is_listed(path, lists):
    """Whether the CMakeLists.txt nearest above names the file, or its stem in a list that `foreach` goes through."""
    folder = os.path.dirname(path)
    while folder not in lists:
        folder = os.path.dirname(folder)
    name = os.path.relpath(path, folder)
    stem = os.path.splitext(name)[0].removesuffix("_fuzz")
    return any(re.search(rf"(?<![\w./]){re.escape(n)}(?![\w/])", lists[folder]) for n in (name, stem))


def main():
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    os.chdir(root)
    files = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout.split("\0")
    files = [f for f in files if f and os.path.isfile(f)]
    lists = {os.path.dirname(f): open(f, encoding="utf-8").read() for f in files if os.path.basename(f) == "CMakeLists.txt"}
    found = []
    for f in files:
        if os.path.getsize(f) > MAX_BYTES:
            found.append(f"{f}: {os.path.getsize(f)} bytes; the most is {MAX_BYTES}")
        if f.endswith((".h", ".cpp", ".cu", ".py")):
            lines = sum(1 for _ in open(f, encoding="utf-8"))
            if lines > MAX_LINES:
                found.append(f"{f}: {lines} lines; the most is {MAX_LINES}")
        if f.endswith((".cpp", ".cu")) and not is_listed(f, lists):
            found.append(f"{f}: in no CMakeLists.txt, so nothing compiles it")
    for line in found:
        print(line)
    print(f"tree: {len(files)} files, {len(found)} breaches")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
