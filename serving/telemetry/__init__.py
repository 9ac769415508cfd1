"""What Prometheus, logs and traces say."""
