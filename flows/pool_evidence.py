"""Who is asked about the pool, and about the labelled set for comparison: teacher, students, second teacher."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flows.asking import prepare_prompter
from flows.config import CommonConfig, CorrectionConfig, PseudoLabelsConfig
from flows.pool_students import students_say
from tasks.models.ask import Asker
from tasks.models.teacher import label_with_teacher
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
    asker: Asker,
    *,
    with_students: bool,
) -> tuple[Opinions, Opinions]:
    """What is said of the labelled set and of the pool, both asked the same way: by the teacher, and by correction's
    students where `with_students`."""
    settings, spec = config.pseudo_labels, config.teacher
    prompter = prepare_prompter(config, pack, spec, [*labelled, *pool])
    found: list[Opinions] = []
    for items, what in ((labelled, "the labelled set, blind"), (pool, "the pool")):
        told = label_with_teacher(asker, prompter, items, spec, settings, config.seed, f"teacher labels {what}")
        direct: dict[str, Prediction] = {}
        if pack.describe_first:
            sampling = Sampling(label_probabilities=True, max_tokens=8, seed=config.seed)
            requests = [prompter.classify(s, sampling, with_reason=False) for s in items]
            said = asker.ask_for_labels(
                requests, spec, f"teacher labels {what}, undescribed", source="teacher/direct", model=prompter.model
            )
            direct = {p.sample_id: p for p in said}
        found.append(Opinions({p.sample_id: p for p in told}, direct))
    there, here = found
    if with_students and config.student is not None and settings.ask_students and config.labelled is not None:
        common = {name: getattr(config, name) for name in CommonConfig.model_fields}
        trained = CorrectionConfig(**common, labelled=config.labelled, teacher=spec, student=config.student)
        of_labelled, of_pool = students_say(trained, pack, labelled, pool, asker)
        there, here = replace(there, students=of_labelled), replace(here, students=of_pool)
    return there, here


def ask_second(
    config: PseudoLabelsConfig,
    pack: Pack,
    samples: Sequence[Sample],
    doubtful: Collection[str],
    asker: Asker,
    said: Opinions,
) -> Opinions:
    """`said` and what the second teacher says of the `doubtful` among `samples`, asked as the first was."""
    spec = config.pseudo_labels.second_teacher
    assert spec is not None, "called with a second teacher only"
    items = [s for s in samples if s.id in doubtful]
    prompter = prepare_prompter(config, pack, spec, items)
    what = "second teacher labels what is uncertain"
    told = label_with_teacher(asker, prompter, items, spec, config.pseudo_labels, config.seed, what)
    return replace(said, second={p.sample_id: p for p in told})
