"""The workflows cannot run here: they fit GitHub's schema and ask for no more than they need; their lines are tried."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from support.ci_scripts import SCRIPTS, load_script
from support.commands import PROJECT

pytestmark = pytest.mark.checks
ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "custom.github-workflows-require-timeout": WORKFLOWS,
    "vendor.github-issue-forms": FORMS,
    "vendor.github-issue-config": [ROOT / ".github/ISSUE_TEMPLATE/config.yml"],
    "vendor.dependabot": [ROOT / ".github/dependabot.yml"],
    "vendor.citation-file-format": [ROOT / "CITATION.cff"],
}


def loaded(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


def steps() -> list[dict[str, Any]]:
    return [step for path in WORKFLOWS for job in loaded(path)["jobs"].values() for step in job["steps"]]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return load_script("workflows")


def validate(schema: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_files_fit_their_schemas(schema: str, tmp_path: Path) -> None:
    done = validate(schema, *SCHEMAS[schema])
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / "broken.yml"
    broken.write_text("jobs: {a: {runs-on: x, steps: [{runs: y}]}}\nversion: 7\nbody: []\nblank_issues_enabled: 3\n")
    assert validate(schema, broken).returncode == 1


def test_nothing_in_them_is_known_to_be_unsafe(tmp_path: Path) -> None:
    """With its own rules: injection by expressions, credentials that stay, unpinned actions, excessive permissions."""
    command = [str(Path(sys.executable).with_name("zizmor")), "--offline", "--no-progress", "--persona=pedantic"]
    done = subprocess.run([*command, str(ROOT / ".github")], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "bad.yml").write_text(
        "on: pull_request_target\njobs: {a: {runs-on: x, steps: [{run: 'echo ${{ github.head_ref }}'}]}}\n"
    )
    done = subprocess.run(
        [*command, str(tmp_path / "bad.yml")], capture_output=True, text=True, timeout=60, check=False
    )
    assert "template-injection" in done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_and_is_ended_by_the_next(path: Path) -> None:
    workflow = loaded(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "permissions" not in str(workflow["jobs"])
    assert "secrets." not in path.read_text(encoding="utf-8")
    assert workflow["concurrency"]["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"
    assert workflow["defaults"] == {"run": {"shell": "bash"}}
    # YAML reads "on" as true.
    assert {"push", "pull_request", "workflow_dispatch"} <= set(workflow[True])
    assert all(job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())


def test_actions_are_pinned_to_commits_with_their_full_tags_and_one_pin_each() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    used = re.findall(r"uses: (.*)", text)
    pins = {re.fullmatch(r"(actions/[\w-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line) for line in used}
    assert len(used) > 10
    assert None not in pins
    assert len({pin[1] for pin in pins if pin}) == len({pin[0] for pin in pins if pin})
    for step in steps():
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"] == {"persist-credentials": False}
        if step.get("uses", "").startswith("actions/setup-python@"):
            assert step["with"]["cache"] == "pip"
    (updates,) = loaded(ROOT / ".github/dependabot.yml")["updates"]
    assert updates["package-ecosystem"] == "github-actions"


def test_every_python_and_both_numpys_are_tested(script: ModuleType) -> None:
    declared = {found[1] for name in PROJECT["project"]["classifiers"] if (found := re.search(r" :: (3\.\d+)$", name))}
    jobs = list(script.read_jobs(ROOT / ".github/workflows"))
    assert {job.python for job in jobs if job.name == "tests.robot"} == declared
    assert {job.python for job in jobs if job.name == "packages.wheel"} == declared
    known = {one.name: one for one in load_script("integrations").INTEGRATIONS}
    robots = [job.matrix for job in jobs if job.name == "tests.robot"]
    assert {known[robot["integration"]].python for robot in robots} == declared
    assert all(known[robot["integration"]].python == robot["python"] for robot in robots)
    assert {pin for robot in robots for pin in known[robot["integration"]].pins} == {"numpy==1.26.*", "numpy==2.*"}


def test_run_lines_name_targets_and_integrations_that_exist() -> None:
    lines = "\n".join(step.get("run", "") for step in steps())
    targets = set(re.findall(r"(?m)^make (?:-C \S+ )?([a-z]+)", lines))
    assert {"test", "check", "docs", "demo"} <= targets
    # Without a rule, make takes a folder of that name for what was asked.
    rules = set(re.findall(r"(?m)^([a-z][\w -]*?):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8")))
    assert targets <= {target for rule in rules for target in rule.split()}
    known = {one.name for one in load_script("integrations").INTEGRATIONS}
    (named,) = re.findall(r'INTEGRATIONS="([^"]*)"', lines)
    assert set(named.split()) <= known


def test_hooks_are_programs_of_the_development_environment() -> None:
    config = loaded(ROOT / ".pre-commit-config.yaml")
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert {repository["repo"] for repository in config["repos"]} == {"local"}
    programs = {hook["entry"].split()[0] for hook in hooks}
    assert all(hook["language"] == "system" for hook in hooks)
    missing = [program for program in programs if not Path(sys.executable).with_name(Path(program).name).exists()]
    assert missing == []
    assert {program.rpartition("/")[0] for program in programs} == {".venv/bin"}


JOB = """
defaults: {run: {shell: bash}}
env: {FROM: workflow}
jobs:
  one:
    timeout-minutes: 1
    strategy: {matrix: {include: [{word: good}, {word: bad}]}}
    env: {WORD: "${{ matrix.word }}"}
    steps:
      - uses: actions/checkout@v1
      - run: |
          test "$FROM $WORD $CI" = "workflow $WORD true"
          test -z "${SECRET_OF_MINE:-}"
          test -f tracked -a ! -e new
          test "$(ls -A "$HOME")" = ""
          python -c 'import sys; assert sys.prefix == sys.base_prefix'
      - run: test "$WORD" = good | cat
      - run: touch "$RUNNER_TEMP/never"
