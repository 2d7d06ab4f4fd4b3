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
"""The name of the card's folder in the run's folder, and the names of its files."""


class CardSettings(Record):
    """Facts that no other file of the run has. They are saved beside the card, so that the card can be rewritten."""

    title: str = Field(min_length=1)
    licence: str | None = None
    """An SPDX identifier or the name of another licence. None means that no licence is named."""
    pack: str | None = None
    """Name or folder of the pack whose prompts the card shows. None means that the card shows no prompts."""


def write_card(output: Path, settings: CardSettings, *, seed: int = 0) -> Path:
    """Write index.html and README.md (atomically) into `output`/card, and return the path of index.html.

    Sections for which the run has no data are left out. `seed` decides which items are shown as examples. Raises
    ConfigError if `output` does not exist, and PackError, which names the file, if the pack cannot be used.
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
    """Return the settings with which the run's card was last written, or None if it has no card.

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
