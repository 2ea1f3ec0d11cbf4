"""Entry point of ``python -m yolact_plugins.compile``."""

import sys

from yolact_plugins.compile.precompile import main

sys.exit(main())
