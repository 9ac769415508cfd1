"""The servicers over HTTP too: one rule, two mouths."""
