"""Reasons for answers: like pictures, maps of all of them, and where the network looked."""
