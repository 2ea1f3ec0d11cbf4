"""The campaign of bad inputs as a program."""

import sys

from yolact_benchmarks.studies.bad_inputs.campaign import main

sys.exit(main())
