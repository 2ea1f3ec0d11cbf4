"""The frame of ``make integrations``: what fails, what is passed over, and what is told of either."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support.ci_scripts import SCRIPTS, load_script
from yolact_benchmarks.report.record import device_name

SKIPS = ("there is no NVIDIA driver here",)


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with one integration, whose environment is this one and whose tests are those that a test writes."""
    module = load_script("integrations")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(module, "OUT", tmp_path / "out")
    monkeypatch.setattr(
        module, "INTEGRATIONS", (module.Integration("tiny", "3", (), ("-p", "no:randomly", str(tmp_path)), SKIPS),)
    )
    monkeypatch.setattr(module, "make_environment", lambda integration, deadline: Path(sys.executable))
    return module


def run(script: ModuleType, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit status and the line about the integration."""
    status = script.main(list(words))
    return status, capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("counts", "skips", "status", "told"),
    [
        ((2, 0), {}, 0, "passed: 2 passed, 0 skipped, 0 failed in "),
        ((2, 1), {}, 1, "failed: 2 passed, 0 skipped, 1 failed in "),
        ((0, 0), {}, 1, "failed: 0 passed, 0 skipped, 0 failed in "),
        ((1, 0), {"there is no NVIDIA driver here (x)": 4}, 0, "passed: 1 passed, 4 skipped, 0 failed in "),
        ((1, 0), {"no wish": 1, "there is no NVIDIA driver here": 2}, 1, "skipped although all is installed: no wish"),
    ],
)
def test_an_outcome_is_one_line_and_a_status(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    counts: tuple[int, int],
    skips: dict[str, int],
    status: int,
    told: str,
) -> None:
    record = {"passed": counts[0], "failed": counts[1], "skipped": sum(skips.values()), "skips": skips}
    monkeypatch.setattr(script, "run_tests", lambda *_: (0, record))
    found, line = run(script, capsys)
    assert found == status
    assert line.startswith("tiny: ")
    assert told in line


def test_tests_that_end_their_process_are_a_failure(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_tiny.py").write_text("import os\nos._exit(3)")
    status, line = run(script, capsys)
    assert status == 1
    assert line.startswith("tiny: failed: exit status 3 of ")


def test_a_suite_that_was_stopped_is_a_failure_whatever_has_passed(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_tiny.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): pytest.exit('stop', returncode=2)\ndef test_c(): assert 0"
    )
    status, line = run(script, capsys)
    assert status == 1
    assert line.startswith("tiny: failed: ")
    assert line.endswith(", but the tests did not come to their end: exit status 2")


def test_what_cannot_be_installed_is_told_and_is_a_failure_in_ci_or_where_it_was_named(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise script.NotInstallableError("there is no Python 3 here: install it")

    monkeypatch.setattr(script, "make_environment", fail)
    line = "tiny: not installed: there is no Python 3 here: install it"
    assert run(script, capsys) == (0, line)
    assert run(script, capsys, "tiny") == (1, line)
    # Nobody reads what a green run has passed over.
    monkeypatch.setenv("CI", "true")
    assert run(script, capsys) == (1, line)


def test_a_python_that_a_script_looks_for_is_missing_like_its_own() -> None:
    script = load_script("integrations")
    tiny = script.Integration("tiny", f"3.{sys.version_info.minor}", (), (), (), other_pythons=("3.99",))
    with pytest.raises(script.NotInstallableError, match=r"there is no Python 3\.99 here"):
        script.make_environment(tiny, time.monotonic() + 60)


def test_a_script_in_place_of_pytest_writes_the_record(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"results": {"passed": 2, "skipped": 1, "failed": 0, "skips": {"no wish": 1}}}
    program = tmp_path / "program.py"
    program.write_text(
        "import pathlib, sys\n_, word, name, name_of, results, folder = sys.argv\n"
        "assert (word, name, name_of, results) == ('all', '--name', 'suite-tiny', '--results')\n"
        f"pathlib.Path(folder, 'suite-tiny.json').write_text({json.dumps(record)!r})\n"
    )
    (tmp_path / "records").mkdir()
    (tiny,) = script.INTEGRATIONS
    tiny = dataclasses.replace(tiny, script=(str(program), "all"))
    monkeypatch.setattr(script, "INTEGRATIONS", (tiny,))
    status, line = run(script, capsys, "--results", str(tmp_path / "records"))
    assert (status, line.split(" in ")[0]) == (1, "tiny: failed: 2 passed, 1 skipped, 0 failed")
    assert line.endswith("skipped although all is installed: no wish")
    monkeypatch.setattr(script, "INTEGRATIONS", (dataclasses.replace(tiny, allowed_skips=("no wish",)),))
    assert run(script, capsys, "--results", str(tmp_path / "records"))[0] == 0


def test_the_time_is_for_all_together(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(script, capsys, "--limit-s", "0") == (1, "tiny: failed: the time was over; --limit-s gives more")


def test_whatever_a_command_has_started_ends_with_its_time(script: ModuleType, tmp_path: Path) -> None:
    started = tmp_path / "pid"
    with pytest.raises(subprocess.TimeoutExpired):
        script.run_limited(["sh", "-c", f"sleep 60 & echo $! > {started}; wait"], time.monotonic() + 2)
    deadline = time.monotonic() + 20
    while _runs(int(started.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(process: int) -> bool:
    """Not ended; one that nobody has asked yet how it ended is a "Z"."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_record_is_kept_where_it_was_asked_for(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder that is named from here; others may write there meanwhile."""
    other = tmp_path / "records" / device_name() / "suite-other.json"
    other.parent.mkdir(parents=True)
    (tmp_path / "test_tiny.py").write_text(
        f"def test(): open({str(other)!r}, 'w').write('{{}}')\ndef test_b(): assert 0"
    )
    monkeypatch.chdir(tmp_path)
    status, line = run(script, capsys, "--results", "records")
    assert status == 1
    assert line.startswith("tiny: failed: 1 passed, 0 skipped, 1 failed")
    assert other.read_text() == "{}"
    assert json.loads(other.with_name("suite-tiny.json").read_text())["results"]["failed"] == 1


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_the_script_ends_what_it_has_started(tmp_path: Path, ending: signal.Signals) -> None:
    python, started = tmp_path / "bin" / "python3.10", tmp_path / "pid"
    python.parent.mkdir()
    # It starts, and makes an environment for ever.
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && exit 0\necho $$ > {started}.new; mv {started}.new {started}; sleep 60\n'
    )
    python.chmod(0o755)
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, str(SCRIPTS / "integrations.py"), "python310-numpy126"]
    with subprocess.Popen(command, env=os.environ | {"PATH": path}, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 20
        while not started.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(ending)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + ending
    assert b"Traceback" not in said
    assert not _runs(int(started.read_text()))


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "soon"])
def test_a_limit_is_a_number_of_seconds(script: ModuleType, capsys: pytest.CaptureFixture[str], seconds: str) -> None:
    with pytest.raises(SystemExit):
        script.main([f"--limit-s={seconds}"])
    assert "--limit-s" in capsys.readouterr().err


