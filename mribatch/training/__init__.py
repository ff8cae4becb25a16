"""Train networks and fit classical models: batches, splits, steps and the loop that Ray Train runs."""
