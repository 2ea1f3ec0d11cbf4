"""The campaign of mutants: which faults it makes, and that it tells what the tests notice from what they do not."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from yolact_benchmarks.studies.mutants import campaign
from yolact_benchmarks.studies.mutants.mutations import apply, find_mutations
from yolact_benchmarks.studies.mutants.reasons import REASONS
from yolact_benchmarks.studies.mutants.targets import TARGETS, Target

ROOT = Path(__file__).parents[3]
SOURCE = '''"""Words."""

__all__ = ["f"]
LIMIT: float = 2.5


@decorated(1)
def f(a: "x", b: int = 7) -> "y":
    """More words; ä takes two bytes."""
    if a.ready and b <= LIMIT:
        raise ValueError(f"no {a}" + "b")
    a.count += 1
    a.name = "ä"
    log.warning("so %s", b)
    call(a, b, c=True)
    max(a, b), call(a, a)
    return a - -b if a.good else None
'''


def test_what_is_changed_and_what_is_left_alone() -> None:
    found = [(mutation.line, mutation.told) for mutation in find_mutations(SOURCE)]
    assert found == [
        (4, "constant: 2.5 -> 1.25"),
        (4, "constant: 2.5 -> 5.0"),
        (8, "constant: 7 -> 8"),
        (10, "boolean: a.ready and b <= LIMIT -> (a.ready or b <= LIMIT)"),
        (10, "comparison: b <= LIMIT -> (b < LIMIT)"),
        (10, "comparison: b <= LIMIT -> (b > LIMIT)"),
        (11, 'removed: raise ValueError(f"no {a}" + "b") -> pass'),
        (12, "removed: a.count += 1 -> pass"),
        (12, "constant: 1 -> 2"),
        (13, 'removed: a.name = "ä" -> pass'),
        (13, "constant: \"ä\" -> 'ä_'"),
        (15, "swapped: call(a, b, c=True) -> call(b, a, c=True)"),
        (15, "removed: call(a, b, c=True) -> pass"),
        (15, "constant: True -> False"),
        (17, "returned: return a - -b if a.good else None -> return None"),
        (17, "arithmetic: a - -b -> (a + -b)"),
        (17, "arithmetic: -b -> b"),
        (17, "condition: a.good -> (not a.good)"),
    ]


def test_one_thing_is_changed_and_every_line_stays_where_it_is() -> None:
    lines = SOURCE.splitlines()
    for mutation in find_mutations(SOURCE):
        changed = apply(SOURCE, mutation)
        ast.parse(changed)
        assert [i + 1 for i, (a, b) in enumerate(zip(lines, changed.splitlines(), strict=True)) if a != b] == [
            mutation.line
        ]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_every_fault_of_every_module_is_python_and_another_module(target: Target) -> None:
    source = target.source(ROOT)
    original, found = ast.dump(ast.parse(source)), find_mutations(source)
    assert len(found) > 25
    assert len({(mutation.start, mutation.told) for mutation in found}) == len(found)
    for mutation in campaign.choose(found, 20, 0):
        assert ast.dump(ast.parse(apply(source, mutation))) != original
    assert all((ROOT / name).is_file() for name in target.tests)


def test_unknown_modules_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        campaign.main(["nms", "verifi"])
    assert "error: no module verifi; there are verify, guard, nms, " in capsys.readouterr().err


def test_every_reason_is_of_a_fault_that_can_be_made() -> None:
    found = [(target.name, mutation) for target in TARGETS for mutation in find_mutations(target.source(ROOT))]
    made = {(name, mutation.text, mutation.told) for name, mutation in found}
    assert set(REASONS) - made == set()
    assert all(len(reason) > 20 for reason in REASONS.values())


def test_a_sample_is_the_same_for_a_seed_and_in_order() -> None:
    found = find_mutations(TARGETS[0].source(ROOT))
    chosen = campaign.choose(found, 9, 3)
    assert chosen == campaign.choose(found, 9, 3) != campaign.choose(found, 9, 4)
    assert [mutation for mutation in found if mutation in chosen] == chosen
    assert campaign.choose(found, None, 0) == campaign.choose(found, 10**6, 0) == found


def test_a_record_keeps_modules_that_were_not_run_and_are_the_same(tmp_path: Path) -> None:
    first, second, third = ({"name": t.name, "sha256": t.digests(ROOT)[0], "tried": 1} for t in TARGETS[:3])
    path = tmp_path / "mutants.json"
    assert campaign.rows_with_earlier([second], path) == [second]
    path.write_text(json.dumps({"results": {"modules": [second, first, third | {"sha256": "of another day"}]}}))
    assert campaign.rows_with_earlier([second | {"tried": 2}], path) == [first, second | {"tried": 2}]


MODULE = """def limit(a):
    return a > 2


