"""The storm as a program."""

import sys

from yolact_benchmarks.studies.storm.storm import main

sys.exit(main())
