"""Deprecated alias of ``python -m yolact_plugins.compile`` and of :mod:`yolact_plugins.compile.compiler`."""

import sys

from yolact_plugins.compile.compiler import OPTIONS, compile_cubin, nvrtc_version, supported_archs
from yolact_plugins.deprecation import warn_deprecated

__all__ = ["OPTIONS", "compile_cubin", "nvrtc_version", "supported_archs"]

warn_deprecated(
    "yolact_plugins.compiler",
    "type python -m yolact_plugins.compile, import yolact_plugins.compile.compiler",
    removed_in="0.2",
    # The warning points at the import statement, or at this module if it is run.
    stacklevel=0 if __name__ == "__main__" else 1,
)

if __name__ == "__main__":
    from yolact_plugins.compile.precompile import main

    sys.exit(main())
