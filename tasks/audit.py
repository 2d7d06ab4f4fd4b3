"""The audit: which cases a person is asked about, and whether their verdicts open the gate.

Labels change without a person only while audited evidence says that it helps (rule 6). On human label noise, applying
every proposal lowered label accuracy on hard data from .9576 to .8314; hence the gate: the Wilson lower bound of
audited wins / (wins + losses) must exceed `level`.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from tasks.records import Action, Correction

_PROPOSAL_SHARE = 0.75
"""Of the audited cases, the share drawn from proposals; the rest are open questions without a candidate."""


@dataclass(frozen=True)
class Gate:
    """What the audited proposals say about the ones nobody looked at."""

    wins: int
    """Audited proposals whose candidate was right."""
    losses: int
    """Audited proposals whose given label was right."""
    neither: int
    """Audited proposals where both were wrong: neither a win nor a loss."""
    lower: float
    """Wilson lower bound of wins / (wins + losses)."""
    level: float

    @property
    def open(self) -> bool:
        """Whether proposals without a verdict may be applied."""
        return self.wins + self.losses > 0 and self.lower > self.level

    @property
    def summary(self) -> str:
        """One clause for people."""
        state = "open" if self.open else "closed"
        return (
            f"gate {state}: {self.wins} audited wins, {self.losses} losses, "
            f"lower bound {self.lower:.2f} against {self.level:.2f}"
        )


def choose_cases(cases: Sequence[Correction], budget: int, seed: int) -> list[Correction]:
    """At most `budget` open cases for a person, drawn by `seed`: three quarters proposals, the rest questions.

    Random, not the likeliest first: verdicts on the surest proposals would say nothing about the others. What one
    kind cannot fill, the other does.
    """
    rng = random.Random(seed)
    proposals = sorted((c for c in cases if c.action is Action.REVIEW and c.candidate), key=lambda c: c.sample_id)
    questions = sorted((c for c in cases if c.action is Action.REVIEW and not c.candidate), key=lambda c: c.sample_id)
    rng.shuffle(proposals)
    rng.shuffle(questions)
    first = min(len(proposals), max(round(budget * _PROPOSAL_SHARE), budget - len(questions)))
    return proposals[:first] + questions[: budget - first]


def gate_from(cases: Sequence[Correction], verdicts: Mapping[str, str], level: float) -> Gate:
    """The gate that `verdicts` (sample id → label or `neither`) on proposals justify."""
    wins = losses = neither = 0
    for case in cases:
        verdict = verdicts.get(case.sample_id)
        if verdict is None or case.candidate is None:
            continue
        if verdict == case.candidate:
            wins += 1
        elif verdict == case.given:
            losses += 1
        else:
            neither += 1
    return Gate(wins, losses, neither, wilson_lower(wins, wins + losses), level)


def wilson_lower(successes: int, trials: int, z: float = 1.96) -> float:
    """Lower bound of the Wilson score interval (default 95 %); 0 without trials.

    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).
    """
    if trials == 0:
        return 0.0
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return (centre - spread) / (1 + z * z / trials)
