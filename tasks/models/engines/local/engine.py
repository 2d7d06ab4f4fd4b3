"""Answer with a Qwen-VL checkpoint in this process, with transformers; no server is needed."""

import gc
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from random import Random
from typing import Any

import torch
import transformers

from tasks.errors import EngineError
from tasks.models.engines.engine import Usage, Workplace
from tasks.models.engines.identity import identify_model
from tasks.models.engines.local.child_engine import WINDOW
from tasks.models.engines.local.decoding import Decoder, Draw
from tasks.models.engines.local.loading import load_model
from tasks.models.engines.local.scoring import Answers, score_answers, split_answers
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import list_sides
from tasks.models.qwen_vl import read_qwen_vl
from tasks.models.token_budget import Fitted, PromptBudget
from tasks.models.unanswered import Unanswered, make_unanswered, summarise
from tasks.prompts.recordings import describe_times
from tasks.prompts.turns import make_system_turn, make_user_content
from tasks.records import Generation, LabelAnswer, Outcome, Request
from tasks.storage.json_lines import escape_json


@dataclass(frozen=True)
class _Prompt:
    """A request as tensors; `ids` include the opening of the answer when a reason comes first."""

    asked: Fitted
    ids: list[int]
    media: dict[str, torch.Tensor]
    """The processor's tensors of images and recordings."""


_MEDIA = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts")


@dataclass(frozen=True)
class _Opened:
    """The pictures of a request, at the size that the model sees."""

    images: list[Any] | None
    videos: list[list[Any]] | None
    """The frames of each recording."""


