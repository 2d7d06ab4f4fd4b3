from pathlib import Path

from tasks.records import Dropped
from tasks.report.summary import read_stage_records, summarize_run
from tasks.storage.stage_record import Costs, StageRecord
from tasks.storage.stages import write_stage
from tests.tasks.making import prediction


def test_the_summary_lists_finished_stages_in_order_and_the_files_of_the_set(tmp_path: Path) -> None:
    for stage in ("emit", "samples/labelled"):
        record = StageRecord(
            stage=stage, recipe="r", read=0, kept=0, dropped=0, seconds=3, costs=Costs(asked=7), figures={"x": 0.12345}
        )
        dropped = [
            Dropped(sample_id=id, stage=stage, reason=reason) for id, reason in (("b", "z"), ("c", "y"), ("d", "z"))
        ]
        write_stage(tmp_path / stage, record, [prediction("a")], dropped, "abcd")
    (tmp_path / "rationales").mkdir()
    assert [r.stage for r in read_stage_records(tmp_path)] == ["samples/labelled", "emit"]
    lines = summarize_run(tmp_path).splitlines()
    assert lines[2:4] == [f"| {stage} | 4 | 1 | 3 | y 1, z 2 | 7 | 0 | 3 |" for stage in ("samples/labelled", "emit")]
    assert "- **emit**: x 0.123" in lines
    assert [line.split("`")[1] for line in lines if "bytes" in line] == [
        str(tmp_path / "emit" / name) for name in ("dropped.parquet", "kept.parquet", "record.json")
    ]


def test_the_summary_of_a_run_without_stages_is_an_empty_table(tmp_path: Path) -> None:
    assert len(summarize_run(tmp_path).splitlines()) == 3
