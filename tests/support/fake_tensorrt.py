"""A fake TensorRT: the few objects that the runtime uses, which compute on the host in stream order.

It cannot test TensorRT itself. It tests what the adapter asks of TensorRT, in which order, and what happens after an
error. Names and signatures are those of TensorRT 10.3 to 11.4 and of TensorRT-RTX 1.7.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from support.device_network import Function
from support.host_gpu import HostDriver
from yolact_plugins.driver.driver import Device
from yolact_runtime.backends import TensorSpec, engine_file
from yolact_runtime.backends import tensorrt as adapter
from yolact_runtime.backends.cuda_driver import Gpu
from yolact_runtime.backends.engine_file import engine_file_name, machine_facts
from yolact_runtime.backends.tensorrt_library import TensorRtLibrary
from yolact_runtime.errors import BackendUnavailableError
from yolact_runtime.model.bundle import MANIFEST_NAME, file_sha256
from yolact_runtime.model.manifest import Artefact, Manifest, NetworkDtypes

__all__ = ["FakeTensorRt", "add_engine", "put_in_place"]


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class DataType(enum.Enum):
    FLOAT, HALF, INT8 = range(3)


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    LAZY, EAGER, NONE = range(3)


class ComputeCapability(enum.Enum):
    NONE, CURRENT, SM75, SM80, SM86, SM89, SM120, SM121 = range(8)


_KINDS = {np.dtype(np.float32): DataType.FLOAT, np.dtype(np.float16): DataType.HALF, np.dtype(np.int8): DataType.INT8}


class ILogger:
    def log(self, severity: Severity, text: str) -> None:
        raise NotImplementedError


ILogger.Severity = Severity  # type: ignore[attr-defined]  # as TensorRT nests it


class IProfiler:
    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError


class FakeTensorRt:
    """The package ``tensorrt`` or, with `rtx`, the package ``tensorrt_rtx``.

    Attributes:
        module: Module to import.
        refuse: Names of the calls that fail: "load_runtime", "deserialize", "context", "shape", "memory", "address",
            "execute".
        before_call: Function called with the name of the operation before a context is bound or run, for tests with
            threads.
        caches: Contents that were given to the runtime cache of RTX.
        num_contexts: Number of contexts made so far.
        layers: Layers of the engine in the inspector's format, with ``"ms"`` for the profiler.
        requires_user_allocation: Whether an RTX engine was built with this flag.
        memory_bytes: Size of a context's memory for activations between layers.
        contexts: All contexts that use memory of their caller.
        host_code_allowed: Whether host code was allowed at the time, for every plan that was deserialised.
        lean_runtimes: Paths of the lean runtimes that were loaded.
    """

    def __init__(
        self,
        device: Device,
        tensors: tuple[TensorSpec, ...],
        function: Function,
        *,
        rtx: bool = False,
        dynamic_batch: bool = False,
        name: str = "",
    ) -> None:
        self.device, self.tensors, self.function = device, tensors, function
        self.rtx, self.dynamic_batch, self.name = rtx, dynamic_batch, name
        self.refuse: set[str] = set()
        self.caches: list[bytes] = []
        self.compiled = b"compiled"
        self.num_contexts = 0
        self.logger: Any = None
        self.capturable = True
        self.requires_user_allocation, self.memory_bytes = rtx, 4096
        self.contexts: list[Context] = []
        self.host_code_allowed: list[bool] = []
        self.lean_runtimes: list[str] = []
        self.before_call: Callable[[str], None] = lambda _: None
        self.module = SimpleNamespace(
            __version__="1.7.1" if rtx else "10.3.0",
            ILogger=ILogger,
            Builder=object,
            TensorIOMode=TensorIOMode,
            Runtime=self._runtime,
            IProfiler=IProfiler,
            LayerInformationFormat=SimpleNamespace(JSON="json"),
            nptype={kind: dtype.type for dtype, kind in _KINDS.items()}.__getitem__,
        )
        if rtx:
            self.module.ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
            self.module.DynamicShapesKernelSpecializationStrategy = DynamicShapesKernelSpecializationStrategy
            self.module.ComputeCapability = ComputeCapability
        self.layers: list[dict[str, Any]] = []

    def may(self, what: str) -> bool:
        """Return whether an operation succeeds; if the test wants it to fail, log an error as TensorRT does."""
        if what in self.refuse:
            self.complain(f"{what} is refused")
        return what not in self.refuse

    def complain(self, text: str) -> None:
        """Log an error on the calling thread, as TensorRT does."""
        self.logger.log(Severity.ERROR, f"Error Code 9: {text}")

    def _runtime(self, logger: Any) -> Any:
        self.logger = logger
        # Careless until it is told otherwise, so that nothing is owed to a default.
        runtime = SimpleNamespace(
            engine_host_code_allowed=True,
            get_engine_validity=lambda plan: ("VALID" if plan else "INVALID", 0),
            load_runtime=self._load_lean_runtime,
        )
        runtime.deserialize_cuda_engine = lambda plan: self._deserialize(plan, runtime)
        return runtime

    def _load_lean_runtime(self, path: str) -> Any:
        self.lean_runtimes.append(path)
        return self._runtime(self.logger) if self.may("load_runtime") else None

    def _deserialize(self, plan: bytes, runtime: Any) -> Any:
        assert plan
        self.host_code_allowed.append(runtime.engine_host_code_allowed)
        return (RtxEngine if self.rtx else Engine)(self) if self.may("deserialize") else None


def put_in_place(monkeypatch: pytest.MonkeyPatch, fake: FakeTensorRt) -> FakeTensorRt:
    """Let the runtime find this package and its GPU in place of the real ones."""
    library = TensorRtLibrary("rtx" if fake.rtx else "tensorrt", fake.module)

    def load(target: str) -> TensorRtLibrary:
        if target != library.target:
            raise BackendUnavailableError(f"{target} is not installed")
        return library

    monkeypatch.setattr(engine_file, "load_tensorrt", load)
    monkeypatch.setattr(engine_file, "find_gpu", lambda: Gpu("Host", "8.9" if fake.rtx else "8.7", "13.0"))
    monkeypatch.setattr(adapter, "_open_device", lambda _: Device(driver=fake.device.driver))
    return fake


def add_engine(
    bundle: Path,
    target: str = "tensorrt",
    precision: str = "fp16",
    dtypes: NetworkDtypes | None = None,
    **facts: str,
) -> Path:
    """List a plan in a bundle's manifest, as building one does; without `dtypes`, as an earlier release did."""
    version = {"tensorrt": "10.3.0", "rtx": "1.7.1"}[target]
    path = bundle / engine_file_name(precision, target)
    path.write_bytes(f"plan {target} {precision}".encode())
    capability = {"tensorrt": "8.7", "rtx": "8.9"}[target]
    build = {"target": target, "library_version": version, "compute_capabilities": capability}
    build |= machine_facts() | facts
    artefact = Artefact("engine", precision, file_sha256(path), path.stat().st_size, build, dtypes)
    manifest = Manifest.from_json((bundle / MANIFEST_NAME).read_bytes(), "test")
    manifest = dataclasses.replace(manifest, artefacts={**manifest.artefacts, path.name: artefact})
    (bundle / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return path


class Engine:
    """Fake of ``ICudaEngine``."""

    def __init__(self, owner: FakeTensorRt) -> None:
        self._owner = owner
        self.name = owner.name
        self.num_io_tensors = len(owner.tensors)

    def get_tensor_name(self, index: int) -> str:
        return self._owner.tensors[index].name

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if self._spec(name).is_input else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return _KINDS[self._spec(name).dtype]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self._spec(name).shape
        return (-1, *shape[1:]) if self._owner.dynamic_batch else shape

    def create_engine_inspector(self) -> Any:
        content = json.dumps({"Layers": self._owner.layers})
        return SimpleNamespace(get_engine_information=lambda form: content if form == "json" else "")

    def create_execution_context(self, *arguments: Any) -> Any:
        assert len(arguments) == int(self._owner.rtx)
        owner = self._owner
        owner.num_contexts += 1
        user_managed = bool(arguments) and arguments[0].strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        if owner.requires_user_allocation and not user_managed:
            owner.complain("Execution context creation requires ExecutionContextAllocationStrategy::kUSER_MANAGED")
            return None
        return Context(owner, user_managed) if owner.may("context") else None

    def _spec(self, name: str) -> TensorSpec:
        return next(spec for spec in self._owner.tensors if spec.name == name)


class RtxEngine(Engine):
    """Fake of an engine with TensorRT-RTX's runtime configuration."""

    @property
    def device_memory_size_v2(self) -> int:
        return self._owner.memory_bytes

    def create_runtime_config(self) -> Any:
        return RuntimeConfig(self._owner)


class RuntimeConfig:
    def __init__(self, owner: FakeTensorRt) -> None:
        self._owner = owner
        self.cache: Any = None
        self.strategy = ExecutionContextAllocationStrategy.STATIC
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY

    def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Any:
        return RuntimeCache(self._owner)

    def set_runtime_cache(self, cache: Any) -> bool:
        self.cache = cache
        return True


class RuntimeCache:
    def __init__(self, owner: FakeTensorRt) -> None:
        self._owner = owner

    def deserialize(self, content: bytes) -> bool:
        self._owner.caches.append(content)
        return content.startswith(b"compiled")

    def serialize(self) -> Any:
        return memoryview(self._owner.compiled)


class Context:
    """Fake of ``IExecutionContext``."""

    def __init__(self, owner: FakeTensorRt, user_managed: bool) -> None:
        self._owner, self._user_managed = owner, user_managed
        # Pointer and size; of a context that has its own there is nothing to see.
        self.memory: tuple[int, int] | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self.profiler: Any = None
        if owner.rtx:
            self.is_stream_capturable = lambda _: owner.capturable

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = tuple(shape)
        return self._owner.may("shape")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        spec = next(spec for spec in self._owner.tensors if spec.name == name)
        return spec.shape if self._shapes or not self._owner.dynamic_batch else (-1, *spec.shape[1:])

    def set_device_memory(self, memory: int, size: int) -> None:
        if not self._user_managed:
            self._owner.complain("Context not created with user managed device memory, cannot set buffer")
        elif size < self._owner.memory_bytes or memory % 256:
            self._owner.complain("the memory is too small or not aligned")
        elif self._owner.may("memory"):
            self.memory = (memory, size)
            self._owner.contexts.append(self)

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        assert isinstance(pointer, int)
        self._owner.before_call("address")
        self._addresses[name] = pointer
        return self._owner.may("address")

    def execute_async_v3(self, handle: int) -> bool:
        assert set(self._addresses) == {spec.name for spec in self._owner.tensors}
        self._owner.before_call("execute")
        if not self._owner.may("execute"):
            return False
        if self._user_managed and self.memory is None:
            self._owner.complain("setDeviceMemoryV2 should be called before enqueue/execute")
            return False
        driver = self._owner.device.driver
        assert isinstance(driver, HostDriver)
        addresses = dict(self._addresses)
        driver.enqueue(handle, lambda: self._compute(driver, addresses))
        if self.profiler is not None:
            for layer in self._owner.layers:
                self.profiler.report_layer_time(layer["Name"], layer["ms"])
        return True

    def _compute(self, driver: HostDriver, addresses: Mapping[str, int]) -> None:
        if self.memory is not None:
            # Somewhere between the layers; the driver finds memory that was freed meanwhile.
            driver.view(self.memory[0], (self.memory[1],), np.uint8)[...] = 0xA5
        views: dict[str, npt.NDArray[Any]] = {
            spec.name: driver.view(addresses[spec.name], spec.shape, spec.dtype) for spec in self._owner.tensors
        }
        (name,) = (spec.name for spec in self._owner.tensors if spec.is_input)
        outputs = self._owner.function(views.pop(name).copy())
        for output, view in views.items():
            view[...] = outputs[output]