class LocalEngine:
    """Answers requests in left-padded batches of similar length.

    Every draw has its own random numbers (from the request's key, the seed and the draw's number), so an answer does
    not depend on the other requests in its batch.
    """

    def __init__(self, spec: EngineSpec, place: Workplace) -> None:
        """Load the model and adapter of `spec`; raise EngineError, saying how to fix it, when that fails."""
        self._batch_size = spec.batch_size
        self._images = place.images
        self._model: Any
        self._model, self._processor = load_model(spec)
        self._decoder: Any = Decoder(self._model, self._processor.tokenizer)
        self._budget = PromptBudget(self._processor)
        thinks = read_qwen_vl(spec.model, spec.revision).thinks
        self.notes = (f"{spec.model} is asked to answer without thinking first",) if thinks else ()
        positions: int = self._model.config.get_text_config().max_position_embeddings
        self._context = min(positions, spec.context_length or positions)
        self._openers = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="images")
        self._answers = lru_cache(maxsize=1024)(self._tokenise_answers)
        versions = f"transformers-{transformers.__version__}/torch-{torch.__version__}"
        self.fingerprint = f"local/{versions}/{identify_model(spec)}"
        self._gpus = len({p.device for p in self._model.parameters() if p.device.type == "cuda"})
        self._busy = self._seconds = self._starved = 0.0

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Yield one generation per request, in any order; raise EngineError when device or image cache fail."""
        answered = self._answer_windows(iter(requests))
        while True:
            began = time.perf_counter()
            generations = next(answered, None)
            self._seconds += time.perf_counter() - began
            if generations is None:
                return
            yield from generations

    def usage(self) -> Usage:
        """Return how busy the engine has been, without the time in which it waited for the reader of its answers."""
        return Usage(self._batch_size, self._busy, self._seconds, self._starved, self._gpus)

    def close(self) -> None:
        """Free the model's memory; the engine cannot be used afterwards."""
        self._openers.shutdown(cancel_futures=True)
        self._model = self._decoder = None
        self._answers.cache_clear()
        _free_memory()

    def _answer_windows(self, stream: Iterator[Request]) -> Iterator[list[Generation]]:
        while True:
            began = time.perf_counter()
            window = list(islice(stream, WINDOW * self._batch_size))
            self._starved += time.perf_counter() - began
            if not window:
                return
            asked: list[Fitted] = []
            for request in window:
                try:
                    asked.append(self._fit(request))
                except Exception as error:
                    yield [make_unanswered(request, error, self.fingerprint)]
            # longest first, so that a batch too large for the memory fails at once
            asked.sort(key=lambda f: f.tokens, reverse=True)
            batches = [asked[i : i + self._batch_size] for i in range(0, len(asked), self._batch_size)]
            opened = self._submit_images(batches[0]) if batches else []
            for number, batch in enumerate(batches):
                # read the images of the next batch while the model answers this one
                ahead = self._submit_images(batches[number + 1]) if number + 1 < len(batches) else []
                yield self._answer_batch(batch, opened)
                opened = ahead

    def _fit(self, request: Request) -> Fitted:
        needed = request.sampling.max_tokens
        if isinstance(constraint := request.constraint, LabelAnswer):
            answer = self._find_answers(constraint, "")
            needed = len(answer.shared) + max(map(len, answer.rests))
            if constraint.between is not None:
                needed += len(self._tokenise([constraint.opening])[0]) + request.sampling.max_tokens
        return self._budget.fit(request, self._context, answer=needed)

    def _submit_images(self, batch: Sequence[Fitted]) -> list[Future[_Opened]]:
        return [self._openers.submit(self._open_images, asked.request) for asked in batch]

    def _open_images(self, request: Request) -> _Opened:
        patch: int = self._processor.image_processor.patch_size
        limits = {"min_pixels": request.min_pixels, "max_pixels": request.max_pixels}
        images = self._images.open(request.images, **limits, patch_size=patch)
        return _Opened(images, self._images.open_frames(request.videos, **request.frame_bounds, patch_size=patch))

    def _answer_batch(self, batch: Sequence[Fitted], opened: Sequence[Future[_Opened]]) -> list[Generation]:
        began = time.perf_counter()
        prompts: list[_Prompt] = []
        generations: list[Generation] = []
        for asked, images in zip(batch, opened, strict=True):
            try:
                prompts.append(self._build_prompt(asked, images))
            except EngineError:
                raise  # the image cache cannot be written: no request can be answered
            except Exception as error:
                generations.append(make_unanswered(asked.request, error, self.fingerprint))
        share = (time.perf_counter() - began) / len(batch)
        answered = self._answer(prompts) if prompts else []
        generations += [g.model_copy(update={"seconds": g.seconds + share}) for g in answered]
        self._busy += len(batch) * (time.perf_counter() - began)
        return generations

    def _build_prompt(self, asked: Fitted, opening: Future[_Opened]) -> _Prompt:
        request = asked.request
        opened = opening.result()
        turns = [*make_system_turn(request), {"role": "user", "content": make_user_content(request)}]
        text = self._processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        if isinstance(constraint := request.constraint, LabelAnswer) and constraint.between is not None:
            text += constraint.opening
        # already chosen and resized, as in training
        given = {"images": opened.images, "videos": opened.videos, "do_resize": False}
        if opened.videos:
            given |= {"video_metadata": describe_times(request.videos), "do_sample_frames": False}
            given["cap_pixels_per_frame"] = False  # else transformers warns that it resizes frames unlike qwen_vl_utils
        made = self._processor(text=[text], return_tensors="pt", **given)
        ids: list[int] = made["input_ids"][0].tolist()
        return _Prompt(asked, ids, {name: torch.as_tensor(made[name]) for name in _MEDIA if name in made})

    def _answer(self, prompts: Sequence[_Prompt]) -> list[Generation]:
        """Answer a batch; when it fails, answer smaller ones, down to the requests that cause the failure."""
        try:
            return self._run(prompts)
        except torch.OutOfMemoryError as error:
            size = math.ceil(len(prompts) / 2)
            failure = f"out of memory; lower `max_pixels`: {summarise(error)}"
        except torch.AcceleratorError as error:
            raise EngineError(
                f"the device failed: {summarise(error)}; if memory is short, lower `batch_size` or `max_pixels`; "
                "run again (answers so far are kept)"
            ) from error
        except Exception as error:
            size = 1
            failure = summarise(error)
        # outside the handlers, where the error would keep the tensors of the failed batch alive
        _free_memory()
        if len(prompts) == 1:
            return [make_unanswered(prompts[0].asked.request, Unanswered(failure), self.fingerprint)]
        return [g for i in range(0, len(prompts), size) for g in self._answer(prompts[i : i + size])]

    @torch.inference_mode()
    def _run(self, prompts: Sequence[_Prompt]) -> list[Generation]:
        began = time.perf_counter()
        draws = [_make_draws(p.asked.request) for p in prompts]
        rows = self._decoder.prefill(*self._stack_tensors(prompts)).select([i for i, d in enumerate(draws) for _ in d])
        flat = [d for of_prompt in draws for d in of_prompt]
        self._decoder.decode(rows, flat)
        requests = [p.asked.request for p, d in zip(prompts, draws, strict=True) for _ in d]
        labelled = {i: r.constraint for i, r in enumerate(requests) if isinstance(r.constraint, LabelAnswer)}
        scores: dict[int, torch.Tensor] = {}
        if labelled:
            answers = [self._find_answers(constraint, flat[i].unfed) for i, constraint in labelled.items()]
            scored = score_answers(self._model, rows.select(list(labelled)), answers)
            scores = {i: values.log_softmax(dim=-1).cpu() for i, values in zip(labelled, scored, strict=True)}
        share = (time.perf_counter() - began) / len(prompts)
        patch: int = self._processor.image_processor.patch_size
        generations: list[Generation] = []
        at = 0
        for prompt, own in zip(prompts, draws, strict=True):
            ours = [scores[i] for i in range(at, at + len(own)) if i in scores]
            at += len(own)
            asked = prompt.asked
            fields = _build_label_fields(asked.request, own, ours) if ours else _build_text_fields(asked.request, own)
            counts = {"tokens_in": len(prompt.ids), "tokens_out": sum(d.drawn for d in own), "seconds": share}
            named = {"key": asked.request.key, "engine": self.fingerprint, "shortened": asked.note}
            sides = list_sides(asked.whole, asked.request, patch)
            generations.append(Generation(**named, **counts, **fields, sides=sides))
        return generations

    def _stack_tensors(self, prompts: Sequence[_Prompt]) -> tuple[Any, ...]:
        """Return token ids, their kinds and mask, left-padded, and the media of all prompts in order."""
        width = max(len(p.ids) for p in prompts)
        ids = torch.tensor([[0] * (width - len(p.ids)) + p.ids for p in prompts])
        mask = torch.tensor([[0] * (width - len(p.ids)) + [1] * len(p.ids) for p in prompts])
        config = self._model.config
        kinds = ((ids == config.image_token_id) + 2 * (ids == config.video_token_id)) * mask
        parts = {name: [p.media[name] for p in prompts if name in p.media] for name in _MEDIA}
        return ids, kinds, mask, {name: torch.cat(tensors) for name, tensors in parts.items() if tensors}

    def _find_answers(self, constraint: LabelAnswer, unfed: str) -> Answers:
        """Return the tokens of the answers after the prompt, or after a reason that ends with `unfed`."""
        start = constraint.opening if constraint.between is None else unfed + constraint.between
        return self._answers(start, constraint.labels, constraint.closing)

    def _tokenise_answers(self, start: str, labels: tuple[str, ...], closing: str) -> Answers:
        # as one text, as in training: a token of the label may include its quotes
        return split_answers(self._tokenise([start + escape_json(label) + closing for label in labels]))

    def _tokenise(self, texts: list[str]) -> list[list[int]]:
        return self._processor.tokenizer(texts, add_special_tokens=False)["input_ids"]


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# --- from a request to the rows that are decoded for it, and from decoded rows to the answer ----------------------


