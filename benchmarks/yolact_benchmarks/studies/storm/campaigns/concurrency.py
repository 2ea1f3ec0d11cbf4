"""Several processes that write under one name: exports, also with equal process ids; kernel caches; bundle readers.

Equal process ids occur in containers: each process is the first of a PID namespace of its own, if root may create one.
Torn: the file afterwards is not whole, or a reader saw neither the old nor the new one. Silently wrong: it is not what
one of the processes wrote.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from yolact_benchmarks.studies.bad_inputs.case import Answer
from yolact_benchmarks.studies.bad_inputs.trial import call_command, run_forked
from yolact_benchmarks.studies.storm.attempt import Attempt, Campaign
from yolact_benchmarks.studies.storm.leftovers import contents, is_whole_bundle
from yolact_benchmarks.studies.storm.outcome import Finding, Outcome, judge_answer, ok, silent
from yolact_benchmarks.studies.storm.stage import Stage, open_model, same_instances, tests_support
from yolact_plugins.errors import YolactError

__all__ = ["CAMPAIGN"]

# linux/sched.h
_NEW_PROCESS_IDS = 0x20000000
_SWAPS = 30


def _prepare(stage: Stage) -> None:
    tests_support()
    import support.precompiled  # type: ignore[import-not-found, unused-ignore]  # noqa: F401

    other = stage.copy_bundle(stage.folder / "other.bundle")
    document = {**stage.manifest, "class_names": [f"{name}2" for name in stage.manifest["class_names"]]}
    (other / "manifest.json").write_text(json.dumps(document), encoding="utf-8")


def _attempt(stage: Stage, attempt: Attempt) -> Finding:
    return attempt.rng.choices((_exports, _writes, _readers, _cubins), (2, 3, 3, 2))[0](stage, attempt)


def _together(actions: list[Callable[[], int]], folder: Path, equal_ids: bool) -> list[Answer]:
    """Run functions at the same time, each in a process of its own, with equal process ids if possible."""
    pids = []
    for number, action in enumerate(actions):
        pid = os.fork()
        if pid == 0:
            try:
                if equal_ids:
                    ctypes.CDLL(None).unshare(_NEW_PROCESS_IDS)
                answer = run_forked(action)
                said = [answer.status, answer.stdout, answer.stderr]
                (folder / f"answer-{number}").write_text(json.dumps(said), encoding="utf-8")
            finally:
                os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    return [Answer(*json.loads((folder / f"answer-{number}").read_bytes())) for number in range(len(actions))]


def _exports(stage: Stage, attempt: Attempt) -> Finding:
    count, equal_ids = attempt.rng.choice((2, 3)), attempt.rng.random() < 0.5
    bundle = attempt.folder / "b"
    words = (str(stage.checkpoint), "-o", str(bundle), "--no-engine", "-q")
    answers = _together([partial(call_command, "yolact-export", words)] * count, attempt.folder, equal_ids)
    what = f"{count} exports to one name{', equal process ids' if equal_ids else ''}"
    for answer in answers:
        finding = judge_answer(answer, what)
        if finding.outcome is not Outcome.OK:
            # Each of them would succeed alone.
            return Finding(Outcome.TORN, finding.what) if finding.outcome is Outcome.REFUSED else finding
    if not is_whole_bundle(bundle):
        return Finding(Outcome.TORN, f"{what}: there is no whole bundle")
    with open_model(bundle) as segmenter:
        same = same_instances(segmenter(stage.frame), stage.instances)
    return ok(what) if same else silent(f"{what}: other instances")


def _writes(_: Stage, attempt: Attempt) -> Finding:
    """Write small files, each of which must be whole or absent."""
    from yolact_plugins.files import write_atomically

    equal_ids = attempt.rng.random() < 0.5
    path = attempt.folder / "record.json"
    texts = [bytes([65 + number]) * attempt.rng.choice((10, 100_000)) for number in range(4)]

    def write(text: bytes) -> int:
        for _ in range(20):
            write_atomically(path, text)
            if path.read_bytes() not in texts:
                return 3
        return 0

    what = f"4 writers of one file{', equal process ids' if equal_ids else ''}"
    answers = _together([partial(write, text) for text in texts], attempt.folder, equal_ids)
    if any(answer.status == 3 for answer in answers) or path.read_bytes() not in texts:
        return Finding(Outcome.TORN, f"{what}: a mixture was found")
    findings = [judge_answer(answer, what) for answer in answers]
    return next((finding for finding in findings if finding.outcome is not Outcome.OK), ok(what))


def _readers(stage: Stage, attempt: Attempt) -> Finding:
    """Replace a bundle by another one over and over, while two processes open it."""
    from yolact_export.bundle_writer import staged_bundle

    sources = [stage.bundle, stage.folder / "other.bundle"]
    bundle = stage.copy_bundle(attempt.folder / "b")
    ended = attempt.folder / "ended"

    def write() -> int:
        try:
            for number in range(_SWAPS):
                with staged_bundle(bundle) as folder:
                    shutil.copytree(sources[number % 2], folder, dirs_exist_ok=True)
        finally:
            ended.touch()
        return 0

    def read() -> int:
        while not ended.exists():
            with open_model(bundle) as segmenter:
                if not same_instances(segmenter(stage.frame), stage.instances):
                    return 3
        return 0

    what = f"{_SWAPS} swaps of a bundle under two readers"
    answers = _together([write, read, read], attempt.folder, equal_ids=False)
    if any(answer.status == 3 for answer in answers):
        return silent(f"{what}: other instances")
    for answer in answers:
        if answer.status != 0:
            last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
            return Finding(Outcome.TORN, f"{what}: {last}")
    same = contents(bundle) in [contents(source) for source in sources]
    return ok(what) if same else Finding(Outcome.TORN, f"{what}: neither of them was found")


def _cubins(_: Stage, attempt: Attempt) -> Finding:
    """Let several processes store machine code in one cache, and find it there."""
    from support.kernels import SAMPLE  # type: ignore[import-not-found, unused-ignore]
    from support.precompiled import made_up_cubin  # type: ignore[import-not-found, unused-ignore]
    from yolact_plugins.compile import compiler
    from yolact_plugins.compile.cubin_folder import CubinFolderError, CubinIndex, write_cubins

    entry = attempt.folder / "cache" / "sample"
    entry.parent.mkdir(mode=0o700)
    equal_ids = attempt.rng.random() < 0.5
    cubin = made_up_cubin("sm_87", random.Random(attempt.number).randbytes(200_000))

    def keep() -> int:
        for _ in range(10):
            write_cubins(entry, [cubin])
            try:
                found = CubinIndex.read(entry, entry.parent).find(SAMPLE, "sm_87", compiler.OPTIONS)
            except (CubinFolderError, YolactError) as error:
                print(f"error: {error}")
                return 3
            if found.code != cubin.code:
                return 4
        return 0

    what = f"3 writers of one cache{', equal process ids' if equal_ids else ''}"
    for answer in _together([keep] * 3, attempt.folder, equal_ids):
        if answer.status == 4:
            return silent(f"{what}: other machine code was found")
        if answer.status == 3:
            return Finding(Outcome.TORN, f"{what}: {answer.stdout}")
        finding = judge_answer(answer, what)
        if finding.outcome is not Outcome.OK:
            return finding
    return ok(what)


CAMPAIGN = Campaign("concurrency", _attempt, 30, 1, _prepare, seconds=120)
