#!/usr/bin/env python3
"""Turns the ```cpp blocks of a Markdown page into C++ sources, so that tests compile and run what the page says.

Usage: extract_snippets.py PAGE.md OUT_DIR        writes OUT_DIR/PAGE_snippets.cpp and OUT_DIR/PAGE_programs.cpp

A block with an `int main` is a program of its own: compiled with its own includes alone, not run. Any other block is the body of a GoogleTest case
named after its line. Includes move to the top of the source. A comment line before the fence changes that:
  <!-- snippet: shared -->      at namespace scope, seen by all later blocks of the page
  <!-- snippet: continue -->    goes on in the same body as the block before
  <!-- snippet: compile -->     compiled, not run (it needs data or a file)
  <!-- snippet: program -->     a program without an int main (a definition that stands alone)
"""
import os
import re
import sys

WRITTEN = "// Written by scripts/extract_snippets.py from {page}.\n"
HEAD = WRITTEN + """#include <hone/hone.h>

#include <gtest/gtest.h>

#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

"""
# A program brings its own includes and no others: what the page shows is whole, or does not compile.
PROGRAM_HEAD = WRITTEN + """
#pragma GCC diagnostic ignored "-Wreturn-type"  // a program under another name must not end without a return

"""
KINDS = ("shared", "continue", "compile", "program", "test")


class SnippetError(Exception):
    pass


def blocks_of(text, page):
    """[(line of the first code line, kind, code)] of a page."""
    found, code, start, kind = [], None, 0, "test"
    for number, line in enumerate(text.splitlines(), 1):
        if code is not None:
            if line.strip() == "```":
                found.append((start, kind, "\n".join(code)))
                code, kind = None, "test"
            else:
                code.append(line)
            continue
        marker = re.fullmatch(r"\s*<!--\s*snippet:\s*(\w+)\s*-->\s*", line)
        if marker:
            kind = marker.group(1)
            if kind not in KINDS:
                raise SnippetError(f"{page}:{number}: no such snippet kind: {kind}")
        elif re.fullmatch(r"\s*```\s*(cpp|c\+\+|cc|cxx)\s*", line):
            code, start = [], number + 1
        elif line.strip().startswith("```") and line.strip() != "```":
            kind = "test"
    if code is not None:
        raise SnippetError(f"{page}:{start}: a code block without an end")
    return found


def sources_of(text, page, name):
    """(test source, program source) of a page."""
    cases, programs, hoisted = [], [], []
    body = None  # of the case that `continue` goes on with

    def close():
        nonlocal body
        if body is not None:
            cases.append(body + "}\n")
            body = None

    for line, kind, code in blocks_of(text, page):
        includes = "".join(l + "\n" for l in code.splitlines() if l.lstrip().startswith("#include"))
        # Blanked, not removed: line numbers in errors stay true.
        rest = "\n".join("" if l.lstrip().startswith("#include") else l for l in code.splitlines())
        where = f'#line {line} "{page}"\n{rest}\n'
        if kind == "program" or re.search(r"^\s*int main\(", code, re.MULTILINE):
            rest = re.sub(r"\bint main\(", f"[[maybe_unused]] int main_{line}(", rest)
            programs.append(f'{includes}namespace program_{line} {{\n#line {line} "{page}"\n{rest}\n}}\n')
            continue
        hoisted.append(includes)
        if kind == "shared":
            close()
            cases.append(where)
        elif kind == "continue":
            if body is None:
                raise SnippetError(f"{page}:{line}: nothing before to continue")
            body += where
        elif kind == "compile":
            close()
            body = f"[[maybe_unused]] static void compiled_{line}() {{\n{where}"
        else:
            close()
            body = f"TEST(Docs_{name}, Line{line}) {{\n{where}"
    close()
    head = HEAD.format(page=page)
    test = head + "".join(hoisted) + "namespace {\nusing namespace hone;\n" + "".join(cases) + "}  // namespace\n"
    return test, PROGRAM_HEAD.format(page=page) + "".join(programs)


def self_test():
    page = "\n".join([
        "# Page", "```cpp", "int a = 1;", "```", "<!-- snippet: continue -->", "```cpp", "a = 2;", "```", "```sh", "ls", "```",
        "<!-- snippet: shared -->", "```cpp", "struct S {};", "```", "```cpp", "#include <hone/hone.h>", "int main() {}", "```"])
    test, program = sources_of(page, "p.md", "p")
    assert "TEST(Docs_p, Line3) {" in test and test.count("TEST(") == 1, test
    assert test.index("int a = 1;") < test.index("a = 2;") < test.index("}\n#line 14") < test.index("struct S"), test
    assert "ls" not in test.replace("false", ""), test
    assert "main_17() {}" in program and "main" not in test, program
    assert program.count("#include") == 1 and "<gtest" in test and "<gtest" not in program, program
    for bad in ("```cpp\nint a;", "<!-- snippet: nonsense -->\n```cpp\n```", "<!-- snippet: continue -->\n```cpp\n```"):
        try:
            sources_of(bad, "p.md", "p")
        except SnippetError:
            continue
        raise AssertionError(bad)
    print("self-test: ok")


def main():
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        return 0
    page, out = sys.argv[1], sys.argv[2]
    name = re.sub(r"\W", "_", os.path.splitext(os.path.basename(page))[0]).lower()
    with open(page, encoding="utf-8") as f:
        text = f.read()
    try:
        test, program = sources_of(text, os.path.basename(page), name)
    except SnippetError as error:
        print(error, file=sys.stderr)
        return 1
    for kind, source in (("snippets", test), ("programs", program)):
        with open(os.path.join(out, f"{name}_{kind}.cpp"), "w", encoding="utf-8") as f:
            f.write(source)
    return 0


if __name__ == "__main__":
    sys.exit(main())