def _make_draws(request: Request) -> list[Draw]:
    """Return the rows of a request: n if they are drawn at random, else one."""
    sampling, constraint = request.sampling, request.constraint
    is_label = isinstance(constraint, LabelAnswer)
    max_tokens = 0 if is_label and constraint.between is None else sampling.max_tokens
    count = sampling.n if max_tokens and sampling.temperature else 1
    chances = [Random(f"{request.key}/{sampling.seed}/{number}") for number in range(count)]
    return [
        Draw(
            max_tokens,
            sampling.temperature,
            sampling.top_p,
            chance.random,
            boxes=request.boxes is not None,
            in_quotes=is_label,
        )
        for chance in chances
    ]


def _build_label_fields(request: Request, draws: Sequence[Draw], scores: Sequence[torch.Tensor]) -> dict[str, Any]:
    constraint, wanted = request.constraint, request.sampling
    assert isinstance(constraint, LabelAnswer)
    logprobs = torch.stack(list(scores))
    if not bool(torch.isfinite(logprobs).all()):
        raise ValueError("the model's label probabilities are not finite; set `dtype` to bfloat16 or float32")
    texts: list[str] = []
    for draw, own in zip(draws, logprobs, strict=True):
        label = escape_json(constraint.labels[int(own.argmax())])
        reason = "" if constraint.between is None else _trim_json_string(draw.text) + constraint.between
        texts.append(constraint.opening + reason + label + constraint.closing)
    mean = (logprobs.logsumexp(dim=0) - math.log(len(scores))).tolist()
    return {
        "outcome": Outcome.OK,
        "texts": tuple(texts * (wanted.n // len(texts))),
        "label_logprobs": dict(zip(constraint.labels, mean, strict=True)) if wanted.label_probabilities else None,
        "detail": f"reason cut at {wanted.max_tokens} tokens" if any(d.cut for d in draws) else "",
    }


def _build_text_fields(request: Request, draws: Sequence[Draw]) -> dict[str, Any]:
    # complete answers first: whoever needs one takes the first
    texts = [d.text for d in sorted(draws, key=lambda d: (not d.text.strip(), d.cut))]
    whole = any(d.text.strip() and not d.cut for d in draws)
    partial = any(d.text.strip() for d in draws)
    outcome = Outcome.OK if whole else Outcome.TRUNCATED if partial else Outcome.EMPTY
    return {"outcome": outcome, "texts": tuple(texts * (request.sampling.n // len(texts)))}


def _trim_json_string(reason: str) -> str:
    """Return the reason as valid inside of a JSON string, even if it was cut within a character or an escape."""
    reason = reason.rstrip("\ufffd")
    dangling = (len(reason) - len(reason.rstrip("\\"))) % 2
    return reason[:-1] if dangling else reason
