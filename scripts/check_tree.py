#!/usr/bin/env python3
"""What the repository may hold: no tracked file over 5 MB, no source over 600 lines (the aim is 500), every source
listed in its room's CMakeLists.txt."""
import os
import subprocess
import sys

MAX_BYTES, MAX_LINES = 5_000_000, 600


def main():
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    os.chdir(root)
    files = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout.split("\0")
    files = [f for f in files if f and os.path.isfile(f)]
    lists = "".join(open(f, encoding="utf-8").read() for f in files if f.endswith(("CMakeLists.txt", ".cmake")))
    found = []
    for f in files:
        if os.path.getsize(f) > MAX_BYTES:
            found.append(f"{f}: {os.path.getsize(f)} bytes; the most is {MAX_BYTES}")
        if f.endswith((".h", ".cpp", ".cu", ".py")):
            lines = sum(1 for _ in open(f, encoding="utf-8"))
            if lines > MAX_LINES:
                found.append(f"{f}: {lines} lines; the most is {MAX_LINES}")
        if f.endswith((".cpp", ".cu")) and os.path.splitext(os.path.basename(f))[0].removesuffix("_fuzz") not in lists:
            found.append(f"{f}: in no CMakeLists.txt, so nothing compiles it")
    for line in found:
        print(line)
    print(f"tree: {len(files)} files, {len(found)} breaches")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
