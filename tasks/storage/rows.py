# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# (pyarrow publishes no types)
"""Which column a record's field stands in, by its type alone."""

from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pyarrow as pa

from tasks.records import Record


def nested_fields(kind: type[Record]) -> set[str]:
    """The fields that stand as JSON text. By their type, not by their values: a column may hold nothing but None."""
    return {name for name, field in kind.model_fields.items() if not _plain(field.annotation)}


def column_type(annotation: Any) -> Any:
    """The Arrow type of a field's column: text for a nested one, else by the first type that isn't None."""
    if not _plain(annotation):
        return pa.string()
    parts = (
        [p for p in get_args(annotation) if p is not NoneType] if get_origin(annotation) in (Union, UnionType) else []
    )
    kind = parts[0] if parts else annotation
    if get_origin(kind) is Literal or issubclass(kind, str):
        return pa.string()
    return pa.bool_() if issubclass(kind, bool) else pa.int64() if issubclass(kind, int) else pa.float64()


def _plain(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, UnionType):
        return all(_plain(part) for part in get_args(annotation))
    if get_origin(annotation) is Literal:
        return True
    return isinstance(annotation, type) and issubclass(annotation, (str, int, float, NoneType))
