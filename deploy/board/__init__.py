"""What runs on the Pi during a deploy, sent there by it: the standard library and nothing else."""
