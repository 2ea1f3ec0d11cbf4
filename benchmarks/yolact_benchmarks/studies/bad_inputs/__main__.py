import sys

from yolact_benchmarks.studies.bad_inputs.campaign import main

sys.exit(main())
