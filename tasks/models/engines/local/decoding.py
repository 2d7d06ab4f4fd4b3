"""Decode a batch with one KV cache. The local engine does this once the prompts are tensors.

A batch is prefilled once. After that, every step appends one token to all rows. A row that has ended gets masked
tokens, so rows may differ in length. Text positions continue each row's multimodal positions. They are always passed
explicitly, because the model itself remembers only the offsets of the last batch.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tasks.prompts.box_forms import BOX_TOKENS

_TO_QUOTE = re.compile(r'(?:[^"\\]|\\.)*"', re.DOTALL)


@dataclass
class Draw:
    """One answer while its tokens are drawn; it is one row of the batch."""

    max_tokens: int
    temperature: float
    top_p: float
    uniform: Callable[[], float]
    """Returns the row's own random numbers (0 to 1), so that an answer does not depend on the rest of the batch."""
    boxes: bool
    """Whether the special tokens of boxes may occur in the text."""
    in_quotes: bool
    """Whether the text is inside a JSON string, and so ends at the string's closing quote."""
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    unfed: str = ""
    """The end of `text` that is not in the KV cache, because it shares a token with the closing quote."""
    drawn: int = 0
    """Number of tokens drawn, including the one that ended the text."""
    cut: bool = False
    """Whether the answer was cut at `max_tokens`."""


@dataclass
class Rows:
    """The state of the batch: the KV cache with its mask, and for each row its next position and next-token logits."""

    cache: Any
    mask: Tensor
    position: Tensor
    logits: Tensor

    def select(self, rows: Sequence[int]) -> "Rows":
        """Return the rows with these indices; a repeated index repeats its row."""
        if list(rows) == list(range(len(self.mask))):
            return self
        index = torch.tensor(rows, device=self.mask.device)
        self.cache.batch_select_indices(index)
        return Rows(self.cache, self.mask[index], self.position[index], self.logits[index])


def find_closing_quote(text: str) -> int:
    """Return the index of the first `"` that no backslash escapes; -1 if there is none."""
    found = _TO_QUOTE.match(text)
    return found.end() - 1 if found else -1


