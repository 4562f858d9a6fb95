#!/usr/bin/env python3
"""`#include <hone/hone.h>` must compile in under two seconds of processor time; on a machine too slow for that, in less
than the standard library's own umbrella, <bits/stdc++.h>, takes in the same run.

Usage: check_umbrella.py COMPILER INCLUDE_DIR
The least of several runs counts, in turns: other load on the machine makes a run longer, never shorter."""
import os
import resource
import subprocess
import sys
import tempfile

LIMIT_SECONDS, RUNS = 2.0, 6


def child_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main():
    compiler, include = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:

        def seconds(header):
            source = os.path.join(folder, "umbrella.cpp")
            with open(source, "w", encoding="utf-8") as f:
                f.write(f"#include <{header}>\n")
            before = child_seconds()
            subprocess.run([compiler, "-std=c++20", "-O2", "-I", include, "-c", source, "-o", source + ".o"], check=True)
            return child_seconds() - before

        best = peer = float("inf")
        for _ in range(RUNS):
            best = min(best, seconds("hone/hone.h"))
            if best < LIMIT_SECONDS:
                break
            peer = min(peer, seconds("bits/stdc++.h"))
    beside = "" if peer == float("inf") else f"; <bits/stdc++.h>: {peer:.2f} s"
    print(f"#include <hone/hone.h>: {best:.2f} s, limit {LIMIT_SECONDS} s{beside}")
    return 0 if best < LIMIT_SECONDS or best < peer else 1


if __name__ == "__main__":
    sys.exit(main())
