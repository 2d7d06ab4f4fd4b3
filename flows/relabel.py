"""The scheduled re-labelling: asks only for what is new or stale, and publishes a new version or holds it back."""

from pathlib import Path

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.config import RelabelConfig
from flows.folders import CONFLICTS, REVIEW_POOL
from flows.run_lock import hold_output
from tasks.dataset.relabel_state import RelabelOutcome, RelabelState, read_state, write_state
from tasks.items.file_states import file_state, folder_state
from tasks.items.ocr import reader_identity
from tasks.models.engines.identity import checkpoint_identity, model_identity
from tasks.packs.pack import load_pack
from tasks.records import digest_of
from tasks.storage.stages import code_version, read_record


@flow(name="relabel", flow_run_name="relabel: {config.pack}", timeout_seconds=336 * 3600)
@hold_output
def relabel(config: RelabelConfig) -> State[RelabelState]:
    """Bring `output` up to date: new items, changed templates, teacher or label set, and what review has decided.

    All that is unchanged is reused, so only what is new or stale is asked. The set is merged beside the published one
    and compared with it; unless it moved beyond `drift`, or a person says no, it is published: written for trainers and
    logged as a version. The final state's name says how it ended (`RelabelOutcome`), its result is what stands in
    `output`/relabel.json.
    """
    watched = watched_digest(config)
    last = read_state(config.output) or RelabelState(watched="", outcome=RelabelOutcome.UNCHANGED)
    waits = last.outcome is RelabelOutcome.HELD_BACK
    there = last.version is None or read_record(config.output / "emit") is not None
    if last.watched == watched and there and not (waits and config.publish):
        return _ended(last.model_copy(update={"outcome": RelabelOutcome.UNCHANGED, "why": last.why if waits else ()}))
    # Only now: the stages bring torch and the trainers, 30 s on a busy machine for nothing on most nights.
    from flows.publishing import bring_up_to_date

    state = bring_up_to_date(config, watched, last)
    return _ended(write_state(config.output, state))


def watched_digest(config: RelabelConfig) -> str:
    """Digest of all that decides the set: configuration, pack, code, models, and the state of every file that is read.

    Files by size and time of change, so that a million known items take seconds.
    """
    sources = [s for s in (config.labelled, config.unlabelled, config.evaluation) if s is not None]
    stores = [config.output / folder / "verdicts.jsonl" for folder in (Path("review"), REVIEW_POOL, CONFLICTS)]
    given = [config.emit.mix.file if config.emit.mix else None, config.correction.reviewer.path]
    specs = (config.generator, config.teacher, config.pseudo_labels.second_teacher)
    pack, student = load_pack(config.pack), config.student
    unimportant = {"budget", "approval", "drift", "publish", "evaluate", "test", "runner", "shard_size"}
    return digest_of(
        [
            config.model_dump(mode="json", exclude=unimportant),
            pack.digest,
            code_version(),
            [model_identity(spec) for spec in specs if spec is not None],
            "" if student is None or student.kind == "probe" else checkpoint_identity(student.base, student.revision),
            reader_identity() if pack.ocr else "",
            [[file_state(source.manifest), folder_state(source.images)] for source in sources],
            [file_state(path) for path in (*stores, *given) if path is not None],
        ]
    )


def _ended(state: RelabelState) -> State[RelabelState]:
    """The final state of the flow run: always completed, since nothing broke; its name says what was done."""
    name = "".join(word.capitalize() for word in state.outcome.split())
    message = "; ".join(state.why) or state.outcome.value
    get_run_logger().info("%s: %s", state.outcome, message)
    return Completed(name=name, message=message, data=state)
