# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
"""Qwen-VL by transformers, in this process: the engine that needs no server."""

import gc
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import torch
import transformers

from tasks.engines import EngineSpec
from tasks.engines.answers import draws_for, escaped, label_fields, text_fields
from tasks.engines.decoding import Decoder, Draw
from tasks.engines.identity import model_identity
from tasks.engines.loading import first_line, load_model
from tasks.engines.scoring import Answers, score_answers, split_answers
from tasks.errors import EngineError
from tasks.images import open_images
from tasks.prompts import user_content
from tasks.records import Generation, ImagePart, LabelAnswer, Outcome, Request

WINDOW = 8
"""Batches' worth of requests pulled from the stream at a time and sorted by length."""


@dataclass(frozen=True)
class _Prompt:
    """A request as tensors; `ids` end with the answer's opening where a reason comes first."""

    request: Request
    ids: list[int]
    pixels: torch.Tensor | None
    grid: torch.Tensor | None


class LocalEngine:
    """Answers requests with a checkpoint loaded here: batched, left-padded, similar lengths together.

    Every draw has its own source of chance (request key, seed, number), so an item's answer does not depend on
    which items share its batch.
    """

    def __init__(self, spec: EngineSpec) -> None:
        """Load `spec.model` and its adapter; raises EngineError with the mend when that fails."""
        self._batch_size = spec.batch_size
        self._model: Any
        self._model, self._processor = load_model(spec)
        self._decoder: Any = Decoder(self._model, self._processor.tokenizer)
        self._limit: int = self._model.config.get_text_config().max_position_embeddings
        self._openers = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="images")
        self._answers = lru_cache(maxsize=1024)(self._tokenised_answers)
        versions = f"transformers-{transformers.__version__}/torch-{torch.__version__}"
        self.fingerprint = f"local/{versions}/{model_identity(spec)}"

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer each request once, unordered; raises EngineError only when the device itself has failed."""
        stream = iter(requests)
        while window := list(islice(stream, WINDOW * self._batch_size)):
            # longest first: a batch too large for the memory shows at once
            window.sort(key=_rough_length, reverse=True)
            batches = [window[i : i + self._batch_size] for i in range(0, len(window), self._batch_size)]
            opened = self._open(batches[0])
            for number, batch in enumerate(batches):
                # the next batch's images are read while the model works on this one
                ahead = self._open(batches[number + 1]) if number + 1 < len(batches) else []
                yield from self._answer_batch(batch, opened)
                opened = ahead

    def close(self) -> None:
        """Free the model's memory; the engine answers nothing afterwards."""
        self._openers.shutdown(cancel_futures=True)
        self._model = self._decoder = None
        self._answers.cache_clear()
        _free_memory()

    def _open(self, batch: Sequence[Request]) -> list[Future[list[Any] | None]]:
        return [self._openers.submit(self._images, request) for request in batch]

    def _images(self, request: Request) -> list[Any] | None:
        patch: int = self._processor.image_processor.patch_size
        limits = {"min_pixels": request.min_pixels, "max_pixels": request.max_pixels}
        return open_images(request.images, **limits, patch_size=patch)

    def _answer_batch(
        self, batch: Sequence[Request], opened: Sequence[Future[list[Any] | None]]
    ) -> Iterator[Generation]:
        began = time.perf_counter()
        prompts: list[_Prompt] = []
        for request, images in zip(batch, opened, strict=True):
            made = self._prompt(request, images)
            if isinstance(made, Generation):
                yield made
            else:
                prompts.append(made)
        share = (time.perf_counter() - began) / len(batch)
        if prompts:
            for generation in self._answer(prompts):
                yield generation.model_copy(update={"seconds": generation.seconds + share})

    def _prompt(self, request: Request, opening: Future[list[Any] | None]) -> _Prompt | Generation:
        # an image file can break in as many ways as there are formats; each concerns this item only
        try:
            images = opening.result()
        except Exception as error:
            return self._ended(request, Outcome.BAD_MEDIA, first_line(error))
        try:
            message = {"role": "user", "content": user_content(request)}
            text = self._processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
            constraint = request.constraint
            if isinstance(constraint, LabelAnswer) and constraint.between is not None:
                text += constraint.opening
            # resized already, by qwen_vl_utils: the same route as in training
            made = self._processor(text=[text], images=images, do_resize=False, return_tensors="pt")
        except Exception as error:
            return self._ended(request, Outcome.FAILED, first_line(error))
        ids: list[int] = made["input_ids"][0].tolist()
        if len(ids) + request.sampling.max_tokens > self._limit:
            detail = f"{len(ids)} tokens and {request.sampling.max_tokens} to answer; the model takes {self._limit}"
            return self._ended(request, Outcome.TOO_LONG, detail)
        return _Prompt(request, ids, made.get("pixel_values"), made.get("image_grid_thw"))

    def _ended(self, request: Request, outcome: Outcome, detail: str) -> Generation:
        return Generation(key=request.key, outcome=outcome, engine=self.fingerprint, detail=detail)

    def _answer(self, prompts: Sequence[_Prompt]) -> list[Generation]:
        """Answer a batch; where it fails, smaller ones, down to the items that are to blame."""
        try:
            return self._run(prompts)
        except torch.OutOfMemoryError as error:
            size, failure = math.ceil(len(prompts) / 2), f"out of memory: lower max_pixels. {first_line(error)}"
        except torch.AcceleratorError as error:
            raise EngineError(f"the device failed: {first_line(error)}; run again, what is answered is kept") from error
        except Exception as error:
            size, failure = 1, first_line(error)
        # outside of the handlers: there the error would keep the failed batch's tensors alive
        _free_memory()
        if len(prompts) == 1:
            return [self._ended(prompts[0].request, Outcome.FAILED, failure)]
        return [g for i in range(0, len(prompts), size) for g in self._answer(prompts[i : i + size])]

    @torch.inference_mode()
    def _run(self, prompts: Sequence[_Prompt]) -> list[Generation]:
        began = time.perf_counter()
        draws = [draws_for(p.request) for p in prompts]
        rows = self._decoder.prefill(*self._tensors(prompts)).select([i for i, d in enumerate(draws) for _ in d])
        flat = [d for of_prompt in draws for d in of_prompt]
        self._decoder.decode(rows, flat)
        requests = [p.request for p, d in zip(prompts, draws, strict=True) for _ in d]
        labelled = [i for i, r in enumerate(requests) if isinstance(r.constraint, LabelAnswer)]
        scores: dict[int, torch.Tensor] = {}
        if labelled:
            answers = [self._answers_after(requests[i].constraint, flat[i]) for i in labelled]
            scored = score_answers(self._model, rows.select(labelled), answers)
            scores = {i: values.log_softmax(dim=-1).cpu() for i, values in zip(labelled, scored, strict=True)}
        share = (time.perf_counter() - began) / len(prompts)
        generations: list[Generation] = []
        at = 0
        for prompt, own in zip(prompts, draws, strict=True):
            ours = [scores[i] for i in range(at, at + len(own)) if i in scores]
            at += len(own)
            fields = label_fields(prompt.request, own, ours) if ours else text_fields(prompt.request, own)
            counts = {"tokens_in": len(prompt.ids), "tokens_out": sum(d.drawn for d in own), "seconds": share}
            generations.append(Generation(key=prompt.request.key, engine=self.fingerprint, **counts, **fields))
        return generations

    def _tensors(self, prompts: Sequence[_Prompt]) -> tuple[Any, ...]:
        """Token ids, their kinds (1: image) and mask, left-padded; the images of all prompts in order."""
        width = max(len(p.ids) for p in prompts)
        ids = torch.tensor([[0] * (width - len(p.ids)) + p.ids for p in prompts])
        mask = torch.tensor([[0] * (width - len(p.ids)) + [1] * len(p.ids) for p in prompts])
        kinds = ((ids == self._model.config.image_token_id) & (mask == 1)).long()
        pixels = [p.pixels for p in prompts if p.pixels is not None]
        grids = [p.grid for p in prompts if p.grid is not None]
        return ids, kinds, mask, torch.cat(pixels) if pixels else None, torch.cat(grids) if grids else None

    def _answers_after(self, constraint: Any, draw: Draw) -> Answers:
        start = constraint.opening if constraint.between is None else draw.unfed + constraint.between
        return self._answers(start, constraint.labels, constraint.closing)

    def _tokenised_answers(self, start: str, labels: tuple[str, ...], closing: str) -> Answers:
        # in one piece, as the trainer tokenises: a label's tokens may reach over its quotes
        texts = [start + escaped(label) + closing for label in labels]
        return split_answers(self._processor.tokenizer(texts, add_special_tokens=False)["input_ids"])


def _rough_length(request: Request) -> int:
    """About how many tokens the prompt has: for sorting, so nothing is opened or tokenised for it."""
    pixels = (min(max(i.width * i.height, request.min_pixels), request.max_pixels) for i in request.images)
    texts = (len(p.text) for p in request.parts if not isinstance(p, ImagePart))
    return sum(pixels) // (28 * 28) + len(request.prefix) + sum(texts) + len(request.suffix)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
