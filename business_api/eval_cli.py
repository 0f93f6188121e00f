"""The command `business-api eval`. Evaluations and their libraries stay out of the image that serves."""

import importlib

import typer

from business_api.terminal import fail

HOW = "run it in a checkout, with the environment of the tests: make eval DATA=tests/samples/evaluation"
FORWARDED = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Context settings of a command whose arguments, --help among them, another one reads."""


def evaluate(context: typer.Context) -> None:
    """Measure how well documents are found and answers withheld; --help tells which sets it takes.

    Example: business-api eval tests/samples/evaluation
    """
    try:
        commands = importlib.import_module("evals.commands")
    except ModuleNotFoundError as exc:
        there = "evals" in str(exc.name)
        missing = "the evaluations are not installed here" if there else f"the library {exc.name} is missing"
        fail(f"{missing}: {HOW}", code=2)
    commands.main(context.args, prog_name="business-api eval")
