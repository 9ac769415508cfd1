"""May a challenger replace the champion. No torch."""
