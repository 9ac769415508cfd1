"""The kinds of files that ``regraft export --to`` writes, a module each; `catalogue` lists them."""
