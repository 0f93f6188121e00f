"""The command of the evaluations: `python -m evals`, `make eval`, `business-api eval`."""

import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from business_api.abstaining import Calibration, shipped_calibration
from business_api.assistants import Assistant
from business_api.settings import Settings
from business_api.terminal import fail, read_settings, run
from evals.ablation import ablate_documents, ablate_spans
from evals.calibrate import write as write_calibration
from evals.comparing import compare_files
from evals.documents import evaluate_documents
from evals.parts import Parts, assistant_of, opened
from evals.plots import draw, draw_ablation
from evals.qa import QaReport, calibrated, evaluate_qa, read_qa
from evals.report import Report, write
from evals.risk_plot import draw_risk
from evals.sets import BadSet, Kind, kinds_of, read_ranking, read_spans
from evals.spans import evaluate_spans

RESULTS = Path(__file__).resolve().parent / "results"
TEACHING = """Measure how well documents are found, and whether it is told what they do not say.

What a folder holds decides what is evaluated:

  corpus.jsonl, queries.jsonl, qrels/*.tsv: are documents ranked right?

  questions.jsonl, corpora/*.md: are the spans found that answer?

  qa.jsonl: is it known which questions the documents answer?

Sets are cut, embedded and indexed by the parts that serve. Vectors and indexes
stay in var/eval, so only the first run is slow. Results as JSON, the scores of
each question and a plot go to evals/results.

Examples:

  business-api eval tests/samples/evaluation

  business-api eval DIR --split train --assistant-set fusion=rrf

  business-api eval DIR --ablate

  business-api eval --compare A.json B.json

  business-api eval calibrate --help
"""


FITTING = """Fit the judge that tells whether passages can answer a question.

Needs questions with and without an answer about at least four subjects: the
documents' titles. Example:

  business-api eval calibrate DIR --out calibration.json
"""

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
fitting = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command(help=TEACHING)
def evaluate(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="DATA...", help="Folders of sets.")] = None,
    *,
    only: Annotated[list[Kind] | None, typer.Option(help="Only this kind; may be repeated.")] = None,
    split: Annotated[str, typer.Option(help="Which qrels: tune on train, report on test.")] = "test",
    assistant: Annotated[
        str | None, typer.Option(help="Which one of assistants.toml; default: the first.")
    ] = None,
    assistant_set: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=VALUE", help="Change a field of it; may be repeated.")
    ] = None,
    ablate: Annotated[bool, typer.Option("--ablate", help="Switch each technique on and off.")] = False,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Compare two result files; FILE:SYSTEM names one of its systems."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where results are written.")] = RESULTS,
) -> None:
    """See TEACHING."""
    if not folders and not compare:
        fail("no folder to evaluate; see --help", code=2)
    if compare:
        run(_compared(*compare))
        return
    settings = read_settings()
    plan = Plan(tuple(folders or ()), frozenset(only or ()), split, ablate, out)
    run(_evaluated(plan, settings, assistant, assistant_set or []))


class Plan(msgspec.Struct, frozen=True):
    """What is to be evaluated."""

    folders: tuple[Path, ...]
    only: frozenset[Kind]
    split: str
    ablate: bool
    out: Path


async def _compared(one: str, other: str) -> None:
    Console(width=None if sys.stdout.isatty() else 140).print(compare_files(one, other))


async def _evaluated(plan: Plan, settings: Settings, name: str | None, changes: list[str]) -> None:
    chosen = assistant_of(settings, name, changes)
    # every folder before any work: a typing mistake must not cost the first set's ten minutes
    kinds = {
        folder: [one for one in kinds_of(folder) if one in plan.only or not plan.only]
        for folder in plan.folders
    }
    async with opened(settings, chosen) as parts:
        for folder, found in kinds.items():
            for kind in found:
                async for report in _reports(plan, folder, kind, parts):
                    _keep(report, plan, chosen)


async def _reports(plan: Plan, folder: Path, kind: Kind, parts: Parts) -> AsyncIterator[Report]:
    index = parts.kept / "index"
    if kind is Kind.DOCUMENTS:
        ranking = read_ranking(folder, plan.split)
        evaluated = ablate_documents if plan.ablate else evaluate_documents
        yield await evaluated(ranking, parts, index / ranking.name / "documents")
    if kind is Kind.SPANS:
        spans = read_spans(folder)
        if plan.ablate:
            yield await ablate_spans(spans, parts, index / spans.name / "assistant")
        else:
            yield await evaluate_spans(spans, parts, index / spans.name)
    if kind is Kind.QA and not plan.ablate:
        qa = read_qa(folder)
        calibration = calibration_of(parts.settings, parts.embedder.name)
        yield await evaluate_qa(qa, parts, calibration, index / qa.name)


def _keep(report: Report, plan: Plan, assistant: Assistant) -> None:
    path = write(report, plan.out, assistant=assistant.version, split=plan.split)
    if isinstance(report, QaReport):
        draw_risk(report, path)
    elif report.kind == "ablation":
        draw_ablation(report, path)
    else:
        draw(report, path)


def calibration_of(settings: Settings, embedder: str) -> Calibration | None:
    """The one that the settings name, or the one that came with the program."""
    named = settings.calibration
    return Calibration.load(named, embedder) if named else shipped_calibration(embedder)


@fitting.command(help=FITTING)
def calibrate(
    folder: Annotated[Path, typer.Argument(metavar="DATA", help="A folder with corpus.jsonl and qa.jsonl.")],
    out: Annotated[Path, typer.Option(help="The calibration file to write.")],
    assistant: Annotated[
        str | None, typer.Option(help="Whose retrieval settings; default: the first of assistants.toml.")
    ] = None,
) -> None:
    """See FITTING."""
    run(_calibrated(folder, read_settings(), assistant, out))


async def _calibrated(folder: Path, settings: Settings, name: str | None, out: Path) -> None:
    if Kind.QA not in kinds_of(folder):
        raise BadSet(f"{folder}: no qa.jsonl to calibrate with")
    async with opened(settings, assistant_of(settings, name, [])) as parts:
        qa = read_qa(folder)
        write_calibration(await calibrated(qa, parts, parts.kept / "index" / qa.name), out)
    Console().print(f"written to {out}; use it with BUSINESS_API_CALIBRATION={out}")


def main(arguments: Sequence[str] | None = None, *, prog_name: str = "python -m evals") -> None:
    """Run the command, or `calibrate` when that is the first argument; None: those of this process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["calibrate"]:
        fitting(given[1:], prog_name=f"{prog_name} calibrate")
    cli(given, prog_name=prog_name)
