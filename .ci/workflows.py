"""Local trial of the workflows: the ``run:`` lines of .github/workflows, job by job, each job in a fresh clone.

A job gets an empty home folder, an environment without this shell's variables, the Python that it asks for, and its
time limit, as on GitHub. The actions that it ``uses`` only exist on GitHub; they are listed, not tried. The clone is of
the last commit. The script needs PyYAML and the project's own packages: ``make workflows``, or ``make integrations``
with the name ``workflows`` or ``all-workflows``.
"""

import argparse
import datetime
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from integrations import ENDINGS, find_python, run_limited

from yolact_benchmarks.report.record import write_record

ROOT = Path(__file__).parents[1]
FOLDER = ".github/workflows"
# The only variables kept of the caller's environment: those that configure the access to package indexes.
_KEPT = re.compile(r"PIP_(?!CACHE_DIR$)\w+|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|PYENV_ROOT|(?i:https?|no|all)_proxy")
_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class WorkflowError(Exception):
    """A workflow has something that cannot be tried here."""


@dataclass(frozen=True)
class Job:
    """One job of a workflow, with one combination of its matrix.

    Attributes:
        name: Name for the command line, such as ``tests.suite``; several combinations share it.
        matrix: Values of the combination.
        spec: Content of the job in YAML, parsed.
        defaults: Defaults of the workflow: ``env``, and ``defaults.run``.
    """

    name: str
    matrix: dict[str, str]
    spec: dict[str, Any]
    defaults: dict[str, Any]

    def __str__(self) -> str:
        values = ", ".join(f"{key} {value}" for key, value in self.matrix.items())
        return f"{self.name} ({values})" if values else self.name

    @property
    def python(self) -> str | None:
        """Python version that the job sets up."""
        asked = [
            step["with"]["python-version"] for step in self.spec["steps"] if "setup-python" in step.get("uses", "")
        ]
        return self.fill(str(asked[0])) if asked else None

    def fill(self, text: str) -> str:
        """Replace the expressions in a text by the values of the matrix.

        Raises:
            WorkflowError: There is an expression of another kind.
        """

        def value(found: re.Match[str]) -> str:
            context, _, key = found[1].partition(".")
            if context != "matrix" or key not in self.matrix:
                raise WorkflowError(f"{self}: ${{{{ {found[1]} }}}} cannot be tried here; only matrix can")
            return self.matrix[key]

        return _EXPRESSION.sub(value, text)


@dataclass
class Outcome:
    """Results of a job's steps.

    Attributes:
        job: Job that was tried.
        steps: Results of the run lines: job, step, status, seconds.
        skipped: Number of steps that were not tried, by reason.
    """

    job: Job
    steps: list[dict[str, Any]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def main(arguments: list[str] | None = None) -> int:
    """Try the chosen jobs; return 0 if every run line that was tried ended with status 0, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="jobs to try, such as tests.suite (default: all)")
    parser.add_argument("--python", action="append", help="only combinations with this Python; may be repeated")
    parser.add_argument("--list", action="store_true", help="only list the jobs")
    parser.add_argument("--name", help="name of the record (default: workflows, and the jobs if some are named)")
    parser.add_argument("--results", type=Path, help="folder to keep the record in, such as benchmarks/results")
    options = parser.parse_args(arguments)
    jobs = list(read_jobs(ROOT / FOLDER))
    if unknown := set(options.jobs) - {job.name for job in jobs}:
        known = ", ".join(dict.fromkeys(job.name for job in jobs))
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {known}")
    chosen = [job for job in jobs if job.name in (options.jobs or [job.name])]
    chosen = [job for job in chosen if job.python in (options.python or [job.python])]
    if not chosen:
        parser.error(f"no job has Python {' or '.join(options.python)}")
    if options.list:
        print("\n".join(map(str, chosen)))
        return 0
    say_what_is_cloned()
    outcomes, name = [try_job(job) for job in chosen], options.name or "-".join(["workflows", *options.jobs])
    words = [*options.jobs, *(word for version in options.python or () for word in ("--python", version))]
    return report(outcomes, name, options.results, words)


def read_jobs(folder: Path) -> Iterator[Job]:
    """Read every job of every workflow, once for each combination of its matrix."""
    for path in sorted(folder.glob("*.yml")):
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        defaults = {"env": workflow.get("env", {}), "run": workflow.get("defaults", {}).get("run", {})}
        for key, spec in workflow["jobs"].items():
            for matrix in combinations(spec.get("strategy", {}).get("matrix", {})):
                yield Job(f"{path.stem}.{key}", matrix, spec, defaults)


def combinations(matrix: dict[str, Any]) -> list[dict[str, str]]:
    """Return the product of a matrix's lists, and its additional combinations."""
    lists = {key: values for key, values in matrix.items() if key != "include"}
    made = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())] if lists else []
    made += matrix.get("include", [])
    return [{key: str(value) for key, value in one.items()} for one in made] or [{}]


