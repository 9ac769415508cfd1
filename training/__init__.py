"""Makes model versions. torch is imported only by the modules that need it: `backbones` and `export`."""
