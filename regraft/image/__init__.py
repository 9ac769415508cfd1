"""Pictures: from encoded bytes to the crop that a network sees. THE preprocessing."""
