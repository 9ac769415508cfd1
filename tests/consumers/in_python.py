"""Classifies crops, uint8 [side, side, 3] each in a file of its own: in_python.py MODEL SIDE CROP..."""

import json
import sys

import numpy as np
import onnxruntime

model, side, *crops = sys.argv[1:]
session = onnxruntime.InferenceSession(model)
image = np.stack([np.fromfile(crop, np.uint8).reshape(int(side), int(side), 3) for crop in crops])
(probabilities,) = session.run(["probabilities"], {"image": image})
json.dump({"version": onnxruntime.__version__, "probabilities": probabilities.tolist()}, sys.stdout)