def unused():
    return 4
"""
NOTICES = """
import subprocess, sys

def test_limit():
    # In a process of its own: the fault has to be there, too.
    code = "from yolact_small import limit; print(limit(2), limit(3))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"]
"""
RUN = """
import sys
from pathlib import Path
from yolact_benchmarks.studies.mutants import campaign, trial
from yolact_benchmarks.studies.mutants.targets import Target
campaign.ROOT, campaign.KEPT = Path(sys.argv[1]), Path(sys.argv[2])
trial._SLOW_IMPORTS = ("pytest",)
campaign.TARGETS = (Target("small", "runtime/yolact_small" + ".py", ("tests/test_small" + ".py",)),)
sys.exit(campaign.main(["--results", sys.argv[2]]))
"""
ENDLESS = """
import sys
from pathlib import Path
from yolact_benchmarks.studies.mutants.trial import Scratch
Path(sys.argv[2]).mkdir()
print(Scratch(Path(sys.argv[1]), Path(sys.argv[2])).run_tests(("tests/test_small" + ".py",), 1))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one module, whose tests are still to be written."""
    for folder in ("runtime", "tests"):
        (tmp_path / "repository" / folder).mkdir(parents=True)
    (tmp_path / "repository" / "runtime" / "yolact_small.py").write_text(MODULE)
    subprocess.run(["git", "init", "-q", str(tmp_path / "repository")], check=True)
    return tmp_path / "repository"


def _run(root: Path, code: str = RUN) -> subprocess.CompletedProcess[str]:
    """In a process of its own, because it forks."""
    command = [sys.executable, "-c", code, str(root), str(root.with_name("kept"))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_what_is_noticed_and_what_survives(root: Path) -> None:
    (root / "tests" / "test_small.py").write_text(NOTICES)
    small = Path("runtime", "yolact_small.py")
    done = _run(root)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        f"  {small}:6: returned: return 4 -> return None",
        f"  {small}:6: constant: 4 -> 5",
        "small: 6 mutants, 4 noticed, 0 with a reason, 2 survive",
    ]
    (record,) = root.with_name("kept").rglob("mutants.json")
    results = json.loads(record.read_text())["results"]
    (row,) = results["modules"]
    assert results["tests"] == "now"
    assert (row["of"], row["tried"], row["noticed"]) == (6, 6, 4)
    assert [item["line"] for item in row["survivors"]] == [6, 6]
    assert (root / "runtime" / "yolact_small.py").read_text() == MODULE
    # Outcomes are kept; what survived is tried again once there are other tests.
    kept = root.with_name("kept") / "small.jsonl"
    assert len(kept.read_text().splitlines()) == 6
    with (root / "tests" / "test_small.py").open("a") as file:
        file.write("def test_more():\n    from yolact_small import unused\n    assert unused() == 4\n")
    done = _run(root)
    assert (done.returncode, done.stdout) == (0, "small: 6 mutants, 6 noticed, 0 with a reason, 0 survive\n")
    assert len(kept.read_text().splitlines()) == 8


def test_tests_that_do_not_end_are_ended(root: Path) -> None:
    (root / "tests" / "test_small.py").write_text("import time\ndef test(): time.sleep(600)\n")
    assert _run(root, ENDLESS).stdout == "time\n"


def test_tests_that_fail_by_themselves_are_an_error(root: Path) -> None:
    (root / "tests" / "test_small.py").write_text("def test(): assert False, 'broken already'")
    done = _run(root)
    assert done.returncode == 1
    assert "the tests of small do not pass without a fault (failed)" in done.stderr
    assert "broken already" in done.stderr
