"""The servicers over HTTP."""
