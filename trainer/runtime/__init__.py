"""The process and its machine: devices, other processes, signals, events, memory, errors, atomic writes."""
