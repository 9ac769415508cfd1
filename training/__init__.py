"""Makes model versions. Only `backbones`, `strategies/finetuning` and `importing/torch_file.py` import torch."""
