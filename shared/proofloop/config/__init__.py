"""Files and variables that people write: settings, run files, curriculum files, problem files."""
