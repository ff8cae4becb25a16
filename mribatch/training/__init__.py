"""Train networks and fit classical models: splits, batches, training steps and the loop that Ray Train runs."""
