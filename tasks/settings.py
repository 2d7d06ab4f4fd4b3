"""The base of every settings model: an unknown key is an error, and values are immutable."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of all configuration models; the web UI's form shows the docstring below a key as its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
