"""Write a run's card: one self-contained page for people, and a README.md with metadata for the Hugging Face Hub."""

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
    """What the card shows and no other file of the run has. Saved beside the card, so that it can be rewritten."""

    title: str = Field(min_length=1)
    licence: str | None = None
    """An SPDX identifier or the name of another licence; None if no licence is named."""
    pack: str | None = None
    """Name or folder of the pack with which prompts are rendered; None leaves the prompts out."""


def write_card(output: Path, settings: CardSettings, *, seed: int = 0) -> Path:
    """Write `output`/card/index.html and README.md (atomically) for the run under `output`; return the page's path.

    The card leaves out what the run lacks. `seed` decides which items are drawn as examples. Raises ConfigError if
    `output` does not exist, and PackError, naming the file, if the pack or one of its templates cannot be used.
    """
    if not output.is_dir():
        raise ConfigError(f"{output}: no such folder. Give the `output` folder of a run's configuration.")
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
    """Read the settings with which the run's card was last written; None if it has no card.

    Raises ConfigError if the file is broken.
    """
    file = output / FOLDER / SETTINGS
    try:
        return CardSettings.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise ConfigError(
            f"{file}: {why}. Remove this file, then write the card again with --title, --licence and --pack."
        ) from error
