"""The ledger answers by these keys: if one of them changes, everything that was paid for is asked again."""

from tasks.packs.pack import load_pack
from tasks.prompts.again import reseed
from tasks.prompts.prompter import Prompter
from tasks.records import Request, Sampling
from tests.tasks.making import image, sample

VOTES = Sampling(n=3, temperature=0.7, max_tokens=96, seed=5, label_probabilities=True)
DIALOGUE = sample("s", "\n用户: 在吗\n客服: 在的", image("c"), "这个“杯子”<image>漏水")


def prompter(pack: str, context_length: int | None = None) -> Prompter:
    return Prompter(
        load_pack(pack),
        "qwen@main",
        texts={"c": "订单详情"},
        max_pixels=784 * 1280,
        min_pixels=56 * 56,
        context_length=context_length,
    )


def requests() -> dict[str, Request]:
    demo, www2025 = prompter("demo"), prompter("www2025", 4096)
    labels = tuple(load_pack("www2025").task("image").labels)
    screenshot = sample("s", image("c"), task="image", labels=labels, given=labels[0])
    caption = sample("s", image("c"), task="caption", labels=(), given="一只“红色”的杯子")
    return {
        "rationale": demo.rationale(DIALOGUE, "反馈破损", Sampling(max_tokens=96)),
        "rationale with a complaint": demo.rationale(DIALOGUE, "反馈破损", Sampling(temperature=0.8, seed=1), "太短"),
        "classify": demo.classify(DIALOGUE, VOTES),
        "classify without a reason": demo.classify(DIALOGUE, Sampling(max_tokens=8), with_reason=False),
        "classify again": reseed(demo.classify(DIALOGUE, Sampling()), 1),
        "conclude": demo.conclude(DIALOGUE, "“漏水”二字", Sampling(max_tokens=1, label_probabilities=True)),
        "classify a screenshot": www2025.classify(screenshot, VOTES),
        "rationale of a screenshot": www2025.rationale(screenshot, labels[0], Sampling()),
        "write": prompter("captions").write(caption, Sampling()),
    }


# computed with the code of commit a716506; those of screenshots since the pack www2025 shows the text on them
KEYS = {
    "rationale": "6b01af032efb06dee80d3e19577a63882939fd5d6d121cade0d34eaa3ad2071e",
    "rationale with a complaint": "9e9566dc827f8caddc04d01d2c19c3ab1e7e16191a576265520843d207c900b8",
    "classify": "6c83811ca5e717e159d5b23895da6951539cd9f6ed81af4150cb0a894dbdc23a",
    "classify without a reason": "a0811d97f635ff27ff60a368956764cd54498229b87d954fe747ef8a83333bf3",
    "classify again": "6b55e245102ef9f2b331c406db062c017e6773ce61cf30b68b705832d257b092",
    "conclude": "60620056d5f1cd913a1a1b4b22193c5f95485c59f803cc3037f0f30ec0f6d845",
    "classify a screenshot": "915ef4ff3ff960a7808a8de005f8cbaad8c5be635618e50a86c9f2cc44fe9162",
    "rationale of a screenshot": "c61fe3cbf464ddcb1836f7a0e0d138720b66cb320b50f2ff7a48196d3cb32373",
    "write": "c40e1f63838d8ccdb2e2d3eb5bc87316971c08790d3cdfacff162fefcffc2a98",
}


def test_keys_are_those_of_the_ledgers_that_exist() -> None:
    assert {name: request.key for name, request in requests().items()} == KEYS
