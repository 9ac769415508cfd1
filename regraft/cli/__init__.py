"""What is typed. Imports everything below, and nobody imports it."""
