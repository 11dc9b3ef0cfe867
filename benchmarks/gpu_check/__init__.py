"""``make gpu-check``: whether the trainer does on this machine's GPU what it promises, in ten minutes."""
