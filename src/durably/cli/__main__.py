"""`python -m durably.cli` is `durably`."""

import sys

from durably.cli import main

sys.exit(main())
