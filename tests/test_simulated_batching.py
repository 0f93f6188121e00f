"""Continuous batching as a model: what a step does and how long it takes; no clock, no sockets."""

import msgspec
import pytest

from loadtests.simulated_batching import Batching, Generation, PrefixCache, Preset, Step, presets
from loadtests.simulated_llm import chosen, options
from loadtests.simulated_metrics import Lateness

GPU = Preset(
    step_ms=10,
    step_ms_per_answer=1,
    prefill_tokens_per_second=1000,
    kv_tokens=1000,
    max_num_seqs=4,
    max_batched_tokens=100,
)


def submitted(batching: Batching, number: int, prompt: int = 10, most: int = 5) -> list[Generation]:
    generations = [Generation(prompt, most) for _ in range(number)]
    for generation in generations:
        batching.submit(generation)
    return generations


def stepped(batching: Batching) -> Step:
    step = batching.step()
    assert step is not None
    return step


def run_dry(batching: Batching) -> float:
    """The seconds until nothing is left to do."""
    seconds = 0.0
    while step := batching.step():
        seconds += step.seconds
    return seconds


def test_a_step_costs_its_own_time_and_that_of_each_answer_and_of_each_prompt_token() -> None:
    batching = Batching(GPU)
    submitted(batching, 2)
    first, second = stepped(batching), stepped(batching)
    assert first.seconds == pytest.approx(0.010 + 20 / 1000)
    assert second.seconds == pytest.approx(0.010 + 2 * 0.001)
    assert (first.tokens, second.tokens) == (22, 2)


def test_a_prompt_speaks_at_the_end_of_the_step_that_computes_its_last_token() -> None:
    batching = Batching(GPU)
    (long,) = submitted(batching, 1, prompt=250)
    speakers = [len(stepped(batching).speakers) for _ in range(4)]
    assert speakers == [0, 0, 1, 1]
    assert long.said == 2


def test_running_answers_go_on_while_a_long_prompt_is_computed_in_pieces() -> None:
    batching = Batching(GPU)
    (early,) = submitted(batching, 1, most=50)
    stepped(batching)
    (late,) = submitted(batching, 1, prompt=300)
    for _ in range(3):
        assert early in stepped(batching).speakers
    assert late.said == 0
    assert late in stepped(batching).speakers


def test_no_more_answers_run_than_the_limit_and_the_queue_is_first_come_first_served() -> None:
    batching = Batching(GPU)
    generations = submitted(batching, 6)
    admitted = stepped(batching).admitted
    assert admitted == generations[:4]
    assert (batching.running, len(batching.waiting)) == (4, 2)
    run_dry(batching)
    assert all(generation.over for generation in generations)


def test_who_does_not_fit_the_cache_waits_until_another_is_done() -> None:
    batching = Batching(GPU)
    first, second = submitted(batching, 2, prompt=600, most=2)
    while not first.over:
        stepped(batching)
        assert second.held == 0
    assert batching.step() is not None
    assert second.held == 600
    run_dry(batching)
    assert (batching.kv_used, batching.running) == (0, 0)


def test_when_answers_outgrow_the_cache_the_newest_begins_again_and_says_nothing_twice() -> None:
    batching = Batching(msgspec.structs.replace(GPU, kv_tokens=130))
    generations = submitted(batching, 2, prompt=40, most=60)
    said = 0
    while step := batching.step():
        said += len(step.speakers)
        assert batching.kv_used <= 130
    assert batching.preemptions > 0
    assert said == sum(generation.said for generation in generations) == 120
    assert batching.kv_used == 0


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_who_leaves_frees_at_once_what_it_held(steps: int) -> None:
    batching = Batching(GPU)
    stays, leaves = submitted(batching, 2, most=20)
    for _ in range(steps):
        stepped(batching)
    batching.leave(leaves)
    batching.leave(leaves)
    assert batching.kv_used == stays.held
    assert batching.running == (1 if steps else 0)
    said = leaves.said
    run_dry(batching)
    assert (leaves.said, stays.said) == (said, 20)
    assert (batching.kv_used, batching.running) == (0, 0)


def test_a_prompt_larger_than_the_cache_is_computed_alone() -> None:
    batching = Batching(GPU)
    (generation,) = submitted(batching, 1, prompt=5000, most=3)
    run_dry(batching)
    assert generation.over


def test_batching_gains_throughput_until_the_answers_cost_more_than_the_step() -> None:
    rates = []
    for number in (1, 8, 64):
        batching = Batching(msgspec.structs.replace(GPU, max_num_seqs=64, kv_tokens=1_000_000))
        submitted(batching, number, prompt=1, most=100)
        rates.append(number * 100 / run_dry(batching))
    assert rates[0] < rates[1] < rates[2] < 1000


def test_the_h100_preset_says_what_was_published_of_it() -> None:
    published = {1: 4.63, 5: 4.58, 25: 5.19, 50: 5.91, 100: 7.57, 150: 9.81, 200: 12.65}
    preset = presets()["h100-8b"]
    for answers, milliseconds in published.items():
        assert preset.step_ms + preset.step_ms_per_answer * answers == pytest.approx(milliseconds, abs=0.6)


def test_blocks_are_found_up_to_the_first_that_differs_and_the_oldest_are_forgotten() -> None:
    cache = PrefixCache(capacity=4)
    assert cache.found((1, 2, 3)) == 0
    assert cache.found((1, 2, 9)) == 32
    assert cache.found((7, 2, 3)) == 0
    assert cache.found((1,)) == 0


def test_a_step_counts_as_late_beyond_a_tenth_of_its_time() -> None:
    lateness = Lateness()
    assert not lateness.note(0.0019, 0.020)
    assert lateness.note(0.0021, 0.020)
    assert not lateness.note(0.0009, 0.005)
    assert lateness.percentile(1.0) == 0.0021


def test_a_preset_is_changed_on_the_command_line() -> None:
    preset = chosen(options(["--preset", "quick", "--set", "step_ms=7.5", "max_num_seqs=3"]))
    assert (preset.step_ms, preset.max_num_seqs) == (7.5, 3)
    with pytest.raises(msgspec.ValidationError):
        chosen(options(["--set", "no_such_field=1"]))


def test_every_preset_names_its_source() -> None:
    assert all(preset.source for preset in presets().values())
