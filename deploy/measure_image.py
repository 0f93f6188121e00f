"""How large the image of `business-api serve` is, and whether what is in it answers: `make image-size`.

Without a container engine: lays out the same files as deploy/business_api.Dockerfile does, adds them up, then
serves from them and asks a question. Megabytes are 10^6 bytes, as engines print them.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = ROOT / "deploy/business_api.Dockerfile"
UV = ROOT / ".venv/uv/bin/uv"
LIMIT_MB = 500
PYTHON_IMAGE_MB = 132
"""python:3.11-slim-bookworm unpacked, as far as it can be known without pulling it: a minimal bookworm, the
libraries that Python links and a stripped Python 3.11 came to this. `docker images` shows the real one."""
QUESTION = "Which port does the LLM server listen on?"


def locked(tier: str) -> dict[str, str]:
    """Versions by package name, of requirements/TIER.txt on Linux and Python 3.11."""
    text = (ROOT / f"requirements/{tier}.txt").read_text()
    pins = re.findall(r"^([a-z0-9-]+)==(\S+)(?: ; ([^\\\n]+))?", text, re.MULTILINE)
    elsewhere = re.compile(r"sys_platform == '(win32|emscripten)'|python_full_version >= '3\.1[2-9]'")
    return {name: version for name, version, marker in pins if not elsewhere.search(marker)}


def left_out() -> set[str]:
    """Packages that the Dockerfile takes away again."""
    return set(_found(r"uv pip uninstall --python \S+ \\\n\s+([^\\\n]+)").split())


def _found(pattern: str) -> str:
    match = re.search(pattern, DOCKERFILE.read_text())
    if match is None:
        raise SystemExit(f"{DOCKERFILE.name} has changed: nothing in it matches {pattern}")
    return match[1]


def install(environment: Path) -> None:
    """What the stage `lean` installs."""
    python = environment / "bin/python"
    for command in (
        ["venv", "-q", "--python", "3.11", str(environment)],
        ["pip", "install", "-q", "--require-hashes", "--python", str(python), "-r", "requirements/serve.txt"],
        ["pip", "uninstall", "-q", "--python", str(python), *sorted(left_out())],
    ):
        subprocess.run([str(UV), *command], cwd=ROOT, check=True)
    for folder in [path for path in environment.rglob("tests") if path.is_dir()]:
        shutil.rmtree(folder, ignore_errors=True)


def lay_out(app: Path) -> None:
    """What /app holds: code, prompts, assistants, the embedding model."""
    app.mkdir()
    for name in ("business_api", "prompts"):
        shutil.copytree(ROOT / name, app / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "assistants.toml", app)
    torch_only = shutil.ignore_patterns("sentence-transformers", ".prepared.json")
    model = "models/all-minilm-l6-v2"
    shutil.copytree(ROOT / "var" / model, app / model, ignore=torch_only)


def size_mb(folder: Path) -> float:
    """Bytes of all files, each counted once, in 10^6."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) / 1e6


def compile_imported(python: Path, app: Path, cache: Path) -> None:
    """The byte code that the Dockerfile keeps, Python's own included, in a folder of its own."""
    variables = {"PYTHONPATH": str(app), "PYTHONPYCACHEPREFIX": str(cache), "ORT_DISABLE_TELEMETRY": "1"}
    subprocess.run([str(python), "-c", _found(r'RUN python -c "([^"]+)"')], env=variables, check=True)


def ask(python: Path, app: Path, folder: Path) -> str:
    """Ingest one page with everything installed, serve it from the laid-out files, ask; the answer."""
    from tests import programs
    from tests.fakes import FakeLlm, serving

    page = folder / "docs/ports.md"
    page.parent.mkdir()
    page.write_text("# Ports\n\nThe LLM server listens on port 8001 by default.\n")
    ingested = programs.run("ingest", str(page.parent), var=folder / "var")
    if ingested.returncode:
        raise SystemExit(f"ingest failed: {ingested.stderr}")
    program = python.with_name("business-api")
    program.write_text(f"#!{python}\nfrom business_api.cli import main\nmain()\n")
    program.chmod(0o755)
    programs.PROGRAM = str(program)
    llm = FakeLlm("The LLM server listens on port 8001 by default.")
    own = {
        "PYTHONPATH": str(app),
        "BUSINESS_API_EMBEDDING__FOLDER": str(app / "models/all-minilm-l6-v2"),
        "BUSINESS_API_ASSISTANTS": str(app / "assistants.toml"),
    }
    with serving(llm) as url, programs.serving_program(folder / "var", f"{url}/v1", **own) as service:
        _, answered, _ = service.chat(QUESTION)
    if not answered.get("tandem", {}).get("citations"):
        raise SystemExit(f"no cited answer: {answered}")
    return str(answered["answer"])


def main() -> int:
    """Print the table and the answer; 1 when the image would be over its limit."""
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory(prefix="tandem-image-") as name:
        folder = Path(name)
        environment, app, cache = folder / "tandem", folder / "app", folder / "byte-code"
        install(environment)
        lay_out(app)
        parts = {"Python image": float(PYTHON_IMAGE_MB), "libraries": size_mb(environment), "model": 0.0}
        parts["model"] = size_mb(app / "models")
        parts["code, prompts"] = size_mb(app) - parts["model"]
        compile_imported(environment / "bin/python", app, cache)
        parts["byte code"] = size_mb(cache)
        for part, megabytes in parts.items():
            print(f"{part:14} {megabytes:6.1f} MB")
        total = sum(parts.values())
        print(f"{'image':14} {total:6.1f} MB (limit {LIMIT_MB})")
        print(f"asked the image's files: {ask(environment / 'bin/python', app, folder)}")
    return 1 if total > LIMIT_MB else 0


if __name__ == "__main__":
    sys.exit(main())
