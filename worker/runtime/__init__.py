"""What every kind of task needs: leases, child processes, memory, disk space."""