def test_an_unknown_name_lists_the_known(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        script.main(["big"])
    assert ended.value.code == 2
    assert "unknown: big; there are tiny" in capsys.readouterr().err


@pytest.mark.parametrize("user", [0, 1000])
def test_debian_packages_are_installed_by_root_and_named_to_others(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], user: int
) -> None:
    (tmp_path / "test_tiny.py").write_text("def test(): pass")
    tools = tmp_path / "tools"
    tools.mkdir()
    # One package is there; apt-get writes down what it was told.
    scripts = {"dpkg-query": '[ "$3" = here ] && printf installed', "apt-get": f'echo "$@" >> {tmp_path / "told"}'}
    for name, line in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\nexit 0\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    (tiny,) = script.INTEGRATIONS
    monkeypatch.setattr(script, "INTEGRATIONS", (dataclasses.replace(tiny, debian=("here", "gone")),))
    status, line = run(script, capsys)
    command = "install --yes --no-install-recommends gone"
    if user == 0:
        assert (status, line.split(" in ")[0]) == (0, "tiny: passed: 1 passed, 0 skipped, 0 failed")
        assert (tmp_path / "told").read_text().splitlines() == ["--quiet update", f"--quiet {command}"]
    else:
        assert (status, line) == (0, f"tiny: not installed: as root on Debian or Ubuntu: apt-get --quiet {command}")
        assert not (tmp_path / "told").exists()


def test_a_package_that_does_not_install_is_a_failure(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise subprocess.CalledProcessError(1, ["pip", "install", "x"])

    monkeypatch.setattr(script, "make_environment", fail)
    assert run(script, capsys) == (1, "tiny: failed: exit status 1 of pip install x")
