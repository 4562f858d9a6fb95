#!/usr/bin/env python3
"""The include rule, file by file: a lower room never includes a higher one (docs/design.md, "Rooms"). And examples, and
the code in README.md and docs/, name nothing of a detail namespace: what users need has a public name.

Usage: check_includes.py [ROOT]        exit 1 and one line per breach
       check_includes.py --self-test   plants breaches in a temporary tree and expects each to be found
"""
import os
import re
import tempfile

import checking

# Longest prefix first: a file's room, and the rooms it may include beside its own.
ROOMS = {
    "core/data": {"core"},
    "core": set(),
    "ops/nn": {"core", "ops"},
    "ops": {"core"},
    "cuda": set(),
    "optim/train": {"core", "core/data", "ops", "ops/nn", "optim"},
    "optim": {"core", "ops"},
    "compress/graph": {"core", "ops", "ops/nn"},
    "compress": {"core", "core/data", "ops", "ops/nn", "optim", "compress/graph"},
}
# Plain data that device code may see.
PLAIN_HEADERS = {"core/view.h", "core/dtype.h", "core/device.h"}
CUDA_SEES = PLAIN_HEADERS | {"core/error.h", "ops/functors.h", "ops/functor_ids.h"}
CUDA_LIBRARIES = re.compile(r"(cuda|cublas|curand|nvtx|cub/|thrust/)")
# Slow or private to one file: (what, the files that may include it).
PRIVATE_LIBRARIES = [
    (re.compile(r"(cblas|openblas|lapacke)"), lambda f: f == "ops/blas.cpp"),
    (re.compile(r"(nlohmann/|CLI/|stb/|stb_|zlib\.h|benchmark/|gtest/|gmock/)"), lambda f: not f.endswith(".h")),
    (re.compile(r"hwy/"), lambda f: not f.endswith(".h") or f.startswith("ops/simd/") or f.endswith("-inl.h")
     or f == "ops/functors.h"),
]
SOURCES = (".h", ".cpp", ".cu", ".cuh")
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.MULTILINE)
FENCE = re.compile(r"^```(?:cpp|c\+\+|cc|cxx)\s*\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def room_of(path):
    for room in ROOMS:
        if path.startswith(room + "/"):
            return room
    return None


def includes_of(root, path):
    text = COMMENT.sub("", checking.read(os.path.join(root, path)))
    return [(quote == '"', name) for quote, name in INCLUDE.findall(text)]


def library_breach(path, name, quoted):
    """Why `name`, not a Hone header, may not be included by a library file; None if it may."""
    if path.startswith("cuda/"):
        if path.endswith("api.h") and CUDA_LIBRARIES.match(name):
            return "a device api header sees no CUDA header"
    elif CUDA_LIBRARIES.match(name):
        return "CUDA headers belong in cuda/"
    for pattern, allowed in PRIVATE_LIBRARIES:
        if pattern.match(name) and not allowed(path):
            return "this library stays out of public headers, or in its one file"
    if quoted and not name.startswith("hwy/"):
        return 'headers of Hone are spelt "hone/…"'
    return None


def room_breach(path, name):
    """Why Hone's own header `name` (without hone/) may not be included by library file `path`; None if it may."""
    room, target = room_of(path), room_of(name)
    if target is None:
        return "no room of the library holds it"
    if path.startswith("cuda/"):
        if re.fullmatch(r"cuda/\w+_api\.h", path):
            return None if name == "core/view.h" else "a topic's api header sees core/view.h alone"
        if path == "cuda/api.h":
            plain = name in PLAIN_HEADERS or re.fullmatch(r"cuda/\w+_api\.h", name)
            return None if plain else "cuda/api.h sees core's plain-data headers alone"
        if target == "cuda" or name in CUDA_SEES:
            return None
        return "cuda/ sees core's plain-data headers and ops/functors.h, functor_ids.h"
    if target == "cuda":
        if name == "cuda/api.h" and room in ("core", "ops"):
            return None
        if re.fullmatch(r"cuda/\w+_api\.h", name) and room == "ops":
            return None
        return "core may include cuda/api.h, ops cuda/*api.h, no other room any of it"
    if target == room or target in ROOMS[room]:
        return None
    return f"{room}/ may not include {target}/"


def umbrella_closure(root):
    """Hone headers that hone.h brings, without hone/."""
    seen, queue = set(), ["hone.h"]
    while queue:
        path = queue.pop()
        if path in seen or not os.path.exists(os.path.join(root, path)):
            continue
        seen.add(path)
        queue += [name[5:] for _, name in includes_of(root, path) if name.startswith("hone/")]
    return seen


def files_of(root):
    for top in sorted({room.split("/")[0] for room in ROOMS} | {"tests", "examples"}):
        for folder, folders, names in os.walk(os.path.join(root, top)):
            folders[:] = [d for d in folders if d not in ("build", "out")]
            for name in sorted(names):
                if name.endswith(SOURCES):
                    yield os.path.relpath(os.path.join(folder, name), root)
    if os.path.exists(os.path.join(root, "hone.h")):
        yield "hone.h"


def detail_breaches(root):
    pages = [os.path.join("docs", name) for name in sorted(os.listdir(os.path.join(root, "docs")))
             if name.endswith(".md")] if os.path.isdir(os.path.join(root, "docs")) else []
    pages += ["README.md"] if os.path.exists(os.path.join(root, "README.md")) else []
    code = [(f, 1, checking.read(os.path.join(root, f))) for f in files_of(root) if f.startswith("examples/")]
    for page in pages:
        text = checking.read(os.path.join(root, page))
        code += [(page, text.count("\n", 0, m.start(1)) + 1, m.group(1)) for m in FENCE.finditer(text)]
    for path, first, text in code:
        # Blank comments, line by line, so that numbers stay true.
        text = checking.C_COMMENT.sub(lambda m: "\n" * m.group().count("\n"), text)
        for number, line in enumerate(text.splitlines(), first):
            if re.search(r"\bdetail\s*::", line):
                yield f"{path}:{number}: names something of a detail namespace; users need a public name"


def breaches(root):
    public = umbrella_closure(root)
    found = list(detail_breaches(root))
    for path in files_of(root):
        for quoted, name in includes_of(root, path):
            own = name.startswith("hone/")
            if own and not os.path.exists(os.path.join(root, name[5:])):
                why = "no such header"
            elif path == "hone.h":
                why = None if own and room_of(name[5:]) else "the umbrella includes Hone's headers alone"
            elif path.startswith("examples/"):
                why = "an example includes hone/hone.h alone" if own and name != "hone/hone.h" else None
            elif path.startswith("tests/"):
                # Internals have no other door; what the umbrella brings comes through the umbrella.
                why = "a test takes this from hone/hone.h" if own and name != "hone/hone.h" and name[5:] in public else None
            elif name == "hone/hone.h":
                why = "the umbrella is for programs"
            elif own:
                why = room_breach(path, name[5:])
            else:
                why = library_breach(path, name, quoted)
            if why:
                found.append(f"{path}: includes {name}: {why}")
    return found


# (file, its include line, what is wrong with it or None)
PLANTED = [
    ("core/a.cpp", '#include "hone/core/view.h"', None),
    ("core/a2.cpp", '#include "hone/ops/blas.h"', "may not include ops/"),
    ("core/a3.cpp", '#include "hone/core/data/d.h"', "may not include core/data/"),
    ("core/a4.cpp", '#include "hone/cuda/api.h"', None),
    ("core/a5.cpp", '#include "hone/cuda/unary_api.h"', "core may include cuda/api.h"),
    ("core/a6.cpp", '#include "view.h"', "are spelt"),
    ("core/a7.cpp", '#include <nlohmann/json.hpp>', None),
    ("core/a8.h", '#include <nlohmann/json.hpp>', "stays out of public headers"),
    ("core/a9.cpp", '#include "hone/core/nothing.h"', "no such header"),
    ("core/a10.cpp", '  #  include <hone/optim/sgd.h>', "may not include optim/"),
    ("core/a11.cpp", '// #include "hone/optim/sgd.h"', None),
    ("core/a12.cpp", '/*\n#include "hone/optim/sgd.h"\n*/', None),
    ("core/a13.cpp", '#include "hone/hone.h"', "the umbrella is for programs"),
    ("core/a14.cpp", '#include <cuda_runtime.h>', "CUDA headers belong"),
    ("core/data/d.cpp", '#include "hone/core/view.h"', None),
    ("core/data/d2.cpp", '#include "hone/ops/blas.h"', "may not include ops/"),
    ("ops/o.cpp", '#include "hone/cuda/unary_api.h"', None),
    ("ops/o2.cpp", '#include "hone/ops/nn/module.h"', "may not include ops/nn/"),
    ("ops/o3.cpp", '#include <cblas.h>', "in its one file"),
    ("ops/blas.cpp", '#include <cblas.h>', None),
    ("ops/o4.h", '#include <hwy/highway.h>', "stays out of public headers"),
    ("ops/simd/o5.h", '#include <hwy/highway.h>', None),
    ("ops/o6.cpp", '#include "hwy/foreach_target.h"', None),
    ("ops/nn/n.cpp", '#include "hone/ops/blas.h"', None),
    ("ops/nn/n2.cpp", '#include "hone/cuda/api.h"', "no other room"),
    ("ops/nn/n3.cpp", '#include "hone/optim/sgd.h"', "may not include optim/"),
    ("cuda/unary_api.h", '#include "hone/core/view.h"', None),
    ("cuda/binary_api.h", '#include "hone/core/dtype.h"', "sees core/view.h alone"),
    ("cuda/api.h", '#include "hone/core/view.h"\n#include "hone/cuda/unary_api.h"', None),
    ("cuda/third_api.h", '#include <cuda_runtime.h>', "sees no CUDA header"),
    ("cuda/c.cu", '#include "hone/ops/functors.h"', None),
    ("cuda/c2.cu", '#include "hone/core/tensor.h"', "plain-data headers and"),
    ("cuda/emulation/e.cpp", '#include "hone/ops/blas.h"', "plain-data headers and"),
    ("optim/p.cpp", '#include "hone/ops/nn/module.h"', "may not include ops/nn/"),
    ("optim/train/t.cpp", '#include "hone/ops/nn/module.h"', None),
    ("optim/train/t2.cpp", '#include "hone/compress/graph/g.h"', "may not include compress/graph/"),
    ("compress/graph/g.cpp", '#include "hone/optim/sgd.h"', "may not include optim/"),
    ("compress/prune/r.cpp", '#include "hone/compress/graph/g.h"', None),
    ("compress/prune/r2.cpp", '#include "hone/optim/train/t.h"', "may not include optim/train/"),
    ("tests/t.cpp", '#include "hone/hone.h"', None),
    ("tests/t2.cpp", '#include "hone/core/view.h"', "from hone/hone.h"),
    ("tests/t3.cpp", '#include "hone/ops/blas.h"', None),
    ("tests/t4.cpp", '#include "support.h"', None),
    ("examples/x.cpp", '#include <hone/hone.h>', None),
    ("examples/x2.cpp", '#include "hone/ops/blas.h"', "hone/hone.h alone"),
    ("examples/x3.cpp", '#include <CLI/CLI.hpp>', None),
    ("examples/x4.cpp", 'int a = hone::detail::f();', "a detail namespace"),
    ("examples/x5.cpp", '// hone::detail::f\nint detailed = a::b;', None),
    ("docs/p.md", 'See `detail::Pooled`.\n```cpp\nint a;\n```', None),
    ("docs/p2.md", 'See\n```cpp\nint a = detail::b();\n```', "p2.md:4: names"),
]
EMPTY_HEADERS = ["core/view.h", "core/dtype.h", "core/tensor.h", "core/data/d.h", "ops/blas.h", "ops/functors.h",
                 "ops/nn/module.h", "optim/sgd.h", "optim/train/t.h", "compress/graph/g.h"]


def self_test():
    failures = 0
    with tempfile.TemporaryDirectory() as root:
        def write(path, text):
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as f:
                f.write("#pragma once\n" + text + "\n")
        for path in EMPTY_HEADERS:
            write(path, "")
        write("hone.h", '#include "hone/core/tensor.h"\n#include "hone/core/view.h"')
        for path, line, _ in PLANTED:
            write(path, line)
        found = breaches(root)
        for path, line, expected in PLANTED:
            mine = [b for b in found if b.startswith(path + ":")]
            if expected is None and mine:
                print(f"self-test: {line} in {path} should pass, but: {mine[0]}")
                failures += 1
            if expected is not None and not any(expected in b for b in mine):
                print(f"self-test: {line} in {path} should fail with '{expected}', got {mine}")
                failures += 1
        known = {path for path, _, _ in PLANTED}
        for b in found:
            if b.split(":")[0] not in known:
                print("self-test: unexpected:", b)
                failures += 1
    print(f"self-test: {len(PLANTED)} planted lines, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    checking.main("include rule", breaches, self_test, lambda root: len(list(files_of(root))))
