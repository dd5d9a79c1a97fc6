"""``python -m trm_mlx`` is the ``trm`` command."""

import sys

from trm_mlx.cli import main

sys.exit(main())
