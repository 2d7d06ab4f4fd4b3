"""Count the logic lines of flows/ and tasks/ by wing: `python tests/benchmarks/logic_lines.py [REVISION]`.

Python counts without blank lines, comments, docstrings and imports; HTML, CSS, JavaScript and YAML without blank lines
and lines that are only a comment. With a revision, that commit is counted and not the working tree.
"""

import ast
import io
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMENT_STARTS = {".html": "<!--", ".css": "/*", ".js": "//", ".yaml": "#", ".jinja": "{#"}


def count_python(source: str) -> int:
    """Return how many lines of Python source hold a token that is no comment, docstring or import."""
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom) or _is_bare_string(node):
            skipped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            continue
        if token.type != tokenize.ENDMARKER:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - skipped)


def _is_bare_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def count_text(source: str, comment: str) -> int:
    """Return how many lines hold something and do not begin a comment."""
    return sum(bool(line.strip()) and not line.strip().startswith(comment) for line in source.splitlines())


def count_tree(revision: str | None) -> Counter[str]:
    """Return logic lines by wing, e.g. `tasks/items`; files at a folder's root count as `tasks/*`."""
    counts: Counter[str] = Counter()
    for name in _list_files(revision):
        path = Path(name)
        if path.suffix != ".py" and path.suffix not in COMMENT_STARTS:
            continue
        source = _read(name, revision)
        wing = f"{path.parts[0]}/{path.parts[1] if len(path.parts) > 2 else '*'}"
        counts[wing] += (
            count_python(source) if path.suffix == ".py" else count_text(source, COMMENT_STARTS[path.suffix])
        )
    return counts


def _list_files(revision: str | None) -> list[str]:
    if revision:
        command = ["git", "ls-tree", "-r", "--name-only", revision, "--", "flows", "tasks"]
    else:
        command = ["git", "ls-files", "--", "flows", "tasks"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def _read(name: str, revision: str | None) -> str:
    if revision is None:
        return (ROOT / name).read_text(encoding="utf-8") if (ROOT / name).exists() else ""
    command = ["git", "show", f"{revision}:{name}"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    tree = count_tree(sys.argv[1] if len(sys.argv) > 1 else None)
    for wing, lines in sorted(tree.items()):
        print(f"{lines:7,}  {wing}")
    print(f"{tree.total():7,}  in all")
