"""Process that lists the networks of `regraft backbones`, ``python -m training.backbones``.

A server starts it to tell what could be added to its store, since it does not import torch itself.
"""

import json
import sys

from training.backbones.listing import list_backbones

if __name__ == "__main__":
    entries, _ = list_backbones()
    json.dump(entries, sys.stdout)