"""


@pytest.fixture
def tiny(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, in a repository with one workflow and one change that is not committed."""
    root = tmp_path / "root"
    (root / script.FOLDER).mkdir(parents=True)
    (root / script.FOLDER / "tiny.yml").write_text(JOB)
    (root / "tracked").touch()
    author = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    (root / "new").touch()
    monkeypatch.setattr(script, "ROOT", root)
    monkeypatch.setenv("SECRET_OF_MINE", "1")
    return script


def test_run_lines_are_tried_in_a_clean_clone_up_to_the_first_that_fails(
    tiny: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tiny.main(["tiny.one", "--results", str(tmp_path)]) == 1
    said = capfd.readouterr().out
    assert "1 changed files here are not in it" in said
    assert "tiny.one (word good): passed, 3 run lines" in said
    assert 'tiny.one (word bad): failed: test "$WORD" = good | cat (status 1), 2 run lines' in said
    (record,) = (json.loads(path.read_text())["results"] for path in tmp_path.rglob("workflows-tiny.one.json"))
    assert (record["passed"], record["failed"]) == (4, 1)
    assert record["skips"] == {"needs GitHub: actions/checkout": 2}
    assert [step["status"] for step in record["steps"]] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("run: touch", "run: echo ${{ github.sha }}; touch", "expressions belong into env"),
        ('"${{ matrix.word }}"', '"${{ github.sha }}"', "cannot be tried here; only matrix can"),
        ("- run: touch", "- if: always()\n        run: touch", "a run step with if cannot be tried"),
        ("shell: bash", "shell: sh", "does not set defaults.run.shell"),
    ],
)
def test_what_cannot_be_tried_is_an_error(tiny: ModuleType, old: str, new: str, told: str) -> None:
    path = tiny.ROOT / tiny.FOLDER / "tiny.yml"
    assert old in JOB
    path.write_text(JOB.replace(old, new))
    with pytest.raises(tiny.WorkflowError, match=re.escape(told)):
        tiny.main([])


def test_a_python_that_is_not_here_is_no_success(tiny: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    setup = 'uses: actions/setup-python@v1\n        with: {python-version: "3.99"}'
    (tiny.ROOT / tiny.FOLDER / "tiny.yml").write_text(JOB.replace("uses: actions/checkout@v1", setup))
    assert tiny.main([]) == 1
    assert "not tried: there is no Python 3.99 here" in capfd.readouterr().out


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_whatever_ends_the_script_ends_the_job_and_takes_its_clone_away(
    tiny: ModuleType, tmp_path: Path, ending: signal.Signals
) -> None:
    started, temp = tmp_path / "pid", tmp_path / "temp"
    temp.mkdir()
    shutil.copytree(SCRIPTS, tiny.ROOT / ".ci")
    (tiny.ROOT / tiny.FOLDER / "tiny.yml").write_text(
        "defaults: {run: {shell: bash}}\njobs: {one: {timeout-minutes: 1, steps: [{run: "
        f"'echo $$ > {started}.new; mv {started}.new {started}; sleep 60'"
        "}]}}\n"
    )
    command = [sys.executable, str(tiny.ROOT / ".ci" / "workflows.py")]
    with subprocess.Popen(command, env=os.environ | {"TMPDIR": str(temp)}, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not started.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(ending)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + ending
    assert b"Traceback" not in said
    assert list(temp.iterdir()) == []
    assert not Path(f"/proc/{started.read_text().strip()}").exists()


def test_an_unknown_job_lists_the_known(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        script.main(["tests.big"])
    assert "unknown: tests.big; there are check.check, " in capsys.readouterr().err
    assert script.main(["--list", "packages.wheel", "--python", "3.13"]) == 0
    assert capsys.readouterr().out == "packages.wheel (python 3.13)\n"
