"""A GPU day: stages that fail, hang or find nothing, what is written meanwhile, and a dry run of all of it."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.kernel_host import BUILT
from support.recorder import Recorder
from support.tools import needs_tool
from yolact_benchmarks.studies.gpu import cli, day
from yolact_benchmarks.studies.gpu.day import LEAST_S, Outcome, run_stages, table
from yolact_benchmarks.studies.gpu.record import ROWS_NAME, Rows, gpu_folder, read_rows
from yolact_benchmarks.studies.gpu.stage_options import NOT_MEASURED
from yolact_benchmarks.studies.gpu.stages import HALVES, STAGES, Request, Stage, stages_of
from yolact_plugins.errors import CudaUnavailableError
from yolact_runtime.errors import UsageError
from yolact_runtime.reporter import SILENT, Reporter

ROOT = Path(__file__).parents[4]
GPU = {"name": "Some GPU", "arch": "sm_90", "cuda": "13.0"}
DRIVER = "support.host_gpu:HostDriver"


def python(code: str, *words: str) -> Callable[[Request], list[str]]:
    return lambda request: [sys.executable, "-c", code, str(request.rows), *words]


@pytest.fixture
def request_of(tmp_path: Path) -> Request:
    output = gpu_folder(tmp_path / "out", GPU["name"])
    return Request(ROOT, tmp_path / "work", output, output / ROWS_NAME, tmp_path / "pack", run="run1")


def run(request: Request, *stages: Stage, within: float = 60, reporter: Reporter = SILENT) -> dict[str, Outcome]:
    facts = {"command": "the command", "scale": 1.0, "commit": "abc"}
    outcomes = run_stages(stages, request, GPU, facts, within, reporter)
    return {outcome.name: outcome for outcome in outcomes}


def record(request: Request) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((request.output / "gpu.json").read_bytes())["results"]
    return results


def again(request: Request) -> Request:
    return dataclasses.replace(request, run="run2")


WRITES_A_ROW = """
import sys
from pathlib import Path
from yolact_benchmarks.studies.gpu.record import Rows
Rows(sys.argv[2], Path(sys.argv[1])).write(value=sys.argv[3])
"""


def test_a_stage_that_fails_or_hangs_ends_alone(request_of: Request, tmp_path: Path) -> None:
    child = tmp_path / "child"
    hangs = (
        WRITES_A_ROW
        + "import subprocess, time\n"
        + f"child = subprocess.Popen(['sleep', '60']); Path({str(child)!r}).write_text(str(child.pid)); time.sleep(60)"
    )
    # Long enough to start and to find something, also on a machine that is busy.
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "from yolact_benchmarks.studies.gpu.record import Rows"], check=True)
    limit_s = max(1 + round(5 * (time.monotonic() - began)), LEAST_S)
    found = run(
        request_of,
        Stage("fails", "first", 30, python("print('so'); raise SystemExit(3)")),
        Stage("hangs", "first", limit_s, python(hangs, "hangs", "before")),
        Stage("works", "first", 30, python(WRITES_A_ROW, "works", "done")),
        within=limit_s + 60,
    )
    assert [(outcome.status, outcome.detail) for outcome in found.values()] == [
        ("failed", "exit status 3"),
        ("ended at its limit", ""),
        ("ok", ""),
    ]
    # What it had found is there, and what it had started is not.
    assert [(row["stage"], row["value"]) for row in read_rows(request_of.rows)] == [
        ("hangs", "before"),
        ("works", "done"),
    ]
    deadline = time.monotonic() + 60
    while _is_alive(int(child.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    document = json.loads((request_of.output / "gpu.json").read_bytes())
    assert document["command"] == "the command"
    assert document["results"]["stages"][2]["command"] == "the command"
    assert document["results"]["gpu"] == GPU
    assert [stage["status"] for stage in document["results"]["stages"]] == ["failed", "ended at its limit", "ok"]
    assert len(document["results"]["rows"]) == 2
    assert (request_of.work / "logs" / "fails.log").read_text() == "so\n"
    assert (request_of.output / "logs.tgz").exists()
    lines = table(list(found.values()), request_of)
    assert lines[2].split() == ["hangs", "ended", "at", "its", "limit", lines[2].split()[5], str(limit_s), "1"]


def _is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_a_rerun_replaces_the_rows_of_its_stage_and_no_others(request_of: Request) -> None:
    one, two = (Stage(name, "first", 30, python(WRITES_A_ROW, name, "old")) for name in ("one", "two"))
    run(request_of, one, two)
    run(again(request_of), Stage("one", "first", 30, python(WRITES_A_ROW, "one", "new")))
    assert [(row["stage"], row["value"]) for row in read_rows(request_of.rows)] == [("two", "old"), ("one", "new")]
    stages = record(request_of)["stages"]
    assert [(stage["name"], stage["run"], stage["commit"]) for stage in stages] == [
        *(("two", "run1", "abc"), ("one", "run2", "abc")),
    ]
    assert all(stage["started"].endswith("Z") and stage["scale"] == 1 for stage in stages)


def test_what_was_not_run_again_stays_as_it_was(request_of: Request) -> None:
    run(request_of, Stage("one", "first", 30, python(WRITES_A_ROW, "one", "old")))
    before = record(request_of)
    assert run(again(request_of), Stage("one", "first", 30, python("")), within=-1)["one"].status == "not run"
    assert run(again(request_of), Stage("one", "first", 30, python(""), needs="no-such"))["one"].status == "not run"
    assert record(request_of) == before


def test_a_process_that_was_left_behind_adds_nothing_to_another_run(request_of: Request) -> None:
    run(request_of, Stage("one", "first", 30, python(WRITES_A_ROW, "one", "old")))
    left_behind = WRITES_A_ROW.replace("import sys\n", "import os, sys\nos.environ['YOLACT_GPU_RUN'] = 'run1'\n")
    own = "os.environ['YOLACT_GPU_RUN'] = 'run2'; Rows(sys.argv[2], Path(sys.argv[1])).write(value='new')"
    both = left_behind + own
    run(again(request_of), Stage("one", "first", 30, python(both, "one", "orphan")))
    assert [row["value"] for row in record(request_of)["rows"]] == ["new"]


def test_a_stage_that_is_interrupted_leaves_what_was_there(request_of: Request) -> None:
    run(request_of, Stage("one", "first", 30, python(WRITES_A_ROW, "one", "old")))
    before = record(request_of)

    class Interrupting(Recorder):
        def say(self, text: str = "") -> None:
            if "at most" in text:
                raise KeyboardInterrupt

    for stages in ([Stage("one", "first", 30, python(""))], [Stage("two", "first", 30, python(""))]):
        with pytest.raises(KeyboardInterrupt):
            run(again(request_of), *stages, reporter=Interrupting())
    assert record(request_of)["stages"][0] == before["stages"][0]
    assert record(request_of)["rows"] == before["rows"]
    latest = record(request_of)["stages"][1]
    assert (latest["name"], latest["status"]) == ("two", "interrupted")


def test_two_runs_at_once_are_refused(request_of: Request) -> None:
    request_of.work.mkdir(parents=True)
    handle = os.open(request_of.work, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match=r"another run is using .*work"):
        run(request_of, Stage("one", "first", 30, python("")))
    os.close(handle)


@pytest.mark.parametrize(
    "content", ["", '{"results"', "[]", "null", '{"results": {"stages": [{"name": "one", "status": "ok"}]}}']
)
def test_a_record_that_cannot_be_read_is_set_aside(request_of: Request, content: str) -> None:
    request_of.output.mkdir(parents=True)
    (request_of.output / "gpu.json").write_text(content)
    run(request_of, Stage("one", "first", 30, python(WRITES_A_ROW, "one", "new")))
    assert len(record(request_of)["rows"]) == 1
    assert (request_of.output / "gpu.json.damaged").read_text() == content


def test_a_record_that_cannot_be_written_does_not_stop_the_day(
    request_of: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(day, "write_day", full)
    told = Recorder()
    found = run(request_of, *(Stage(name, "first", 30, python("")) for name in "ab"), reporter=told)
    assert [outcome.status for outcome in found.values()] == ["ok", "ok"]
    assert sum("No space left on device" in line for line in told.lines) == 2


def test_a_stage_that_could_measure_nothing_says_why(request_of: Request) -> None:
    nothing = WRITES_A_ROW.replace("value=", "not_measured=") + f"sys.exit({NOT_MEASURED})"
    profile = "from pathlib import Path; import sys; Path(sys.argv[1]).with_name('ncu.csv').write_text({!r})"
    header = '==PROF== x\n"ID","Kernel Name"\n'
    request_of.output.mkdir(parents=True)
    (request_of.output / "ncu.csv").write_text('"0","of an earlier run"\n')
    found = run(
        request_of,
        Stage("absent", "first", 30, python(nothing, "absent", "no CUDA here")),
        Stage("silent", "first", 30, python(""), writes="ncu.csv"),
        Stage("empty", "first", 30, python(profile.format(header)), writes="ncu.csv"),
        Stage("full", "first", 30, python(profile.format(header + '"0","mask_bits"\n')), writes="ncu.csv"),
    )
    assert [(outcome.status, outcome.is_failure) for outcome in found.values()] == [
        *(("not measured", False), ("failed", True), ("failed", True), ("ok", False)),
    ]
    assert found["absent"].detail == "no CUDA here"
    assert "ncu.csv holds no kernel" in found["empty"].detail


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGKILL"])
def test_whatever_ends_the_runner_ends_its_stage(tmp_path: Path, name: str) -> None:
    child, stage = tmp_path / "child", tmp_path / "stage.py"
    stage.write_text(
        f"import os, time\nopen({str(child)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n", encoding="utf-8"
    )
    program = (
        "import signal, sys\nfrom yolact_benchmarks.studies.gpu import cli\n"
        "from yolact_benchmarks.studies.gpu.stages import Stage\n"
        # A suite that a shell started in the background is deaf to it, and so would be its children.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "cli._find_gpu = lambda: {'name': 'X', 'arch': 'sm_90', 'cuda': '13.0'}\n"
        f"command = [sys.executable, {str(stage)!r}]\n"
        "cli.stages_of = lambda words: [Stage('sleeps', 'first', 60, lambda request: command)]\n"
        f"sys.exit(cli.main(['run', '--output', {str(tmp_path / 'out')!r}, '--work', {str(tmp_path / 'work')!r}]))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while not (child.exists() and child.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(getattr(signal, name))
        assert process.wait(120) == (-signal.SIGKILL if name == "SIGKILL" else 130)
    while _is_alive(int(child.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if name != "SIGKILL":
        stages = json.loads((tmp_path / "out" / "x" / "gpu.json").read_bytes())["results"]["stages"]
        assert [stage["status"] for stage in stages] == ["interrupted"]


def test_when_the_time_is_over_the_rest_is_not_run(request_of: Request) -> None:
    found = run(
        request_of,
        Stage("long", "first", 60, python("import time; time.sleep(60)")),
        Stage("late", "first", 60, python("")),
        within=4,
    )
    assert found["long"].status == "ended at its limit"
    assert (found["late"].status, found["late"].detail) == ("not run", "out of time")


def test_a_suite_that_tested_nothing_has_failed(request_of: Request) -> None:
    launch = "import os; open(os.environ['YOLACT_GPU_LAUNCHES'], 'a').write('12 kernel launches on X\\n'); "
    found = run(
        request_of,
        Stage("skips", "first", 30, python("print('9 skipped in 1.0s')"), suite=True),
        Stage("passes", "first", 30, python("print('== 9 passed in 1.0s ==')"), suite=True),
        Stage("idle", "first", 30, python("print('9 passed in 1.0s')"), suite=True, launches=True),
        Stage("busy", "first", 30, python(launch * 2 + "print('9 passed in 1.0s')"), suite=True, launches=True),
        Stage("tool", "first", 30, python(""), needs="no-such-tool"),
    )
    assert {name: (outcome.status, outcome.detail) for name, outcome in found.items()} == {
        "skips": ("failed", "no test has passed"),
        "passes": ("ok", "9 passed in 1.0s"),
        "idle": ("failed", "no kernel was launched on the device; 9 passed in 1.0s"),
        "busy": ("ok", "9 passed in 1.0s; 24 kernel launches on X"),
        "tool": ("not run", "no-such-tool is not on this machine"),
    }
    assert [outcome.is_failure for outcome in found.values()] == [True, False, True, False, False]


def test_the_limits_of_a_day() -> None:
    limits = {half: sum(stage.limit_s for stage in stages_of([half])) for half in HALVES}
    assert all(limit <= 270 for limit in limits.values())
    assert sum(limits.values()) <= 480
    assert "compiled" not in {stage.name for stage in stages_of(HALVES)}
    assert len({stage.name for stage in STAGES}) == len(STAGES)


def test_the_document_lists_the_stages_with_their_limits() -> None:
    text = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    rows = [
        tuple(cell.strip() for cell in line.split("|")[1:4]) for line in text.splitlines() if line.startswith("| `")
    ]
    assert rows == [(f"`{stage.name}`", stage.half or "by name", f"{stage.limit_s} s") for stage in STAGES]


def test_sanitizers_leave_out_what_the_binding_asks_the_driver(request_of: Request) -> None:
    for name, tool in (("memcheck", "memcheck"), ("racecheck", "racecheck"), ("path-memcheck", "memcheck")):
        (stage,) = stages_of([name])
        words = stage.command(request_of)
        assert words[:5] == ["compute-sanitizer", "--tool", tool, "--report-api-errors", "no"]
        assert words[5:7] == ["--error-exitcode", "9"]
        assert stage.quick


def test_rows_are_on_the_disk_and_are_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = Rows("x", path)
    rows.write(a=1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        rows.write(a=float("nan"))
    path.write_text(path.read_text() + '{"stage": "x", "a"')
    assert read_rows(path) == [{"stage": "x", "run": "", "a": 1}]
    assert read_rows(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("name", "folder"),
    [("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"), ("Orin (nvgpu)", "orin-nvgpu"), ("///", "unnamed-gpu")],
)
def test_records_lie_in_a_folder_that_names_the_gpu(tmp_path: Path, name: str, folder: str) -> None:
    assert gpu_folder(tmp_path, name) == tmp_path / folder


# --- the command ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YOLACT_GPU_DRIVER", raising=False)
    assert cli.main(["run", "nothing"]) == 2
    assert "there is no stage nothing; there are: first, second, facts" in capsys.readouterr().err
    assert cli.main(["run", "--bundle", "nothing", "facts"]) == 2
    assert "nothing is not a bundle: it has no manifest.json" in capsys.readouterr().err
    for within in ("0", "-1", "nan", "inf"):
        with pytest.raises(SystemExit):
            cli.main(["run", "--within", within])
        assert f"{within} is not a positive number" in capsys.readouterr().err
    assert cli.main(["run", "--scale", "7"]) == 2
    assert "--scale must be greater than 0" in capsys.readouterr().err

    def no_device(*_: Any, **__: Any) -> Any:
        return subprocess.CompletedProcess([], 5, "", "error: there is no NVIDIA driver here\n")

    monkeypatch.setattr(subprocess, "run", no_device)
    assert cli.main(["run", "facts"]) == 5
    assert capsys.readouterr().err == "error: there is no NVIDIA driver here\n"


def test_a_driver_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(*words: Any, **options: Any) -> Any:
        raise subprocess.TimeoutExpired(words[0], options["timeout"])

    monkeypatch.setattr(subprocess, "run", hangs)
    with pytest.raises(CudaUnavailableError, match="did not answer within 20 s; does nvidia-smi answer"):
        cli._find_gpu()


COPIED = ("runtime", "plugins", "calibration", "export", "benchmarks", "tests", "examples", "pyproject.toml")
# Compiled modules go along: every stage is a process or several, and would compile all that it imports.
UNNEEDED = shutil.ignore_patterns("results", ".hypothesis", "*.html", "*.pruned.*")


@pytest.mark.long
@needs_tool("g++")
def test_a_dry_run_in_a_checkout_where_nothing_is_installed(tmp_path: Path) -> None:
    """Both halves end, everything that this machine has is run, and nothing is written outside of its folders."""
    checkout, home = tmp_path / "checkout", tmp_path / "home"
    home.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, checkout / name, ignore=UNNEEDED)
        else:
            shutil.copy(ROOT / name, checkout / name)
    before = sorted(path.relative_to(checkout) for path in checkout.rglob("*"))
    words = ["run", "--scale", "0.001", "--driver", DRIVER, "--output", "../out", "--work", "../work"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "YOLACT"))}
    done = subprocess.run(
        [sys.executable, "-B", "benchmarks/yolact_benchmarks/studies/gpu", *words],
        cwd=checkout,
        env=environment | {"HOME": str(home), "YOLACT_HOST_KERNELS": str(BUILT)},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "out" / "host" / "gpu.json").read_bytes())["results"]
    status = {stage["name"]: stage["status"] for stage in results["stages"]}
    assert list(status) == [stage.name for stage in stages_of(HALVES)]
    assert {name for name, how in status.items() if how == "ok"} >= {"facts", "kernels", "device", "frames", "growth"}
    # No bundle was carried here, and PyTorch has no CUDA.
    assert (status["rtx"], status["network"]) == ("not measured", "not measured")
    assert set(status.values()) <= {"ok", "not measured", "not run"}
    assert all(stage["scale"] == 0.001 and "--scale 0.001" in stage["command"] for stage in results["stages"])
    assert {row["stage"] for row in results["rows"]} == {"facts", "frames", "rtx", "network", "growth"}
    assert "kernel launches on Host" in done.stdout
    assert done.stdout.splitlines()[-1].split()[0] == "all"
    assert list(home.iterdir()) == []
    assert sorted(path.relative_to(checkout) for path in checkout.rglob("*")) == before
