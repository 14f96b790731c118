"""The broadcast of reward versions: the channel, and its followers in env runners and evaluating processes."""
