"""What ``regraft export --to`` writes, a module for each kind of file; `training.formats.table` lists them."""
