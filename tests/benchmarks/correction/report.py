"""Printing: a table with grouped columns, and goals."""

from collections.abc import Sequence


def goal(what: str, value: float, wanted: float, *, at_most: bool) -> str:
    """One line: a figure beside its goal."""
    met = value <= wanted if at_most else value >= wanted
    return f"  {what}: {value:.4g} (goal {'≤' if at_most else '≥'} {wanted:g}): {'met' if met else 'NOT MET'}"


def table(groups: Sequence[tuple[str, int]], names: Sequence[str], rows: Sequence[Sequence[str | float]]) -> None:
    """`groups`: a title and how many columns it stands over; the first column is text; figures get three decimals."""
    first = max(len(str(row[0])) for row in [names, *rows]) + 1
    widths = [first, *[8] * (len(names) - 1)]
    line, column = "  ", 0
    for title, count in groups:
        width = sum(widths[column : column + count])
        line += f"{title + ' ' if title else '':>{width}}" if column else f"{title:{width}}"
        column += count
    print(line.rstrip())
    for row in [names, *rows]:
        cells = [cell if isinstance(cell, str) else f"{cell:.3f}" for cell in row]
        print("  " + f"{cells[0]:{first}}" + "".join(f"{cell:>8}" for cell in cells[1:]))
