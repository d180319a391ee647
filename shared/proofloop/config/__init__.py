"""What people write: settings, run files, curriculum files, problem files."""
