"""A run's card: one self-contained page for people, and a README.md with Hugging Face's dataset metadata."""

from pathlib import Path

from tasks.packs import Pack
from tasks.report.card_facts import gather
from tasks.report.card_page import Card, page_of
from tasks.report.card_prompts import rendered_prompts
from tasks.report.card_readme import readme_of
from tasks.report.card_reasons import diversity_of
from tasks.stages import write_bytes

FOLDER, PAGE, README = "card", "index.html", "README.md"
"""The card's folder under the run's, and its files."""


def write_card(output: Path, pack: Pack | None, *, title: str, licence: str | None = None, seed: int = 0) -> Path:
    """Write `output`/card/index.html and README.md (atomically) of the run under `output`; returns the page.

    What the run lacks the card leaves out. `pack` is the one the run was made with: prompts are rendered with it; None
    leaves them out. `licence` is an SPDX identifier, or the name of another licence. `seed` draws the examples.
    Raises PackError, naming the file, when one of the pack's templates does not render.
    """
    facts = gather(output, seed)
    card = Card(
        title=title,
        licence=licence,
        language="und" if pack is None else pack.language,
        facts=facts,
        diversity=diversity_of(facts.emitted.reasons) if facts.emitted.reasons else None,
        prompts=() if pack is None else rendered_prompts(pack, output),
    )
    folder = output / FOLDER
    write_bytes(folder / PAGE, page_of(card).encode())
    write_bytes(folder / README, readme_of(card).encode())
    return folder / PAGE
