"""TensorRT plans and the facts of their builds, changed; TensorRT and its GPU are the simulated ones of the tests.

Silently wrong: TensorRT gets bytes whose SHA-256 is not the one that the manifest on disk lists, or a plan whose facts
state that it was built for another system, architecture, TensorRT or GPU.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from yolact_benchmarks.studies.storm.attempt import Attempt, Campaign
from yolact_benchmarks.studies.storm.mutations import HOSTILE_VALUES, mutate_bytes
from yolact_benchmarks.studies.storm.outcome import Finding, ok, refused, silent, visible
from yolact_benchmarks.studies.storm.stage import Stage, tests_support
from yolact_plugins.errors import YolactError
from yolact_runtime import Segmenter, SegmenterOptions

__all__ = ["CAMPAIGN"]

_FACTS = ("os", "arch", "library_version", "compute_capabilities")


def _prepare(_: Stage) -> None:
    tests_support()
    import support.fake_tensorrt  # type: ignore[import-not-found, unused-ignore]  # noqa: F401


def _attempt(_: Stage, attempt: Attempt) -> Finding:
    import pytest

    from support.device_network import replay, tensor_specs  # type: ignore[import-not-found, unused-ignore]
    from support.fake_tensorrt import (  # type: ignore[import-not-found, unused-ignore]
        FakeTensorRt,
        add_engine,
        put_in_place,
    )
    from support.host_gpu import host_gpu  # type: ignore[import-not-found, unused-ignore]
    from support.scenes import (  # type: ignore[import-not-found, unused-ignore]
        DEFAULT_PROTOTYPE,
        Thing,
        raw_outputs,
        small_manifest,
        write_bundle,
    )

    rng = attempt.rng
    things = [Thing((0.25, 0.25, 0.75, 0.75))]
    bundle = write_bundle(attempt.folder / "b", things)
    rtx = rng.random() < 0.3
    plan = add_engine(bundle, "rtx" if rtx else "tensorrt")
    sound = json.loads((bundle / "manifest.json").read_bytes())["artefacts"][plan.name]
    what = _change(bundle, plan, rng)
    given: list[bytes] = []

    class Watched(FakeTensorRt):  # type: ignore[misc, unused-ignore]
        def _deserialize(self, content: bytes, *runtime: Any) -> Any:
            given.append(bytes(content))
            return super()._deserialize(content, *runtime)

    tensors = tensor_specs(small_manifest(), DEFAULT_PROTOTYPE.shape)
    with host_gpu() as device:
        fake = Watched(device, tensors, replay([raw_outputs(small_manifest(), things)]), rtx=rtx)
        put_in_place(pytest.MonkeyPatch(), fake)
        options = SegmenterOptions(cpu_postprocessing=True)
        refusal: YolactError | None = None
        try:
            with Segmenter.open(bundle, "tensorrt-rtx" if rtx else "tensorrt", options, "fp16"):
                pass
        except YolactError as error:
            refusal = error
    return _judge(bundle, plan, sound, given, refusal, what)


def _judge(
    bundle: Path, plan: Path, sound: dict[str, Any], given: list[bytes], refusal: YolactError | None, what: str
) -> Finding:
    if not given:
        return silent(f"{what}: opened without an engine") if refusal is None else refused(what, refusal)
    stated = json.loads((bundle / "manifest.json").read_bytes())["artefacts"][plan.name]
    if any(hashlib.sha256(content).hexdigest() != stated["sha256"] for content in given):
        return silent(f"{what}: TensorRT was given bytes that do not match the hash")
    if any(stated["build"].get(fact, sound["build"][fact]) != sound["build"][fact] for fact in _FACTS):
        if stated["build"].get("version_compatible") != "yes" and not _covers(stated, sound):
            return silent(f"{what}: TensorRT was given an engine of another machine")
        return visible(f"{what}: facts that cover this machine")
    return ok(what)


def _covers(stated: dict[str, Any], sound: dict[str, Any]) -> bool:
    """Return whether only the list of GPUs was changed, to one that includes this GPU."""
    others = all(stated["build"].get(fact, sound["build"][fact]) == sound["build"][fact] for fact in _FACTS[:-1])
    capabilities = stated["build"].get("compute_capabilities", "")
    return others and (sound["build"]["compute_capabilities"] in capabilities or "later" in capabilities)


def _change(bundle: Path, plan: Path, rng: random.Random) -> str:
    kind = rng.choice(("bytes", "fact", "fact", "hash", "link", "mode", "nothing", "empty"))
    path = bundle / "manifest.json"
    document = json.loads(path.read_bytes())
    entry = document["artefacts"][plan.name]
    what = kind
    if kind == "bytes":
        what, content = mutate_bytes(plan.read_bytes(), rng)
        plan.write_bytes(content)
    elif kind == "fact":
        fact = rng.choice((*_FACTS, "target", "version_compatible", "hardware_compatible", "gpu"))
        value = rng.choice(("windows", "aarch64", "9.9", "10.3", "8.7", "8.0 and later", "yes", *HOSTILE_VALUES))
        entry["build"][fact] = value
        what = f"{fact} = {str(value)[:30]!r}"
    elif kind == "hash":
        place = rng.randrange(64)
        digit = rng.choice("0123456789abcdefABCDEF\x1b")
        entry["sha256"] = entry["sha256"][:place] + digit + entry["sha256"][place + 1 :]
        what = f"digit {place} of the hash is {digit!r}"
    elif kind == "link":
        target = bundle.parent / "elsewhere.plan"
        plan.rename(target)
        plan.symlink_to(target)
    elif kind == "mode":
        plan.chmod(0o666)
    elif kind == "empty":
        plan.write_bytes(b"")
    path.write_text(json.dumps(document), encoding="utf-8")
    return what


CAMPAIGN = Campaign("plans", _attempt, 100, 4, _prepare)
