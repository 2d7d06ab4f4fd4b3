"""Write the fused student to a folder of its own, with a README that says how to serve it and how good it is."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from tasks.evaluation.fold_team import FoldTeam
from tasks.evaluation.scores import Score
from tasks.models.engines.engine import Workplace
from tasks.models.engines.vllm.options import format_serve_line
from tasks.students.asking import choose_base_engine
from tasks.students.settings import StudentSpec

FOLDER = "student"

_README = """# Student

An adapter of `{base}` in peft's format, with the processor's files. It adds to the base the mean of what
the {folds} fold students add, which were each trained on a part of the labelled set with its given labels.

{scores}

Serve it with vLLM; requests name the adapter's folder as their `model`:

    {command}

It knows the prompts of the pack it was trained with. Label more items with it, as with any teacher:

    teacher: {{engine: vllm, model: {base}, adapter: {folder}}}
"""


def write_served_student(
    output: Path, team: FoldTeam, spec: StudentSpec, place: Workplace, scores: Iterable[Score]
) -> Path:
    """Write the fused student of `team` to `output`/student, and return that folder."""
    folder = (output / FOLDER).resolve()
    work = folder.with_name(f".{FOLDER}.part")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(team.fused, work)
    engine = choose_base_engine(spec).model_copy(update={"engine": "vllm", "adapters": (str(work),)})
    measured = "\n".join(f"- `{s.variant}`: {s.accuracy}" for s in scores)
    text = _README.format(
        base=spec.base,
        folds=len(team.folders),
        folder=folder,
        scores=f"Accuracy on held-out items (`fused` is this student):\n\n{measured}",
        command=format_serve_line(engine, place).replace(str(work), str(folder)),
    )
    (work / "README.md").write_text(text, "utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
    return folder
