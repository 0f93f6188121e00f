"""Pairs of a claim and a passage of which it is known whether the passage says it, made from public sets.

What is made here is made by rules with a fixed seed, so that every run sees the same pairs.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

import msgspec

from business_api.sentences import sentences, weighted, words

Half = Literal["dev", "test"]
SEED = 7
QUESTIONS = 2400
ASKED = re.compile(
    r"\b(?:in |at |on |by |from |for |to )?(?:what|which|who|whom|whose|where|when|how many|how much|how)\b"
    r"(?: (?:year|century|country|city|type|kind|name|group|percentage|date|word|term|person)s?\b)?",
    re.IGNORECASE,
)
PREPOSITION = re.compile(r"(?:in|at|on|by|from|for|to) ", re.IGNORECASE)
NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,})*")
VERB = re.compile(
    r"\b(?:is|are|was|were|can|could|will|would|has|have|had|did|does|must|may|should)\b(?! not)"
)
ASIDE = re.compile(
    r"\s*\([^)]*\)|\b(?:very|also|however|often|generally|usually|widely|later|largely|then),? "
)
SYNONYMS = dict(
    pair.split("/")
    for pair in """
    began/started large/big used/employed made/created because/since several/many important/major called/named
    different/distinct known/famous during/throughout number/amount result/outcome allow/permit allows/permits
    show/demonstrate shows/demonstrates increase/rise help/assist main/chief country/nation war/conflict
    built/constructed wrote/authored found/discovered include/contain includes/contains about/around
    """.split()
)


class Pair(NamedTuple):
    """Whether `text` says `claim`, as far as one knows from how the claim was made (`kind`)."""

    half: Half
    kind: str
    says_it: bool
    claim: str
    text: str


def of_squad(folder: Path) -> list[Pair]:
    """Pairs of a set of questions on paragraphs, halved by article. Reads corpus.jsonl and qa.jsonl."""
    random = Random(SEED)  # noqa: S311 - the same pairs every time
    corpus = {row["_id"]: row for row in _rows(folder / "corpus.jsonl")}
    titles = sorted({row["title"] for row in corpus.values()})
    halves: dict[str, Half] = {title: "test" if place % 2 else "dev" for place, title in enumerate(titles)}
    asked = _rows(folder / "qa.jsonl")
    random.shuffle(asked)
    found: list[Pair] = []
    for one in asked[:QUESTIONS]:
        own = corpus[one["passage_id"]]
        others = [row["text"] for row in corpus.values() if row["title"] == own["title"] and row is not own]
        made = _of_question(one, own["text"], random.choice(others), random)
        found += [Pair(halves[own["title"]], *rest) for rest in made]
    return found


def _of_question(
    asked: dict[str, Any], text: str, other: str, random: Random
) -> Iterator[tuple[str, bool, str, str]]:
    question = asked["question"]
    if asked["is_impossible"]:
        for answer in asked["plausible_answers"][:1]:
            yield "unanswerable question with a plausible answer", False, _stated(question, answer), text
        return
    answer = asked["answers"][0]
    claim = _stated(question, answer)
    yield "question with its answer", True, claim, text
    if answer not in other:
        yield "the same, on another passage of the article", False, claim, other
    if wrong := _another(answer, question, text, random):
        yield "question with another name or number of the passage", False, _stated(question, wrong), text
    holding = next((s for s in _cut(text) if answer in s and 40 < len(s) < 400), None)
    if holding is None:
        return
    restated = _restated(holding)
    yield "sentence restated", True, restated, text
    if swapped := _number_swapped(restated, random):
        yield "sentence with a number swapped", False, swapped, text
    if swapped := _name_swapped(restated, NAME.findall(other), random):
        yield "sentence with a name swapped", False, swapped, text
    if verb := VERB.search(restated):
        yield "sentence denied", False, f"{restated[: verb.end()]} not{restated[verb.end() :]}", text
    yield "sentence of another passage", False, _restated(random.choice(_cut(other))), text


def of_scifact(folder: Path) -> list[Pair]:
    """Claims on abstracts: the judged one, which supports or refutes it, and the nearest of 300 others."""
    random = Random(SEED)  # noqa: S311 - the same pairs every time
    corpus = {row["_id"]: row["text"] for row in _rows(folder / "corpus.jsonl")}
    held = {name: set(words(text)) for name, text in corpus.items()}
    claims = {row["_id"]: row["text"] for row in _rows(folder / "queries.jsonl")}
    found = []
    for line in (folder / "qrels/test.tsv").read_text().splitlines()[1:]:
        asked, judged, _ = line.split("\t")
        claim = claims[asked]
        drawn = [name for name in random.sample(list(corpus), 300) if name != judged]
        near = max(drawn, key=lambda name: len(held[name] & weighted(claim).keys()))
        found.append(Pair("test", "scientific claim, judged abstract", True, claim, corpus[judged]))
        found.append(Pair("test", "scientific claim, another abstract", False, claim, corpus[near]))
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines() if line]


def _cut(text: str) -> Sequence[str]:
    return [text[one.start : one.end] for one in sentences(text)]


def _stated(question: str, answer: str) -> str:
    """The question with the answer in the place of what it asks for."""
    question = question.strip().rstrip("?").strip()
    asked = ASKED.search(question)
    if asked is None:
        return f"{question}: {answer}."
    preposition = PREPOSITION.match(asked[0])
    said = (
        question[: asked.start()] + (preposition[0] if preposition else "") + answer + question[asked.end() :]
    )
    said = re.sub(r"\b(?:did|does|do) ", "", said)
    return f"{said[0].upper()}{said[1:]}."


def _restated(sentence: str) -> str:
    """Asides and adverbs dropped, two clauses turned around, synonyms in place of common words."""
    sentence = ASIDE.sub(lambda found: " " if found[0][0] in " (" else "", sentence).strip()
    clauses = re.split(r", (?=[a-z])", sentence.rstrip("."))
    if len(clauses) == 2:
        sentence = f"{clauses[1]}, {clauses[0]}."
    sentence = re.sub(r"[A-Za-z]+", lambda word: SYNONYMS.get(word[0], word[0]), sentence)
    return sentence[:1].upper() + sentence[1:]


def _another(answer: str, question: str, text: str, random: Random) -> str | None:
    """Something of the answer's kind from the same passage."""
    kind = re.compile(r"\b\d[\d,.]*\b") if re.fullmatch(r"\d[\d,.]*", answer) else NAME
    if kind is NAME and not re.fullmatch(r"(?:[A-Z]\w+ ?)+", answer):
        return None
    found = [
        one for one in kind.findall(text) if one not in answer and answer not in one and one not in question
    ]
    return random.choice(found) if found else None


def _number_swapped(sentence: str, random: Random) -> str | None:
    numbers = list(re.finditer(r"\b\d+\b", sentence))
    if not numbers:
        return None
    one = random.choice(numbers)
    return f"{sentence[: one.start()]}{int(one[0]) + random.choice((1, 2, 3, 7, 30))}{sentence[one.end() :]}"


def _name_swapped(sentence: str, names: Sequence[str], random: Random) -> str | None:
    own = NAME.findall(sentence)
    others = [name for name in names if not set(name.split()) & set(sentence.split())]
    return sentence.replace(random.choice(own), random.choice(others)) if own and others else None
