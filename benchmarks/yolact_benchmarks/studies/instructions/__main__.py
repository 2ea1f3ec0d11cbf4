"""The study as a program: ``python -m yolact_benchmarks.studies.instructions``."""

import sys

from yolact_benchmarks.studies.instructions.cli import main

if __name__ == "__main__":
    sys.exit(main())
