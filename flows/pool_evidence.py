"""Who is asked about the pool, and about the labelled set for comparison: teacher, students, second teacher."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flows.asking import Asking
from flows.config import PseudoLabelsConfig
from flows.stage import prompter_for
from flows.students import predict_pool
from flows.teacher import teacher_labels
from tasks.models.engines.identity import model_identity
from tasks.packs.pack import Pack
from tasks.pseudo_labels.evidence import Evidence, evidence, is_usable
from tasks.records import Prediction, Sample, Sampling


@dataclass(frozen=True)
class Opinions:
    """What each model says of one set, by sample id. (The pool may use ids of the labelled set anew.)"""

    teacher: Mapping[str, Prediction]
    direct: Mapping[str, Prediction] = field(default_factory=dict[str, Prediction])
    """The teacher without the description that it wrote first; empty for packs that don't have it describe."""
    students: tuple[Mapping[str, Prediction], ...] = ()
    """A mapping a repeat, of students that did not see the item."""
    second: Mapping[str, Prediction] = field(default_factory=dict[str, Prediction])

    def evidence(self) -> dict[str, Evidence]:
        """The evidence for each label of the teacher's, by sample id; items without a usable answer are missing."""
        return {
            i: evidence(
                p,
                direct=self.direct.get(i),
                students=[said[i] for said in self.students if i in said],
                second=self.second.get(i),
            )
            for i, p in self.teacher.items()
            if is_usable(p)
        }


def opinions(
    config: PseudoLabelsConfig,
    pack: Pack,
    labelled: Sequence[Sample],
    pool: Sequence[Sample],
    asking: Asking,
    *,
    with_students: bool,
) -> tuple[Opinions, Opinions]:
    """What is said of the labelled set and of the pool, both asked the same way: by the teacher, and by correction's
    students where `with_students`."""
    settings, spec = config.pseudo_labels, config.teacher
    prompter = prompter_for(config, pack, model_identity(spec), spec, [*labelled, *pool])
    found: list[Opinions] = []
    for items, what in ((labelled, "the labelled set, blind"), (pool, "the pool")):
        told = teacher_labels(asking, prompter, items, spec, settings, config.seed, f"teacher labels {what}")
        direct: dict[str, Prediction] = {}
        if pack.describe_first:
            sampling = Sampling(label_probabilities=True, max_tokens=8, seed=config.seed)
            requests = [prompter.classify(s, sampling, with_reason=False) for s in items]
            said = asking.labels(
                requests, spec, f"teacher labels {what}, undescribed", source="teacher/direct", model=prompter.model
            )
            direct = {p.sample_id: p for p in said}
        found.append(Opinions({p.sample_id: p for p in told}, direct))
    there, here = found
    if with_students and config.student is not None and settings.ask_students and config.labelled is not None:
        of_labelled, of_pool = predict_pool(config, config.student, pack, labelled, pool, asking)
        there, here = replace(there, students=of_labelled), replace(here, students=of_pool)
    return there, here


def ask_second(
    config: PseudoLabelsConfig,
    pack: Pack,
    samples: Sequence[Sample],
    doubtful: Collection[str],
    asking: Asking,
    said: Opinions,
) -> Opinions:
    """`said` and what the second teacher says of the `doubtful` among `samples`, asked as the first was."""
    spec = config.pseudo_labels.second_teacher
    assert spec is not None, "called with a second teacher only"
    items = [s for s in samples if s.id in doubtful]
    prompter = prompter_for(config, pack, model_identity(spec), spec, items)
    what = "second teacher labels what is uncertain"
    told = teacher_labels(asking, prompter, items, spec, config.pseudo_labels, config.seed, what)
    return replace(said, second={p.sample_id: p for p in told})
