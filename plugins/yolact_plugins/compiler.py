"""The former place of ``python -m yolact_plugins.compile`` and of :mod:`yolact_plugins.compile.compiler`."""

import sys
import warnings

from yolact_plugins.compile.compiler import OPTIONS, compile_cubin, nvrtc_version, supported_archs

__all__ = ["OPTIONS", "compile_cubin", "nvrtc_version", "supported_archs"]

warnings.warn(
    "yolact_plugins.compiler has moved: type python -m yolact_plugins.compile, import yolact_plugins.compile.compiler",
    DeprecationWarning,
    # Who imports this is told; who types it is told here.
    stacklevel=1 if __name__ == "__main__" else 2,
)

if __name__ == "__main__":
    from yolact_plugins.compile.precompile import main

    sys.exit(main())
