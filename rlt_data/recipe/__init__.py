"""TOML recipes: schema, plan, run."""
