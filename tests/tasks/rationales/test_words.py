import re
import shutil
from pathlib import Path

import pytest

from tasks.errors import PackError
from tasks.rationales.words import FOLDER, NEVER, RIGHT, ReasonWords, has_words, load_reason_words, read_words


def edit_words(folder: Path, old: str, new: str, language: str = "en") -> Path:
    file = Path(shutil.copy(FOLDER / f"{language}.yaml", folder))
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    return file


def test_a_language_code_may_name_a_country() -> None:
    assert load_reason_words("zh-CN") is load_reason_words("zh_TW") is load_reason_words("zh")
    assert has_words("EN") and not has_words("fr") and not has_words("../words/zh")
    assert load_reason_words("fr") == ReasonWords()


def test_pieces_and_the_label_are_filled_in(tmp_path: Path) -> None:
    words = read_words(edit_words(tmp_path, "leaks:\n", "leaks:\n  - 'so <label><before_label>!'\n"))
    assert words.leaks.pattern.startswith(f"so {RIGHT}\\s+(?:")
    assert words.idle.search("a very red thing") and words.praise.search("very") and not words.praise.search("every")


def test_lists_may_be_left_out(tmp_path: Path) -> None:
    file = edit_words(tmp_path, "idle: >", "praise_: >")
    text = re.sub(r"(?s)praise_: >.*?faults:", "faults:", file.read_text(encoding="utf-8"))
    file.write_text(text, encoding="utf-8")
    assert read_words(file).idle is NEVER


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("leaks:", "leak:", r"en\.yaml: leak: unknown key"),
        ("spaced: true", "spaced: perhaps", r"en\.yaml: spaced: "),
        ("leaks:\n", "leaks:\n  - '(open'\n", r"en\.yaml: leaks: pattern 1: not a valid regular expression"),
        ("leaks:\n", "leaks:\n  - 'the <lable>'\n", r"en\.yaml: leaks: pattern 1: <lable> is neither"),
        ("  reason_garbled:", "  reason_grabled:", r"en\.yaml: faults\.reason_grabled"),
        ("  reason_like_others: 'it is like other reasons; name what only this one has'\n", "", "reason_like_others"),
        (
            "{reason}” won''t",
            "{reasons}” won''t",
            r"en\.yaml: complaint: use only the names \{reason\}",
        ),
        ("scripts: [LATIN]", "scripts: [LATIN", r"en\.yaml, line \d+"),
    ],
)
def test_a_mistake_is_an_error_that_names_file_and_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(PackError, match=said):
        read_words(edit_words(tmp_path, old, new))


@pytest.mark.parametrize("reason", ["有三个节点，与给出的一致", "有退款金额，和已有标注不冲突", "红字与提示的类相符"])
def test_agreement_with_what_was_given_is_a_leak(reason: str) -> None:
    assert load_reason_words("zh").leaks.search(reason)


@pytest.mark.parametrize("reason", ["用户不同意商家给出的方案", "红色图标和文字提示库存不足", "快递单与商家已有的记录"])
def test_what_somebody_gave_in_the_item_is_no_leak(reason: str) -> None:
    assert not load_reason_words("zh").leaks.search(reason)
