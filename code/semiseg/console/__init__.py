"""What people type and see: commands, progress, printed tables."""
