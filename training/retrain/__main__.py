"""``python -m training.retrain``: a head retrain as a process of its own."""

import sys

from training.retrain.job import main

sys.exit(main())
