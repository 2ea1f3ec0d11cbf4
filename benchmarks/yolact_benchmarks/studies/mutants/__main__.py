"""The campaign of mutants as a program."""

import sys

from yolact_benchmarks.studies.mutants.campaign import main

sys.exit(main())
