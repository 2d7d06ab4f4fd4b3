"""The special tokens of boxes survive in answers, if the pack asks for boxes."""

from types import SimpleNamespace
from typing import Any

import orjson
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from tasks.models.engines.local.decoding import Decoder, Draw
from tasks.models.engines.server.chat import Capabilities, build_chat_body
from tasks.prompts.box_forms import BOX_TOKENS
from tasks.records import Sampling
from tests.tasks.making import prompter, sample


def make_decoder() -> tuple[Decoder, Any]:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"x": 0, "?": 1}, "?")))
    tokenizer.add_special_tokens({"additional_special_tokens": [*BOX_TOKENS, "<|image_pad|>", "<|im_end|>"]})
    model = SimpleNamespace(
        generation_config=SimpleNamespace(eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>")),
        get_output_embeddings=lambda: torch.nn.Embedding(len(tokenizer), 2),
        device="cpu",
    )
    return Decoder(model, tokenizer), tokenizer


def draw(*, boxes: bool) -> Draw:
    return Draw(9, 0.0, 1.0, float, boxes=boxes, in_quotes=False)


def test_the_local_engine_draws_them_only_where_boxes_are_asked_for() -> None:
    decoder, tokenizer = make_decoder()
    allowed = decoder._ban_tokens(torch.zeros(2, len(tokenizer)), [draw(boxes=True), draw(boxes=False)]).isfinite()
    box, image, end = (tokenizer.convert_tokens_to_ids(t) for t in ("<|box_start|>", "<|image_pad|>", "<|im_end|>"))
    assert allowed[:, box].tolist() == [True, False]
    assert allowed[:, image].tolist() == [False, False]
    assert allowed[:, end].tolist() == allowed[:, 0].tolist() == [True, True]


def test_the_local_engine_keeps_them_in_the_text() -> None:
    decoder, tokenizer = make_decoder()
    ids = [tokenizer.convert_tokens_to_ids(token) for token in ("<|box_start|>", "x", "<|box_end|>")]
    assert "".join(decoder.decode_text(ids).split()) == "<|box_start|>x<|box_end|>"


def test_vllm_is_told_to_keep_them_and_other_servers_are_not() -> None:
    asking = prompter()
    plain = asking.classify(sample(), Sampling())
    asking.pack = asking.pack.model_copy(update={"boxes": True})
    boxed = asking.classify(sample(), Sampling())
    assert plain.key != boxed.key
    for request, can, kept in [
        (boxed, Capabilities(), True),
        (boxed, Capabilities(token_logprobs=False), False),
        (plain, Capabilities(), False),
    ]:
        body = orjson.loads(build_chat_body(request, "m", [], can, n=1, seed=0))
        assert (body.get("skip_special_tokens") is False) is kept
        # a JSON schema would forbid them; with a maximum, also the backslashes of boxes that are JSON in JSON
        assert ("<|box_start|>" in str(body.get("structured_outputs"))) is kept is ("response_format" not in body)
        if not kept:
            reason = body["response_format"]["json_schema"]["schema"]["properties"]["理由"]
            assert ("maxLength" in reason) is (request is plain)
