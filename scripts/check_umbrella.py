#!/usr/bin/env python3
"""`#include <hone/hone.h>` must compile in under two seconds of processor time.

Usage: check_umbrella.py COMPILER INCLUDE_DIR
The least of several runs counts: other load on the machine makes a run longer, never shorter."""
import os
import resource
import subprocess
import sys
import tempfile

LIMIT_SECONDS, RUNS = 2.0, 8


def child_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main():
    compiler, include = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "umbrella.cpp")
        with open(source, "w", encoding="utf-8") as f:
            f.write("#include <hone/hone.h>\n")
        best = float("inf")
        for _ in range(RUNS):
            before = child_seconds()
            subprocess.run([compiler, "-std=c++20", "-O2", "-I", include, "-c", source, "-o", source + ".o"], check=True)
            best = min(best, child_seconds() - before)
            if best < LIMIT_SECONDS:
                break
    print(f"#include <hone/hone.h>: {best:.2f} s, limit {LIMIT_SECONDS} s")
    return 0 if best < LIMIT_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
