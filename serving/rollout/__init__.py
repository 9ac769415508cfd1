"""What becomes of a new version: shadow, trial, rollback."""
