"""What every kind of task needs: leases, children, memory, room on the disk."""
