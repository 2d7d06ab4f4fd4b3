"""Printing: a table with grouped columns, and goals."""

from collections.abc import Sequence


def goal(what: str, value: float, wanted: float, *, at_most: bool) -> str:
    """One line: a figure beside its goal."""
    met = value <= wanted if at_most else value >= wanted
    return f"  {what}: {value:.4g} (goal {'≤' if at_most else '≥'} {wanted:g}): {'met' if met else 'NOT MET'}"


def table(groups: Sequence[tuple[str, int]], names: Sequence[str], rows: Sequence[Sequence[str | float]]) -> None:
    """`groups`: a title and how many columns it stands over; the first column is text; figures get three decimals."""
    lines = [[cell if isinstance(cell, str) else f"{cell:.3f}" for cell in row] for row in [names, *rows]]
    widths = [max(8, *(len(cell) + 1 for cell in column)) for column in zip(*lines, strict=True)]
    line, column = "  ", 0
    for title, count in groups:
        width = sum(widths[column : column + count])
        line += f"{title + ' ' if title else '':>{width}}" if column else f"{title:{width}}"
        column += count
    print(line.rstrip())
    for cells in lines:
        row = (f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True))
        print(f"  {cells[0]:{widths[0]}}" + "".join(row))
