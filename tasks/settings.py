"""The base of every settings model, and the values that are set once and hold in several blocks."""

from collections.abc import Iterator, Mapping
from typing import Any, cast, get_args

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

MIN_PIXELS = 56 * 56
MAX_PIXELS = 1280 * 28 * 28
"""Default bounds of an image's area: about 1,280 tokens of Qwen2-VL, for a screenshot of 1080×2340 .63 of its sides."""


class Settings(BaseModel):
    """Base of all settings: an unknown key is an error, and values are immutable.

    The web UI's form shows the docstring below a key as its description. A field of type `SkipJsonSchema[…]` is not the
    user's to set: it follows from the key of the same name at the top level, or labelstill sets it itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def is_internal(field: FieldInfo) -> bool:
    """Return whether a field is not the user's to set."""
    return any(type(mark).__name__ == "SkipJsonSchema" for mark in field.metadata)


def spread_values(model: type[BaseModel], block: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return a block of settings with the `shared` values in every field, at any depth, that follows one of them.

    Raises ValueError if the block sets a field that is not the user's to set to another value.
    """
    placed = dict(block)
    for name, field in model.model_fields.items():
        if is_internal(field):
            value = shared.get(name, field.default)
            given = block.get(name, value)
            if (tuple(cast(list[Any], given)) if isinstance(given, list) else given) != value:  # JSON has no tuples
                advice = "set it once, at the top level" if name in shared else "remove it"
                raise ValueError(f"`{name}` cannot be set here; {advice}")
            placed[name] = value
            continue
        inner = block.get(name, field.default)
        if isinstance(inner, BaseModel):
            placed[name] = _spread_settings(inner, shared)
        elif isinstance(inner, list | tuple) and next(list_models(field.annotation), None):
            placed[name] = tuple(_spread_entry(field, entry, shared) for entry in cast("list[Any]", inner))
        elif isinstance(inner, Mapping) and (nested := _choose_model(field, cast(Mapping[str, Any], inner))):
            try:
                placed[name] = spread_values(nested, cast(Mapping[str, Any], inner), shared)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    return placed


def _spread_entry(field: FieldInfo, entry: Any, shared: Mapping[str, Any]) -> Any:
    """Return one entry of a list of blocks with the `shared` values; one that is no block is left for validation."""
    if isinstance(entry, BaseModel):
        return _spread_settings(entry, shared)
    nested = _choose_model(field, cast("Mapping[str, Any]", entry)) if isinstance(entry, Mapping) else None
    return entry if nested is None else spread_values(nested, cast("Mapping[str, Any]", entry), shared)


def _spread_settings(settings: BaseModel, shared: Mapping[str, Any]) -> BaseModel:
    changes: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if is_internal(field) and name in shared:
            changes[name] = shared[name]
        elif isinstance(value, BaseModel):
            changes[name] = _spread_settings(value, shared)
    return settings.model_copy(update=changes)


def _choose_model(field: FieldInfo, block: Mapping[str, Any]) -> type[BaseModel] | None:
    """Return the settings model of a block, by its `kind` where there are several; None if it is no such block."""
    models = list(dict.fromkeys(list_models(field.annotation)))
    named = [m for m in models if "kind" in block and m.model_fields["kind"].default == block["kind"]]
    return next(iter(named or models), None)


def list_models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the settings models in a field's type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from list_models(part)
