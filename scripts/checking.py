"""What the scripts that check the tree share: comments left out, and the command line."""
import os
import re
import sys

C_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def main(label, breaches, self_test, count=None):
    """SCRIPT [ROOT], or SCRIPT --self-test. Prints every breach of breaches(root); the exit status is 1 if there is one."""
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(self_test())
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    found = breaches(root)
    for line in found:
        print(line)
    print(f"{label}: {f'{count(root)} files, ' if count else ''}{len(found)} breaches")
    sys.exit(1 if found else 0)
