"""What any layer may ask of PostgreSQL; knows no table of ours."""
