#!/usr/bin/env python3
"""No op without a test: every `extern const OpDef` of core/ and ops/ stands in ops/table.cpp, and every public function
of ops/*.h that returns tensors is called in a row of the op tests (tests/ops_*_test.cpp). That each op in the table is
run by a row is measured by the test OpTable.EveryOpIsRunByARow.

Usage: check_ops.py [ROOT]        exit 1 and one line per breach
       check_ops.py --self-test   plants breaches in a temporary tree and expects each to be found
"""
import glob
import os
import re
import tempfile

import checking

EXTERN = re.compile(r"extern const OpDef\s+([^;]+);")
FUNCTION = re.compile(r"^(?:inline\s+)?(?:Tensor|Outputs|ValuesAndIndices|std::vector<Tensor>)\s+([a-z]\w*)\(", re.MULTILINE)


def read(path):
    return checking.C_COMMENT.sub("", checking.read(path))


def public_part(text):
    """Without namespace detail { … }."""
    return re.sub(r"namespace (?:hone::)?detail \{.*?\n\}", "", text, flags=re.DOTALL)


def breaches(root):
    found = []
    table = read(os.path.join(root, "ops/table.cpp"))
    rows = "".join(read(p) for p in sorted(glob.glob(os.path.join(root, "tests/ops_*_test.cpp"))))
    headers = sorted(glob.glob(os.path.join(root, "core/*_ops.h"))) + sorted(glob.glob(os.path.join(root, "ops/*.h")))
    headers += sorted(glob.glob(os.path.join(root, "ops/packed/*.h")))
    for path in headers:
        text, short = read(path), os.path.relpath(path, root)
        for names in EXTERN.findall(text):
            for name in re.split(r"\s*,\s*", names.strip()):
                if not re.search(rf"&{name}\b", table):
                    found.append(f"{short}: {name} is not in ops/table.cpp")
        if short.startswith("core/") or short == "ops/table.h":
            continue
        for name in FUNCTION.findall(public_part(text)):
            # Called, or named where a row takes the function itself.
            if not re.search(rf"\b{name}\b\s*[(,]", rows):
                found.append(f"{short}: {name}() is in no row of tests/ops_*_test.cpp")
    return sorted(set(found))


def self_test():
    with tempfile.TemporaryDirectory() as root:
        for folder in ("core", "ops", "tests"):
            os.mkdir(os.path.join(root, folder))

        def write(path, text):
            with open(os.path.join(root, path), "w", encoding="utf-8") as f:
                f.write(text)

        write("core/basic_ops.h", "extern const OpDef kCast;\nTensor cast(const Tensor& x);\n")
        write("ops/a.h", "extern const OpDef kOne,\n    kTwo;  // pairs\nTensor one(const Tensor& x);\nTensor two(const Tensor& x);\n"
                         "namespace detail {\nTensor hidden(const Tensor& x);\n}\n")
        write("ops/table.cpp", "&kCast, &kOne, &kTwo,")
        write("tests/ops_a_test.cpp", 'row("one", one, 1); two(x);')
        assert breaches(root) == [], breaches(root)
        write("ops/table.cpp", "&kCast, &kOne,  // &kTwo")
        assert breaches(root) == ["ops/a.h: kTwo is not in ops/table.cpp"], breaches(root)
        write("ops/table.cpp", "&kCast, &kOne, &kTwo,")
        write("tests/ops_a_test.cpp", 'row("one", one, 1);  // two(x)')
        assert breaches(root) == ["ops/a.h: two() is in no row of tests/ops_*_test.cpp"], breaches(root)
    print("check_ops: self-test passed")
    return 0


if __name__ == "__main__":
    checking.main("ops", breaches, self_test)
