"""A run's card: one self-contained page for people, and a README.md with Hugging Face's dataset metadata."""

from pathlib import Path

from pydantic import Field, ValidationError

from tasks.errors import ConfigError
from tasks.packs.pack import load_pack
from tasks.records import Record
from tasks.report.card.facts import read_facts
from tasks.report.card.page import Card, render_page
from tasks.report.card.prompts import render_prompts
from tasks.report.card.readme import render_readme
from tasks.storage.files import write_bytes

FOLDER, PAGE, README, SETTINGS = "card", "index.html", "README.md", "settings.json"
"""The card's folder under the run's, and its files."""


class CardSettings(Record):
    """What a card tells that stands in no other file of the run. Kept beside the card, so that it can be made anew."""

    title: str = Field(min_length=1)
    licence: str | None = None
    """An SPDX identifier, or the name of another licence; None: not named."""
    pack: str | None = None
    """Name or folder of the run's pack, with which prompts are rendered; None leaves them out."""


def write_card(output: Path, settings: CardSettings, *, seed: int = 0) -> Path:
    """Write `output`/card/index.html and README.md (atomically) of the run under `output`; returns the page.

    What the run lacks the card leaves out. `seed` draws the examples. Raises ConfigError where there is no such folder,
    PackError, naming the file, when the pack or one of its templates is unusable.
    """
    if not output.is_dir():
        raise ConfigError(f"{output}: no such folder; give the `output` of a run's configuration")
    pack = None if settings.pack is None else load_pack(settings.pack)
    facts = read_facts(output, seed)
    card = Card(
        title=settings.title,
        licence=settings.licence,
        language=None if pack is None else pack.language,
        facts=facts,
        prompts=() if pack is None else render_prompts(pack, output),
    )
    folder = output / FOLDER
    write_bytes(folder / PAGE, render_page(card).encode())
    write_bytes(folder / README, render_readme(card).encode())
    write_bytes(folder / SETTINGS, settings.model_dump_json(indent=2).encode())
    return folder / PAGE


def read_settings(output: Path) -> CardSettings | None:
    """What the run's card was last written with; None where it has none. Raises ConfigError for a broken file."""
    file = output / FOLDER / SETTINGS
    try:
        return CardSettings.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise ConfigError(f"{file}: {why}; remove it and name title, licence and pack anew") from error
