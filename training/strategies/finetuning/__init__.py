"""Fine-tuning and training from scratch, with torch."""
