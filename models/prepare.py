"""Makes the model files under `var/models`, once. Run `python -m models.prepare --help`.

Every file that is read or made is held against a digest in `sources.toml`; a file is in place whole or not
at all. The stamp of a folder remembers size and time of its files, so that a second run only looks at those.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from models.sources import SOURCES, PrepareError, Target, check, targets

ROOT = Path(__file__).resolve().parent.parent
STAMP = ".prepared.json"
INSTALL_WEIGHTS = "install the weights again with `make models`"
NOT_REPRODUCED = "the files made here differ from the released ones: were other package versions installed?"


def main(
    for_vllm: Annotated[
        bool, typer.Option("--for-vllm", help="Also make the Hugging Face folder that vLLM loads.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file again, whole.")] = False,
    var: Annotated[Path, typer.Option(help="Folder with `weights`; gets `models`.")] = ROOT / "var",
    sources: Annotated[Path, typer.Option(help="What to make from what.")] = SOURCES,
) -> None:
    """Make the model files from the installed weights, unless they are there.

    Example: python -m models.prepare --for-vllm
    """
    wanted = [target for target in targets(sources) if for_vllm or not target.on_request]
    try:
        made = [target for target in wanted if _brought(target, var, verify)]
    except PrepareError as exc:
        raise SystemExit(f"models.prepare: {exc}") from exc
    for target in made:
        print(f"made {var / 'models' / target.folder} ({target.licence})")


def _brought(target: Target, var: Path, verify: bool) -> bool:
    """Whether the target had to be made. Raises PrepareError, as for a file that was altered."""
    folder = var / "models" / target.folder
    if not _is_stamped(folder, target.outputs):
        _make(target, var / "weights", folder)
        return True
    if verify:
        check(folder, target.outputs, f"delete {folder} and run this again")
    return False


def _make(target: Target, weights: Path, folder: Path) -> None:
    """Make every output beside its place, check it, then move it there. Raises PrepareError."""
    from models.recipes import RECIPES  # their libraries load slowly, and most runs have nothing to make

    check(weights, target.inputs, INSTALL_WEIGHTS)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as name, _progress() as progress:
        task = progress.add_task(f"preparing {target.folder}", total=1.0)
        beside = Path(name)
        inputs = [weights / path for path in target.inputs]
        RECIPES[target.recipe](beside, inputs, lambda share: progress.advance(task, share))
        check(beside, target.outputs, NOT_REPRODUCED)
        for path in target.outputs:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (beside / path).replace(folder / path)
        stamp = beside / STAMP
        stamp.write_text(json.dumps(_seen(folder, target.outputs)))
        stamp.replace(folder / STAMP)


def _seen(folder: Path, outputs: Mapping[str, str]) -> dict[str, list[str | int]]:
    """Size in bytes, time of change in ns and pinned digest by file."""
    found = {path: (folder / path).stat() for path in outputs}
    return {path: [it.st_size, it.st_mtime_ns, outputs[path]] for path, it in found.items()}


def _is_stamped(folder: Path, outputs: Mapping[str, str]) -> bool:
    try:
        stamped: object = json.loads((folder / STAMP).read_text())
        return stamped == _seen(folder, outputs)
    except (OSError, ValueError):
        return False


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


if __name__ == "__main__":
    typer.run(main)
