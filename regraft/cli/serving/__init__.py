"""Commands that load models as a server does."""
