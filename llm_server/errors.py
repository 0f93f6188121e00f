"""Why a model cannot be served, in one line that says what to do next.

LlmServerError
├── WrongCall          exit 2: the command or a setting is wrong
│   ├── UnknownModel
│   └── InvalidSetting
└── CannotServe        exit 1: the machine or the registry is not in the state that the command needs
    ├── InvalidRegistry
    ├── NotApproved
    ├── WrongFiles
    ├── PortTaken
    └── EngineMissing
"""

from typing import ClassVar


class LlmServerError(Exception):
    """Anything that a user of `llm-server` is told; `code` is the exit status."""

    code: ClassVar[int] = 1


class WrongCall(LlmServerError):
    """The command or a setting must be changed."""

    code = 2


class UnknownModel(WrongCall):
    """The registry has no model of this name for this engine."""


class InvalidSetting(WrongCall):
    """An option or a variable `LLM_SERVER_*` has a value that cannot be used."""


class CannotServe(LlmServerError):
    """The command is right, but cannot be done now."""


class InvalidRegistry(CannotServe):
    """The registry cannot be read, or an entry of it is wrong."""


class NotApproved(CannotServe):
    """Nobody has approved this model."""


class WrongFiles(CannotServe):
    """Files of a model are missing, or are not the ones that were approved."""


class PortTaken(CannotServe):
    """Another process listens where we should."""


class EngineMissing(CannotServe):
    """The engine is not installed, or does not start."""
