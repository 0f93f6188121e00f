"""Continuous batching as a model: which answers get a token in which step, and how long a step takes.

Knows no clock and no sockets: `Batching.step` says what happens next and how many seconds it takes.
"""

import tomllib
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

PRESETS = Path(__file__).with_name("simulated_llm.toml")
BLOCK_TOKENS = 16


class Preset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model on a GPU. A step takes `step_ms + step_ms_per_answer * answers decoding + prompt tokens /
    prefill_tokens_per_second`, the linear model of a batch that is bound by memory bandwidth.

    `kv_tokens` fit the cache at once; at most `max_num_seqs` answers run and `max_batched_tokens` are
    computed in one step, as vLLM's scheduler has it. An answer has `answer_tokens` on average. With a
    `stream_interval` of n, n tokens share a frame. `source` says where the figures come from.
    """

    step_ms: float
    step_ms_per_answer: float
    prefill_tokens_per_second: float
    kv_tokens: int
    max_num_seqs: int = 256
    max_batched_tokens: int = 8192
    max_model_len: int = 8192
    answer_tokens: int = 200
    stream_interval: int = 1
    prefix_caching: bool = True
    model: str = "simulated"
    source: str = ""


def presets(path: Path = PRESETS) -> dict[str, Preset]:
    """All presets of a file, by name. Raises msgspec.ValidationError when a field is wrong."""
    return msgspec.convert(tomllib.loads(path.read_text()), type=dict[str, Preset])


@dataclass(eq=False, slots=True)
class Generation:
    """An answer being made: `prompt` tokens to compute, then up to `most` tokens to say.

    `uncomputed` prompt tokens are left to prefill; `blocks` are the hashes of the prompt's blocks.
    """

    prompt: int
    most: int
    blocks: tuple[int, ...] = ()
    uncomputed: int = 0
    cached: int = 0
    said: int = 0
    admitted: bool = False
    gone: bool = False

    @property
    def held(self) -> int:
        """Tokens of it that are in the cache, or have their place there."""
        return self.prompt + self.said if self.admitted else 0

    @property
    def over(self) -> bool:
        """Whether nothing is left to say."""
        return self.said >= self.most


@dataclass(frozen=True, slots=True)
class Step:
    """What one pass of the model does: `speakers` get a token each at its end, `admitted` left the queue.

    `tokens` are all tokens computed, of prompts and of answers.
    """

    seconds: float
    speakers: list[Generation]
    admitted: list[Generation]
    tokens: int


@dataclass
class PrefixCache:
    """Which prompt blocks are computed already; the oldest are forgotten. `capacity` in blocks."""

    capacity: int
    _known: OrderedDict[int, None] = field(default_factory=OrderedDict)

    def found(self, blocks: tuple[int, ...]) -> int:
        """Tokens at the start of the prompt that need no prefill; remembers all its blocks."""
        number = 0
        for block in blocks:
            if block not in self._known:
                break
            number += 1
        for block in blocks:
            self._known[block] = None
            self._known.move_to_end(block)
        while len(self._known) > self.capacity:
            self._known.popitem(last=False)
        return number * BLOCK_TOKENS


class Batching:
    """The scheduler: a queue, answers in prefill, answers decoding, and the cache they share."""

    def __init__(self, preset: Preset) -> None:
        self.preset = preset
        self.waiting: deque[Generation] = deque()
        self.prefilling: list[Generation] = []
        self.decoding: list[Generation] = []
        self.running = 0
        self.kv_used = 0
        self.preemptions = 0
        self._some_left = False
        self._prefixes = PrefixCache(preset.kv_tokens // BLOCK_TOKENS if preset.prefix_caching else 0)

    @property
    def kv_usage(self) -> float:
        """Share of the cache that is held, 0 to 1."""
        return self.kv_used / self.preset.kv_tokens

    def submit(self, generation: Generation) -> None:
        """Queue it."""
        self.waiting.append(generation)

    def leave(self, generation: Generation) -> None:
        """Its caller is gone: free what it holds at once."""
        if generation.gone or generation.over:
            return
        generation.gone = True
        if generation.admitted:
            self._free(generation)
        else:
            self.waiting.remove(generation)

    def step(self) -> Step | None:
        """The next pass, already taken: those it speaks for have said a token more. None: nothing to do."""
        if self._some_left:
            self.decoding = [one for one in self.decoding if one.admitted]
            self.prefilling = [one for one in self.prefilling if one.admitted]
            self._some_left = False
        self._make_room()
        speakers = self.decoding
        budget = max(0, self.preset.max_batched_tokens - len(speakers))
        prefilled, left = self._prefill(budget)
        admitted = []
        while left and (generation := self._admit()):
            admitted.append(generation)
            done, left = self._prefill(left)
            prefilled += done
        if not speakers and budget == left and not admitted:
            return None
        self.decoding = [*speakers, *prefilled]
        self.kv_used += len(self.decoding)
        for one in self.decoding:
            one.said += 1
            if one.said >= one.most:
                self._free(one)
        seconds = self._seconds(len(speakers), budget - left)
        return Step(seconds, self.decoding, admitted, len(self.decoding) + budget - left)

    def _seconds(self, answers: int, prompt_tokens: int) -> float:
        preset = self.preset
        decode = preset.step_ms + preset.step_ms_per_answer * answers
        return decode / 1000 + prompt_tokens / preset.prefill_tokens_per_second

    def _prefill(self, budget: int) -> tuple[list[Generation], int]:
        """Compute prompt tokens, oldest first; who is ready to speak, and what is left of the budget."""
        ready = []
        for one in self.prefilling:
            computed = min(one.uncomputed, budget)
            one.uncomputed -= computed
            budget -= computed
            if not one.uncomputed:
                ready.append(one)
        self.prefilling = [one for one in self.prefilling if one.uncomputed]
        return ready, budget

    def _admit(self) -> Generation | None:
        """Take the oldest from the queue into prefill, if it fits."""
        if not self.waiting or self.running >= self.preset.max_num_seqs:
            return None
        tokens = self.waiting[0].prompt + self.waiting[0].said
        if self.kv_used + tokens + len(self.decoding) > self.preset.kv_tokens and self.running:
            return None
        generation = self.waiting.popleft()
        # the last prompt token is always computed: it yields the first token of the answer
        generation.cached = min(self._prefixes.found(generation.blocks), generation.prompt - 1)
        generation.uncomputed = tokens - generation.cached
        generation.admitted = True
        self.kv_used += tokens
        self.running += 1
        self.prefilling.append(generation)
        return generation

    def _make_room(self) -> None:
        """When the cache cannot take one more token of each, the newest go back to the queue's head."""
        while len(self.decoding) > 1 and self.kv_used + len(self.decoding) > self.preset.kv_tokens:
            generation = self.decoding.pop()
            self._free(generation)
            self.waiting.appendleft(generation)
            self.preemptions += 1

    def _free(self, generation: Generation) -> None:
        self.kv_used -= generation.held
        self.running -= 1
        generation.admitted = False
        self._some_left = True