class Decoder:
    """Draws answers with a model and its tokenizer, one token per step."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        ends = model.generation_config.eos_token_id
        named = [vocabulary.get(t) for t in ("<|im_end|>", "<|endoftext|>", tokenizer.eos_token)]
        self.ends = {*(ends if isinstance(ends, list) else [ends]), *named} - {None}
        # byte-level vocabularies write ASCII unchanged
        self.quotes = {i for token, i in vocabulary.items() if '"' in token}
        special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special} - self.ends
        size = model.get_output_embeddings().weight.shape[0]
        # image placeholders and the padding rows of the embedding must not occur in an answer
        banned = [i for i in range(size) if i in special or i >= len(tokenizer)]
        self.banned = torch.tensor(banned, dtype=torch.long, device=model.device)
        boxes = {vocabulary.get(token) for token in BOX_TOKENS}
        unboxed = [i for i in banned if i not in boxes]
        self.banned_with_boxes = torch.tensor(unboxed, dtype=torch.long, device=model.device)

    def prefill(self, ids: Tensor, kinds: Tensor, mask: Tensor, media: Mapping[str, Tensor]) -> Rows:
        """Run the model on left-padded prompts and return their rows.

        `kinds` is 1 at the tokens of images, 2 at those of recordings, and 0 elsewhere. `media` are the processor's
        tensors of both, by the names that the model gives them.
        """
        device, dtype = self.model.device, self.model.dtype
        grids = {name: tensor for name, tensor in media.items() if not name.startswith("pixel_values")}
        # on the CPU: it reads single numbers in a loop, each of which would wait for the GPU
        positions, _ = self.model.model.get_rope_index(
            input_ids=ids, mm_token_type_ids=kinds, attention_mask=mask, **grids
        )
        out = self.model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            mm_token_type_ids=kinds.to(device),
            use_cache=True,
            logits_to_keep=1,
            **{n: t.to(device) if n in grids else t.to(device, dtype) for n, t in media.items()},
        )
        after = positions.amax(dim=(0, 2)).to(device) + 1
        return Rows(out.past_key_values, mask.to(device), after, out.logits[:, -1].to(device))

    def decode(self, rows: Rows, draws: Sequence[Draw]) -> None:
        """Draw the text of every row to its end; afterwards the cache of `rows` contains all tokens of the draws."""
        device = rows.mask.device
        temperature = torch.tensor([d.temperature for d in draws], device=device)
        top_p = torch.tensor([d.top_p for d in draws], device=device)
        live = [d.max_tokens > 0 for d in draws]
        while any(live):
            uniform = torch.tensor([d.uniform() if d.temperature else 0.0 for d in draws], device=device)
            logits = self._ban_tokens(rows.logits.float(), draws)
            chosen = draw_tokens(logits, temperature, top_p, uniform).tolist()
            live = [on and self._accept_token(d, token) for on, d, token in zip(live, draws, chosen, strict=True)]
            if any(live):
                self._feed(rows, [t if on else 0 for on, t in zip(live, chosen, strict=True)], live)
                # a row at its last token ends here, after it was fed: its logits are needed for the label
                for i, d in enumerate(draws):
                    if live[i] and len(d.tokens) >= d.max_tokens:
                        d.cut, live[i] = True, False

    def _ban_tokens(self, logits: Tensor, draws: Sequence[Draw]) -> Tensor:
        """Return the logits without tokens that must not occur in an answer."""
        banned = logits.index_fill(1, self.banned, float("-inf"))
        if not any(d.boxes for d in draws):
            return banned
        boxed = torch.tensor([d.boxes for d in draws], device=logits.device)
        return torch.where(boxed[:, None], logits.index_fill(1, self.banned_with_boxes, float("-inf")), banned)

    def _accept_token(self, draw: Draw, token: int) -> bool:
        """Append the token to the text and return True, or end the text and return False."""
        draw.drawn += 1
        if token in self.ends:
            return False
        if draw.in_quotes and token in self.quotes:
            text = self.decode_text([*draw.tokens, token])
            end = find_closing_quote(text)
            if end >= 0:
                draw.unfed = text[len(draw.text) : end] if text.startswith(draw.text) else ""
                draw.text += draw.unfed
                return False
        draw.tokens.append(token)
        draw.text = self.decode_text(draw.tokens)
        return True

    def decode_text(self, tokens: Sequence[int]) -> str:
        """Return the text of the tokens. Among them are no special ones, except those of boxes, which are kept."""
        return self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _feed(self, rows: Rows, tokens: Sequence[int], live: Sequence[bool]) -> None:
        """Append one token to the live rows; other rows get a masked token and keep their logits."""
        device = rows.mask.device
        on = torch.tensor(live, device=device)
        rows.mask = torch.cat([rows.mask, on[:, None].to(rows.mask.dtype)], dim=1)
        out = self.model(
            input_ids=torch.tensor(tokens, device=device)[:, None],
            attention_mask=rows.mask,
            position_ids=rows.position[None, :, None].expand(3, -1, 1),
            cache=rows.cache,
            use_cache=True,
        )
        rows.position = rows.position + on.long()
        rows.logits = torch.where(on[:, None], out.logits[:, -1].to(device), rows.logits)


def draw_tokens(logits: Tensor, temperature: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """Return a token per row: the likeliest at temperature 0, else one drawn from the top-p tokens with `uniform`."""
    greedy = logits.argmax(dim=-1)
    if not bool((temperature > 0).any()):
        return greedy
    scaled = logits / temperature.clamp(min=1e-6)[:, None]
    sorted_, index = scaled.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    before = sorted_.cumsum(dim=-1) - sorted_
    kept = sorted_ * (before < top_p[:, None])
    mass = kept.cumsum(dim=-1)
    choice = (mass <= uniform[:, None] * mass[:, -1:]).sum(dim=-1)
    choice = torch.minimum(choice, (kept > 0).sum(dim=-1) - 1)
    return torch.where(temperature > 0, index.gather(1, choice[:, None])[:, 0], greedy)
