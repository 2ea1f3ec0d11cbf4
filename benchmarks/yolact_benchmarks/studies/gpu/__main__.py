"""The program of a GPU day; it also runs in a checkout where nothing is installed."""

import sys
from pathlib import Path

# A borrowed machine is left as it was.
sys.dont_write_bytecode = True
if not __package__:
    # Replace this folder at the front of the path, where its modules would shadow others of the same names.
    root = Path(__file__).resolve().parents[4]
    sys.path[:1] = [str(root / name) for name in ("runtime", "plugins", "calibration", "export", "benchmarks", "tests")]

from yolact_benchmarks.studies.gpu.cli import main  # noqa: E402

sys.exit(main())
