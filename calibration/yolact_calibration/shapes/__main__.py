"""Entry point of ``python -m yolact_calibration.shapes``."""

import sys

from yolact_calibration.shapes import main

sys.exit(main())
