"""``python3 -B benchmarks/yolact_benchmarks/studies/gpu``: in a checkout where nothing is installed, too."""

import sys
from pathlib import Path

# A machine that is lent is left as it was.
sys.dont_write_bytecode = True
if not __package__:
    # This folder came first, where its modules would hide others of the same names.
    root = Path(__file__).resolve().parents[4]
    sys.path[:1] = [str(root / name) for name in ("runtime", "plugins", "calibration", "export", "benchmarks", "tests")]

from yolact_benchmarks.studies.gpu.cli import main  # noqa: E402

sys.exit(main())
