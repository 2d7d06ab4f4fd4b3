"""The base of every settings model: an unknown key is an error, and values don't change."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of all configuration models."""

    model_config = ConfigDict(extra="forbid", frozen=True)
