"""`python -m evals`."""

from evals.commands import main

main()
