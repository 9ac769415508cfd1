"""Commands that make and judge versions."""