def say_what_is_cloned() -> None:
    """Print the commit, and whether files differ from it."""
    commit = _git("rev-parse", "--short", "HEAD")
    if changed := _git("status", "--porcelain").splitlines():
        print(f"the clone is of {commit}: {len(changed)} changed files here are not in it", flush=True)


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def try_job(job: Job) -> Outcome:
    """Run the steps of a job in a clone of its own, up to the first that fails."""
    outcome = Outcome(job)
    print(f"=== {job}", flush=True)
    # This process may itself run in a virtual environment.
    python = find_python(job.python) if job.python else f"{sys.base_exec_prefix}/bin/python3"
    if python is None:
        outcome.skipped[f"there is no Python {job.python} here: install it, for example with pyenv"] += 1
        return outcome
    with tempfile.TemporaryDirectory(prefix="workflow-") as name:
        place = Path(name)
        environment = clean_environment(job, place, Path(python))
        clone = ["git", "clone", "--quiet", "--depth", "1", ROOT.as_uri(), str(place / "clone")]
        run_limited(clone, time.monotonic() + 300, environment=environment)
        deadline = time.monotonic() + 60 * job.spec["timeout-minutes"]
        for step in job.spec["steps"]:
            if "uses" in step:
                outcome.skipped[f"needs GitHub: {step['uses'].partition('@')[0]}"] += 1
            elif not try_step(job, step, place, environment, deadline, outcome):
                break
    return outcome


def clean_environment(job: Job, place: Path, python: Path) -> dict[str, str]:
    """Create the folders of a job, and return the variables that GitHub would set."""
    for name in ("bin", "home", "temp"):
        (place / name).mkdir()
    for name in ("python", "python3"):
        # Python would take a link for a virtual environment in this folder.
        (place / "bin" / name).write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
        (place / "bin" / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    # find_python looks there, in a job that tests other Pythons than its own.
    environment.setdefault("PYENV_ROOT", str(Path.home() / ".pyenv"))
    environment |= {
        "CI": "true",
        "HOME": str(place / "home"),
        "LANG": "C.UTF-8",
        "PATH": f"{place / 'bin'}:{_SYSTEM_PATH}",
        "RUNNER_TEMP": str(place / "temp"),
        "GITHUB_WORKSPACE": str(place / "clone"),
    }
    given = {**job.defaults["env"], **job.spec.get("env", {})}
    return environment | {name: job.fill(str(value)) for name, value in given.items()}


def try_step(
    job: Job, step: dict[str, Any], place: Path, environment: dict[str, str], deadline: float, outcome: Outcome
) -> bool:
    """Run one step as GitHub's bash does, record its result, and return whether it passed.

    Raises:
        WorkflowError: The step has something that is not supported here.
    """
    if unknown := set(step) - {"name", "run", "env", "working-directory", "id"}:
        raise WorkflowError(f"{job}: a run step with {', '.join(sorted(unknown))} cannot be tried here")
    if job.defaults["run"].get("shell") != "bash":
        raise WorkflowError(f"{job}: its workflow does not set defaults.run.shell to bash")
    environment = environment | {name: job.fill(str(value)) for name, value in step.get("env", {}).items()}
    line = step["run"]
    if _EXPRESSION.search(line):
        raise WorkflowError(f"{job}: expressions belong into env, not into a run line: {line.strip()}")
    print(f"--- {step.get('name', line)}", flush=True)
    folder = place / "clone" / step.get("working-directory", ".")
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", line]
    started = time.monotonic()
    try:
        status: int | str = run_limited(command, deadline, check=False, folder=folder, environment=environment)
    except subprocess.TimeoutExpired:
        status = f"ended after {job.spec['timeout-minutes']} minutes"
    seconds = round(time.monotonic() - started)
    outcome.steps.append({"job": str(job), "run": line.strip(), "status": status, "seconds": seconds})
    return status == 0


def report(outcomes: list[Outcome], name: str, results: Path | None, words: list[str]) -> int:
    """Print a line for each job, write the record, and return the exit status."""
    steps = [step for outcome in outcomes for step in outcome.steps]
    skips = sum((outcome.skipped for outcome in outcomes), Counter[str]())
    failed = [step for step in steps if step["status"] != 0]
    for outcome in outcomes:
        bad = [step for step in outcome.steps if step["status"] != 0]
        said = f"failed: {bad[0]['run'].splitlines()[0]} (status {bad[0]['status']})" if bad else "passed"
        said = said if outcome.steps else "not tried: " + "; ".join(outcome.skipped)
        print(f"{outcome.job}: {said}, {len(outcome.steps)} run lines")
    if results:
        found = {
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "passed": len(steps) - len(failed),
            "failed": len(failed),
            "skipped": sum(skips.values()),
            "skips": dict(sorted(skips.items())),
            "steps": steps,
        }
        print(write_record(results, name, found, " ".join(["python .ci/workflows.py", *words])))
    return int(bool(failed) or any(not outcome.steps for outcome in outcomes))


if __name__ == "__main__":
    # A signal that ends this process must also end its children and remove the clone.
    for ending in ENDINGS:
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    try:
        sys.exit(main())
    except WorkflowError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
