"""Rollout of a new version: shadow, trial, rollback."""
